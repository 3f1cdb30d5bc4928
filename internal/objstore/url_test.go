package objstore_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/objstore"
)

// noEnv empties what New takes from the environment.
func noEnv(t testing.TB) {
	for _, k := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(k, "")
	}
}

func TestURLsComeBackWithoutQuery(t *testing.T) {
	noEnv(t)
	for in, want := range map[string]string{
		"file:///var/backups/app":    "file:///var/backups/app",
		"file:///var//x/../backups/": "file:///var/backups",
		"file:///with%20space":       "file:///with%20space",
		"s3://bucket":                "s3://bucket",
		"s3://bucket/":               "s3://bucket/",
		"s3:/bucket/a":               "s3://bucket/a",
		"s3://bucket/a/b":            "s3://bucket/a/b",
		"s3://bucket//a/../b/":       "s3://bucket/b",
		"S3://bucket/a?endpoint=http://127.0.0.1:9000&region=x":     "s3://bucket/a",
		"s3://bucket/a?endpoint=127.0.0.1:9000&forcePathStyle=true": "s3://bucket/a",
		"s3://bucket/a?endpoint=https%3A%2F%2Fs3.example.org%2F":    "s3://bucket/a",
		"s3://bucket/a?endpoint=[::1]:9000&force-path-style=0":      "s3://bucket/a",
		"s3://bucket/a@b%23c": "s3://bucket/a@b%23c",
	} {
		s, err := objstore.New(in, objstore.Options{})
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if s.String() != want {
			t.Errorf("%s: %s, want %s", in, s, want)
		}
	}
}

func TestMalformedURLs(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"", "allowed are"},
		{"/var/backups", "file:///dir"},
		{"gs://bucket/x", `"gs://bucket/x"`},
		{"file:dir", "file://"},
		{"file://dir/x", "three slashes"},
		{"file://", "three slashes"},
		{"file:///", "names no directory"},
		{"file:///x?a=b", `unknown parameter "a"`},
		{"s3:bucket/x", "two slashes"},
		{"s3:///x", "no bucket"},
		{"s3://ab/x", `"ab"`},
		{"s3://buck et/x", "cannot be parsed"},
		{"s3://bucket:9000/x", "a port"},
		{"s3://bucket.s3.eu-west-1.amazonaws.com/x", "region="},
		{"s3://bucket/x#y", "%23"},
		{"s3://bucket/%00", "control"},
		{"s3://bucket/%ff", "UTF-8"},
		{"s3://bucket/" + strings.Repeat("x", 901), "900 bytes"},
		{"s3://bucket/x?endpont=h", `unknown parameter "endpont"`},
		{"s3://bucket/x?region=a&region=b", "allowed is once"},
		{"s3://bucket/x?region=a%20b", `region "a b"`},
		{"s3://bucket/x?forcePathStyle=maybe", `"maybe"`},
		{"s3://bucket/x?endpoint=ftp://h", `"ftp://h"`},
		{"s3://bucket/x?endpoint=http://h/path", "host:port"},
		{"s3://bucket/x?endpoint=h:port", "host:port"},
		{"s3://bucket/x?endpoint=h:99999", "host:port"},
		{"s3://bucket/x?endpoint=%zz", "query"},
		{"s3://me:SECRET-OF-MINE@bucket/x", "credentials"},
		{"s3://me:SECRET-OF-MINE%zz@bucket/x", "credentials"},
		{"s3://me:SECRET-OF/MINE@bucket/x", "not shown"},
		{"s3://me:1/SECRET-OF-MINE@bucket/x", "not shown"},
		{"s3://bucket/x?endpoint=http://me:SECRET-OF-MINE@h", "credentials"},
		{"s3://bucket/x?sseCustomerKey=SECRET-OF-MINE", `"sseCustomerKey"`},
		{"s3://b/x?secret=SECRET-OF-MINE", `"b"`},
	} {
		noEnv(t)
		_, err := objstore.New(c.url, objstore.Options{})
		if !errors.Is(err, objstore.ErrURL) {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", c.url, err, c.want)
		}
		if strings.Contains(err.Error(), "SECRET-OF") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q", c.url, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	noEnv(t)
	for _, o := range []objstore.Options{{Endpoint: "ftp://h"}, {Region: "a/b"}, {PathStyle: "x"}, {Endpoint: "http://a:SECRET-OF-MINE@h"}} {
		_, err := objstore.New("s3://bucket/x", o)
		if !errors.Is(err, objstore.ErrURL) || strings.Contains(err.Error(), "SECRET-OF") {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := objstore.New("s3://bucket/x?endpoint=h&region=r&forcePathStyle=1", o); err != nil {
			t.Errorf("%+v: the query comes first: %v", o, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://h/path")
	if _, err := objstore.New("s3://bucket/x", objstore.Options{}); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL_S3") {
		t.Error(err)
	}
}

// The names of objects as they go over the wire are Litestream's, the odd
// ones of a URL without a path included.
func TestKeysAreLitestreams(t *testing.T) {
	var got, host, region string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, host = r.RequestURI, r.Host
		region = r.Header.Get("Authorization")
		w.Header().Set("ETag", `"e"`)
	}))
	defer srv.Close()
	noEnv(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	name := "/0009/0000000000000001-00000000000000ff.ltx"
	for url, want := range map[string]string{
		"s3://bucket":               "/bucket/." + name,
		"s3://bucket/":              "/bucket/" + name,
		"s3://bucket/pre/fix/":      "/bucket/pre/fix" + name,
		"s3://bucket//pre/./fix//":  "/bucket/pre/fix" + name,
		"s3://bucket/a%20b/../c+d%": "",
		"s3://bucket/a%20b":         "/bucket/a%20b" + name,
	} {
		s, err := objstore.New(url, objstore.Options{Endpoint: srv.URL, Region: "here"})
		if want == "" {
			if err == nil {
				t.Errorf("%s: no error", url)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, object(9, 1, 255), "x")
		if got != want || !strings.Contains(region, "/here/s3/") || "http://"+host != srv.URL {
			t.Errorf("%s: %s at %s, want %s", url, got, host, want)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"file:///a/b", "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=us-east-1&forcePathStyle=true",
		"s3://u:p@bucket/", "s3://bucket", "s3://[::1]/", "s3://bucket/%2e%2e/x", "s3://bucket/?endpoint=@", "file://h/x", "://", "s3://bucket/a#b"} {
		f.Add(s)
	}
	noEnv(f)
	f.Fuzz(func(t *testing.T, raw string) {
		s, err := objstore.New(raw, objstore.Options{})
		if err != nil {
			if !errors.Is(err, objstore.ErrURL) {
				t.Fatalf("%q: %v", raw, err)
			}
			_, rest, _ := strings.Cut(raw, "://")
			user, _, ok := strings.Cut(rest, "@")
			if _, pw, has := strings.Cut(user, ":"); ok && has && len(pw) > 20 && !strings.Contains(user, "/") && strings.Contains(err.Error(), pw) {
				t.Fatalf("%q: a password in %q", raw, err)
			}
			return
		}
		again, err := objstore.New(s.String(), objstore.Options{})
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q: %s comes back as %v, %v", raw, s, again, err)
		}
	})
}
