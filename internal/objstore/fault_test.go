package objstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

// answers is a store that gives the same answer to all requests of a kind, which
// is a method and, for uploads, a word of the query.
type answers map[string]string

// script serves answers of the form "status code", and tells what was asked.
func script(t *testing.T, a answers) (objstore.Store, func() []string) {
	var mu sync.Mutex
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		kind := r.Method
		for _, word := range []string{"uploads", "partNumber", "uploadId", "list-type", "delete"} {
			if r.URL.Query().Has(word) {
				kind += " " + word
				break
			}
		}
		mu.Lock()
		asked = append(asked, kind)
		mu.Unlock()
		if a[kind] != "200 nothing" {
			w.Header().Set("ETag", `"e"`)
		}
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		status, code := 200, ""
		if _, err := fmt.Sscanf(a[kind], "%d %s", &status, &code); err != nil {
			switch kind {
			case "POST uploads":
				fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
			case "POST uploadId":
				fmt.Fprint(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket></CompleteMultipartUploadResult>")
			case "POST delete":
				fmt.Fprint(w, "<DeleteResult></DeleteResult>")
			case "DELETE", "DELETE uploadId":
				w.WriteHeader(http.StatusNoContent)
			}
			return
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>of SECRET-OF-MINE</Message></Error>", code)
	}))
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "ACCESS-OF-MINE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "SECRET-OF-MINE")
	t.Setenv("AWS_SESSION_TOKEN", "TOKEN-OF-MINE")
	return open(t, "s3://bucket/app", objstore.Options{Endpoint: srv.URL}), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return asked
	}
}

// class is which sentinel an error bears; "open" is an outcome left open.
func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, objstore.ErrRefused):
		return "refused"
	case errors.Is(err, objstore.ErrExist):
		return "exist"
	case errors.Is(err, objstore.ErrNotExist):
		return "not exist"
	}
	return "open"
}

func TestAnswersToAPut(t *testing.T) {
	for answer, want := range map[string]string{
		"":                                 "ok",
		"412 PreconditionFailed":           "exist",
		"409 ConditionalRequestConflict":   "open",
		"409 OperationAborted":             "open",
		"503 SlowDown":                     "open",
		"500 InternalError":                "open",
		"400 BadDigest":                    "open",
		"403 AccessDenied":                 "refused",
		"403 SomethingNew":                 "refused",
		"401 Unauthorized":                 "refused",
		"403 RequestTimeTooSkewed":         "refused",
		"400 ExpiredToken":                 "refused",
		"404 NoSuchBucket":                 "refused",
		"301 PermanentRedirect":            "refused",
		"400 AuthorizationHeaderMalformed": "refused",
		"501 NotImplemented":               "refused",
		"307 TemporaryRedirect":            "open",
		"200 nothing":                      "open", // a page that is no store's
	} {
		t.Run(answer, func(t *testing.T) {
			s, asked := script(t, answers{"PUT": answer})
			err := s.Create(t.Context(), object(0, 1, 1), bytes.NewReader([]byte("x")), objstore.Meta{}, nil)
			if class(err) != want || len(asked()) != 1 {
				t.Errorf("%s after %v: %v", class(err), asked(), err)
			}
			if err != nil {
				noSecret(t, err.Error())
			}
		})
	}
}

func TestAnswersToAnUpload(t *testing.T) {
	look := answers{"GET": "404 NoSuchKey"}
	for _, c := range []struct {
		kind, answer, want string
		aborted            bool
	}{
		{"none", "", "ok", false},
		{"POST uploads", "403 AccessDenied", "refused", false},
		{"POST uploads", "503 SlowDown", "open", false},
		{"PUT partNumber", "503 SlowDown", "open", true},
		{"PUT partNumber", "403 AccessDenied", "refused", true},
		{"PUT partNumber", "200 nothing", "open", true},
		{"POST uploadId", "412 PreconditionFailed", "exist", true},
		{"POST uploadId", "200 PreconditionFailed", "exist", true},
		{"POST uploadId", "409 ConditionalRequestConflict", "open", false},
		{"POST uploadId", "404 NoSuchUpload", "open", false},
		{"POST uploadId", "500 InternalError", "open", false},
		{"POST uploadId", "200 InternalError", "open", false},
		{"GET", "200 x", "exist", false},
	} {
		t.Run(c.kind+" "+c.answer, func(t *testing.T) {
			a := answers{"GET": look["GET"]}
			a[c.kind] = c.answer
			if c.kind == "GET" {
				delete(a, "GET")
			}
			s, asked := script(t, a)
			if c.kind == "GET" {
				s = ranged(t)
			}
			err := s.Create(t.Context(), object(9, 1, 9), bytes.NewReader(large()), objstore.Meta{}, nil)
			aborted := strings.Contains(fmt.Sprint(asked()), "DELETE uploadId")
			if class(err) != c.want || aborted != c.aborted {
				t.Errorf("%s, aborted %v: %v", class(err), aborted, err)
			}
			if err != nil {
				noSecret(t, err.Error())
			}
		})
	}
}

// ranged is a store where every object is there and one byte long.
func ranged(t *testing.T) objstore.Store {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Range", "bytes 0-0/1")
		w.Header().Set("Content-Length", "1")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "x")
	}))
	t.Cleanup(srv.Close)
	return open(t, "s3://bucket/app", objstore.Options{Endpoint: srv.URL})
}

func TestStoreWithoutConditions(t *testing.T) {
	for answer, want := range map[string]bool{"": false, "501 NotImplemented": false, "412 PreconditionFailed": true} {
		s, _ := script(t, answers{"PUT": answer})
		if got, err := s.Conditional(t.Context()); got != want || err != nil {
			t.Errorf("%q: %v, %v", answer, got, err)
		}
	}
	s, _ := script(t, answers{"PUT": "503 SlowDown"})
	if _, err := s.Conditional(t.Context()); err == nil {
		t.Error("a store that is down was judged")
	}
}

// TestAnswerThatIsNoList is what a network sends that wants somebody to log in.
func TestAnswerThatIsNoList(t *testing.T) {
	s, _ := script(t, answers{"GET list-type": "200 html"})
	if objs, err := s.List(t.Context(), 0, 1); err == nil {
		t.Errorf("it was taken for a list of %d", len(objs))
	}
	if marks, err := s.Marks(t.Context()); err == nil {
		t.Errorf("it was taken for a list of %d marks", len(marks))
	}
}

func TestRangeThatIsIgnored(t *testing.T) {
	s, _ := script(t, nil)
	if _, err := s.Open(t.Context(), object(0, 1, 1), 5, 5); err == nil {
		t.Error("a whole object was taken for a part")
	}
}

func TestReplyThatEndsEarly(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "short")
	}))
	defer srv.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	rc, err := open(t, "s3://bucket/app", objstore.Options{Endpoint: srv.URL}).Open(t.Context(), object(0, 1, 1), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if b, err := io.ReadAll(rc); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAnswersToARemovalOfMany(t *testing.T) {
	objs := []objstore.Object{object(0, 1, 1), object(0, 2, 2), object(0, 3, 3), object(0, 4, 4), object(0, 5, 5)}
	for name, c := range map[string]struct {
		many, one string
		class     string
		asked     int
	}{
		"not known":       {"501 NotImplemented", "", "ok", 6},
		"not allowed":     {"405 MethodNotAllowed", "", "ok", 6},
		"invalid":         {"400 InvalidArgument", "", "ok", 6},
		"no permission":   {"403 AccessDenied", "403 AccessDenied", "refused", 4},
		"overloaded":      {"503 SlowDown", "", "open", 1},
		"says nothing":    {"", "", "ok", 6}, // an answer that names no key
		"one by one slow": {"501 NotImplemented", "503 SlowDown", "open", 4},
	} {
		t.Run(name, func(t *testing.T) {
			s, asked := script(t, answers{"POST delete": c.many, "DELETE": c.one})
			err := s.RemoveAll(t.Context(), objs)
			if class(err) != c.class || len(asked()) != c.asked {
				t.Errorf("%v after %v", err, asked())
			}
			if err != nil && strings.Contains(err.Error(), "SECRET-OF-MINE") {
				t.Errorf("a credential in %v", err)
			}
		})
	}
}
