package objstore_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// large is a body that needs an upload in parts, the last of them odd.
var large = sync.OnceValue(func() []byte {
	b := make([]byte, 40<<20+12345)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
})

func bucket(t *testing.T) (*s3test.Server, objstore.Store) {
	t.Helper()
	srv := s3test.Start(t)
	srv.Env(t)
	srv.Bucket(t, "replicas")
	return srv, open(t, "s3://replicas/app", objstore.Options{})
}

func TestUploadInParts(t *testing.T) {
	srv := s3test.Start(t)
	srv.Env(t)
	srv.Bucket(t, "replicas")
	var sent, requests atomic.Int64
	s := open(t, "s3://replicas/app", objstore.Options{OnRequest: func(n int64) { sent.Add(n); requests.Add(1) }})
	o := object(9, 1, 8)
	m := objstore.Meta{Timestamp: time.UnixMilli(1700000000123).UTC(), Checksum: 0x80000000000000ff}
	var id string
	if err := s.Create(t.Context(), o, bytes.NewReader(large()), m, func(u string) { id = u }); err != nil {
		t.Fatal(err)
	}
	if id == "" {
		t.Error("started was not called")
	}
	if n := requests.Load(); n != 6 { // look, begin, three parts, end
		t.Errorf("%d requests", n)
	}
	if n := sent.Load() - int64(len(large())); n < 0 || n > 4096 {
		t.Errorf("%d bytes more than the body were sent", n)
	}
	if got := read(t, s, o, 0, -1); got != string(large()) {
		t.Error("object differs")
	}
	if got, err := s.Meta(t.Context(), o); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.Create(t.Context(), o, bytes.NewReader(large()), m, nil); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("again: %v", err)
	}
	if err := s.AbortUpload(t.Context(), o, id); err != nil {
		t.Errorf("abort of what has ended: %v", err)
	}
}

func TestUploadLosesToWhoWasFaster(t *testing.T) {
	srv, s := bucket(t)
	o := object(9, 1, 8)
	err := s.Create(t.Context(), o, bytes.NewReader(large()), objstore.Meta{}, func(string) { create(t, s, o, "winner") })
	if !errors.Is(err, objstore.ErrExist) {
		t.Fatal(err)
	}
	if got := read(t, s, o, 0, -1); got != "winner" {
		t.Errorf("object holds %.20q", got)
	}
	noUploads(t, srv)
}

func TestFailedPartAborts(t *testing.T) {
	srv, s := bucket(t)
	o := object(9, 1, 8)
	boom := errors.New("disk gone")
	err := s.Create(t.Context(), o, &brokenBody{bytes.NewReader(large()), boom}, objstore.Meta{}, nil)
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if _, err := s.Meta(t.Context(), o); !errors.Is(err, objstore.ErrNotExist) {
		t.Error(err)
	}
	noUploads(t, srv)
}

// brokenBody fails from its twentieth MiB on.
type brokenBody struct {
	*bytes.Reader
	err error
}

func (b *brokenBody) ReadAt(p []byte, off int64) (int, error) {
	if off > 20<<20 {
		return 0, b.err
	}
	return b.Reader.ReadAt(p, off)
}

func TestAbandonedUploadCanBeAborted(t *testing.T) {
	srv, s := bucket(t)
	o := object(9, 1, 8)
	var id string
	err := s.Create(t.Context(), o, bytes.NewReader(large()), objstore.Meta{}, func(u string) { id = u; srv.Stop() })
	if err == nil || errors.Is(err, objstore.ErrExist) || errors.Is(err, objstore.ErrRefused) {
		t.Fatalf("server gone: %v", err)
	}
	srv.Start(t)
	for range 2 {
		if err := s.AbortUpload(t.Context(), o, id); err != nil {
			t.Fatal(err)
		}
	}
	noUploads(t, srv)
}

// noUploads looks for parts in the server's own directory.
func noUploads(t *testing.T, srv *s3test.Server) {
	t.Helper()
	filepath.Walk(srv.Dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Size() > 1<<20 {
			t.Errorf("left behind: %s", path)
		}
		return nil
	})
}

func TestListOfSeveralPages(t *testing.T) {
	srv, s := bucket(t)
	create(t, s, object(0, 1, 1), "x")
	dir := filepath.Join(srv.Dir, "replicas", "app", "0000")
	for i := 2; i <= 2300; i++ {
		o := object(0, ltx.TXID(i), ltx.TXID(i))
		if err := os.WriteFile(filepath.Join(dir, o.Name()), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []ltx.TXID{0, 2, 1000, 2300, 2301} {
		l, err := s.List(t.Context(), 0, from)
		if err != nil || len(l) != int(2301-max(from, 1)) {
			t.Errorf("from %d: %d objects, %v", from, len(l), err)
		}
	}
}

// secrets are what no error and no String may hold.
var secrets = []string{"walferry-test-secret", "walferry-test-access", "SECRET-OF-MINE", "ACCESS-OF-MINE", "TOKEN-OF-MINE"}

func noSecret(t *testing.T, what string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(what, s) {
			t.Errorf("a credential in %q", what)
		}
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	srv := s3test.Start(t)
	srv.Bucket(t, "replicas")
	for _, c := range []struct {
		name, url string
		env       map[string]string
		want      string
	}{
		{"bucket", "s3://nosuchbucket/app", nil, `bucket "nosuchbucket" does not exist at ` + srv.Endpoint},
		{"access key", "s3://replicas/app", map[string]string{"AWS_ACCESS_KEY_ID": "ACCESS-OF-MINE"}, "AWS_ACCESS_KEY_ID"},
		{"secret key", "s3://replicas/app", map[string]string{"AWS_SECRET_ACCESS_KEY": "SECRET-OF-MINE"}, "AWS_SECRET_ACCESS_KEY"},
		{"region", "s3://replicas/app?region=eu-west-9", nil, "region"},
		{"none", "s3://replicas/app", map[string]string{"AWS_ACCESS_KEY_ID": ""}, "~/.aws/credentials"},
		{"half", "s3://replicas/app", map[string]string{"AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.Env(t)
			noFiles(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			s := open(t, c.url, objstore.Options{})
			noSecret(t, s.String())
			for verb, err := range everything(t, s) {
				if !errors.Is(err, objstore.ErrRefused) || errors.Is(err, objstore.ErrExist) || errors.Is(err, objstore.ErrNotExist) {
					t.Errorf("%s: %v", verb, err)
				} else if !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %q does not say %q", verb, err, c.want)
				} else {
					noSecret(t, err.Error())
				}
			}
		})
	}
}

// noFiles hides the credentials of whoever runs the test.
func noFiles(t *testing.T) {
	for _, k := range []string{"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"} {
		t.Setenv(k, filepath.Join(t.TempDir(), "none"))
	}
	for _, k := range []string{"LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(k, "")
	}
}

// everything calls each method that talks to the store.
func everything(t *testing.T, s objstore.Store) map[string]error {
	o := object(0, 1, 1)
	errs := map[string]error{
		"create": s.Create(t.Context(), o, bytes.NewReader([]byte("x")), objstore.Meta{}, nil),
		"remove": s.Remove(t.Context(), o),
		"upload": s.Create(t.Context(), o, bytes.NewReader(large()), objstore.Meta{}, nil),
		"abort":  s.AbortUpload(t.Context(), o, "none"),
	}
	_, errs["list"] = s.List(t.Context(), 0, 0)
	_, errs["open"] = s.Open(t.Context(), o, 0, -1)
	_, errs["meta"] = s.Meta(t.Context(), o)
	_, errs["conditional"] = s.Conditional(t.Context())
	return errs
}

func TestDeadEndpointIsNoRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "ACCESS-OF-MINE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "SECRET-OF-MINE")
	t.Setenv("AWS_SESSION_TOKEN", "TOKEN-OF-MINE")
	for verb, err := range everything(t, open(t, "s3://replicas/app?endpoint="+addr, objstore.Options{})) {
		if err == nil || errors.Is(err, objstore.ErrRefused) || errors.Is(err, objstore.ErrExist) || errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("%s: %v", verb, err)
		} else if !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %q does not name the endpoint", verb, err)
		} else {
			noSecret(t, err.Error())
		}
	}
}

func TestCredentialsAreFound(t *testing.T) {
	srv := s3test.Start(t)
	srv.Bucket(t, "replicas")
	srv.Env(t)
	noFiles(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	s := open(t, "s3://replicas/app", objstore.Options{})
	if _, err := s.List(t.Context(), 0, 0); !errors.Is(err, objstore.ErrRefused) {
		t.Fatal(err)
	}
	t.Setenv("LITESTREAM_ACCESS_KEY_ID", srv.Access)
	t.Setenv("LITESTREAM_SECRET_ACCESS_KEY", srv.Secret)
	if _, err := s.List(t.Context(), 0, 0); err != nil {
		t.Errorf("set later: %v", err)
	}
	t.Setenv("LITESTREAM_ACCESS_KEY_ID", "")
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(secret string) {
		text := "[other]\naws_access_key_id = " + srv.Access + "\naws_secret_access_key = " + secret + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("SECRET-OF-MINE")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_PROFILE", "other")
	s = open(t, "s3://replicas/app", objstore.Options{})
	if _, err := s.List(t.Context(), 0, 0); !errors.Is(err, objstore.ErrRefused) {
		t.Fatal(err)
	}
	write(srv.Secret)
	if _, err := s.List(t.Context(), 0, 0); err != nil {
		t.Errorf("file corrected: %v", err)
	}
}

// This server keeps objects as files and so loses the "./" of Litestream's names.
func TestStoreThatCleansNames(t *testing.T) {
	bucket(t)
	for _, url := range []string{"s3://replicas", "s3://replicas/"} {
		ok, err := open(t, url, objstore.Options{}).Conditional(t.Context())
		if ok || !errors.Is(err, objstore.ErrRefused) || !strings.Contains(err.Error(), "s3://replicas/prefix") {
			t.Errorf("%s: %v, %v", url, ok, err)
		}
	}
}
