package systest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/s3test"
)

// flawed stands before a real store and lets the requests of one kind fail in one way.
type flawed struct {
	*httptest.Server
	store string // URL

	mu   sync.Mutex // protects what follows
	kind string     // of the requests that fail; "*" for all
	way  way
	met  int
	over chan struct{} // closed when the fault has ended
}

// way answers a request that is to fail. It may have the store do what is asked.
type way func(f *flawed, w http.ResponseWriter, r *http.Request)

func newFlawed(t testing.TB, s *s3test.Server) *flawed {
	t.Helper()
	f := &flawed{store: s.Endpoint, over: make(chan struct{})}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.end()
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// kindOf is a request's method and, where it is of another kind, a word of its query.
func kindOf(r *http.Request) string {
	for _, word := range []string{"uploads", "partNumber", "uploadId", "list-type", "delete"} {
		if r.URL.Query().Has(word) {
			return r.Method + " " + word
		}
	}
	return r.Method
}

// begin lets the requests of a kind fail from now on.
func (f *flawed) begin(kind string, w way) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.way, f.met, f.over = kind, w, 0, make(chan struct{})
}

// end lets everything go well again and returns how many requests have failed.
func (f *flawed) end() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way != nil {
		close(f.over)
	}
	f.way = nil
	return f.met
}

func (f *flawed) hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.met
}

// ServeHTTP is part of http.Handler.
func (f *flawed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	fails := f.way
	if f.kind != "*" && f.kind != kindOf(r) {
		fails = nil
	}
	if fails != nil {
		f.met++
	}
	f.mu.Unlock()
	if fails != nil {
		fails(f, w, r)
		return
	}
	if status, header, body, err := f.pass(r, r.Body); err == nil {
		reply(w, status, header, body, len(body))
	} else {
		reset(w)
	}
}

// pass has the store do what is asked.
func (f *flawed) pass(r *http.Request, body io.Reader) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, f.store+r.URL.RequestURI(), body)
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header, req.Host, req.ContentLength = r.Header.Clone(), r.Host, r.ContentLength
	if r.ContentLength == 0 {
		req.Body = http.NoBody
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, b, err
}

func reply(w http.ResponseWriter, status int, header http.Header, body []byte, length int) {
	for k, v := range header {
		w.Header()[k] = v
	}
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// reset ends the connection as a crash of the other side does.
func reset(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// says answers as a store that refuses does.
func says(status int, code string) way {
	return func(_ *flawed, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		body := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>no</Message></Error>`, code)
		reply(w, status, http.Header{"Content-Type": {"application/xml"}}, []byte(body), len(body))
	}
}

// changed has the store do what is asked and answers with something else.
func changed(change func(w http.ResponseWriter, status int, header http.Header, body []byte)) way {
	return func(f *flawed, w http.ResponseWriter, r *http.Request) {
		if status, header, body, err := f.pass(r, r.Body); err != nil {
			reset(w)
		} else {
			change(w, status, header, body)
		}
	}
}

var ways = map[string]way{
	"reset": func(_ *flawed, w http.ResponseWriter, r *http.Request) { reset(w) },
	"black hole": func(f *flawed, w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		over := f.over
		f.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the client is not seen
		select {
		case <-over:
		case <-r.Context().Done():
		}
		reset(w)
	},
	"403":         says(403, "AccessDenied"),
	"404":         says(404, "NoSuchKey"),
	"no bucket":   says(404, "NoSuchBucket"),
	"412":         says(412, "PreconditionFailed"),
	"409":         says(409, "ConditionalRequestConflict"),
	"500":         says(500, "InternalError"),
	"slow down":   says(503, "SlowDown"),
	"expired":     says(400, "ExpiredToken"),
	"skewed":      says(403, "RequestTimeTooSkewed"),
	"empty error": func(_ *flawed, w http.ResponseWriter, r *http.Request) { reply(w, 502, nil, nil, 0) },
	"redirect": func(_ *flawed, w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		reply(w, 307, http.Header{"Location": {"http://127.0.0.1:1" + r.URL.RequestURI()}}, nil, 0)
	},
	"portal": func(_ *flawed, w http.ResponseWriter, r *http.Request) { // as of a hotel's network
		_, _ = io.Copy(io.Discard, r.Body)
		body := []byte("<!DOCTYPE html><html><body>Please log in</body></html>")
		reply(w, 200, http.Header{"Content-Type": {"text/html"}}, body, len(body))
	},
	"lost reply": changed(func(w http.ResponseWriter, _ int, _ http.Header, _ []byte) { reset(w) }),
	"done, 412": changed(func(w http.ResponseWriter, _ int, _ http.Header, _ []byte) {
		body := []byte(`<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>`)
		reply(w, 412, nil, body, len(body))
	}),
	"done, 500": changed(func(w http.ResponseWriter, _ int, _ http.Header, _ []byte) { reply(w, 500, nil, nil, 0) }),
	"truncated": changed(func(w http.ResponseWriter, status int, h http.Header, body []byte) {
		reply(w, status, h, body[:len(body)/2], max(len(body), 1))
	}),
	"cut off": changed(func(w http.ResponseWriter, status int, h http.Header, body []byte) {
		reply(w, status, h, body[:len(body)/2], len(body)/2)
	}),
	"zeros": changed(func(w http.ResponseWriter, status int, h http.Header, body []byte) {
		reply(w, status, h, make([]byte, len(body)), len(body))
	}),
	"10 KB/s": func(f *flawed, w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		over := f.over
		f.mu.Unlock()
		in, err := io.ReadAll(drip{r.Body, over})
		if err != nil {
			reset(w)
			return
		}
		status, header, body, err := f.pass(r, bytes.NewReader(in))
		if err != nil {
			reset(w)
			return
		}
		out, _ := io.ReadAll(drip{bytes.NewReader(body), over})
		reply(w, status, header, out, len(out))
	},
}

// drip lets 10 KB through in a second, until the fault is over.
type drip struct {
	io.Reader
	over chan struct{}
}

// Read is part of io.Reader.
func (d drip) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p[:min(len(p), 1<<10)])
	select {
	case <-d.over:
	case <-time.After(time.Duration(n) * time.Second / (10 << 10)):
	}
	return n, err
}
