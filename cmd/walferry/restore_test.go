package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// TestMain is walferry itself where a test runs its own binary as that.
func TestMain(m *testing.M) {
	if os.Getenv("WALFERRY_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// threeStates is a replica of three states, each of one page more, a minute apart.
func threeStates(t *testing.T) (url string, states [4][]byte) {
	t.Helper()
	dir := t.TempDir()
	const pageSize = 4096
	for txid := ltx.TXID(1); txid <= 3; txid++ {
		level, h := "0", ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize, Commit: uint32(txid),
			MinTXID: txid, MaxTXID: txid, Timestamp: 1700000000000 + 60_000*int64(txid),
		}
		if txid == 1 {
			level = "9"
		}
		var buf bytes.Buffer
		enc, err := ltx.NewEncoder(&buf)
		if err == nil {
			err = enc.EncodeHeader(h)
		}
		page := bytes.Repeat([]byte{byte(txid)}, pageSize)
		states[txid] = append(bytes.Clone(states[txid-1]), page...)
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: uint32(txid)}, page)
		}
		if err == nil {
			err = enc.Close()
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, "ltx", level), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "ltx", level, ltx.FormatFilename(txid, txid)), buf.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return "file://" + dir, states
}

func TestRestoreOfAPoint(t *testing.T) {
	url, states := threeStates(t)
	for _, c := range []struct {
		flags string
		txid  int
		past  bool
	}{
		{"", 3, false},
		{"-txid 2", 2, true},
		{"--txid 0000000000000001", 1, true},
		{"-txid 3", 3, false},
		{"-timestamp 2023-11-14T22:15:19.999Z", 1, true},
		{"--timestamp=2023-11-14T22:15:20Z", 2, true},
		{"-timestamp 2099-01-01T00:00:00Z", 3, false},
	} {
		out := filepath.Join(t.TempDir(), "out.db")
		args := append([]string{"restore", "-o", out, url}, strings.Fields(c.flags)...)
		code, stdout, stderr := walferry(args...)
		got, err := os.ReadFile(out)
		if code != exitOK || err != nil || !bytes.Equal(got, states[c.txid]) {
			t.Fatalf("%s: code %d, %d bytes, %v, %s", c.flags, code, len(got), err, stderr)
		}
		if !strings.Contains(stdout, ltx.TXID(c.txid).String()) {
			t.Errorf("%s: %s", c.flags, stdout)
		}
		_, err = os.Stat(out + "-ledger")
		if c.past != errors.Is(err, os.ErrNotExist) || c.past != strings.Contains(stderr, "takeover=1") {
			t.Errorf("%s: ledger %v, said %q", c.flags, err, stderr)
		}
	}
	for _, c := range []struct{ flags, says string }{
		{"-txid 9", "0000000000000003"},
		{"-mark nowhere", `"nowhere"`},
		{"-timestamp 2001-01-01T00:00:00Z", "2023-11-14"},
	} {
		out := filepath.Join(t.TempDir(), "out.db")
		code, _, stderr := walferry(append([]string{"restore", "-o", out, url}, strings.Fields(c.flags)...)...)
		if _, err := os.Stat(out); code != exitFailure || !strings.Contains(stderr, c.says) || err == nil {
			t.Errorf("%s: code %d, %s", c.flags, code, stderr)
		}
	}
}

func TestRestoreToAMark(t *testing.T) {
	url, states := threeStates(t)
	store, err := objstore.New(url, objstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutMark(t.Context(), objstore.Mark{Name: "before migration", TXID: 2, Time: time.UnixMilli(1700000120000)}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	if code, _, stderr := walferry("restore", "-mark", "before migration", "-o", out, url); code != exitOK {
		t.Fatal(stderr)
	}
	if got, _ := os.ReadFile(out); !bytes.Equal(got, states[2]) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestRestoreToStandardOutput(t *testing.T) {
	url, states := threeStates(t)
	t.Setenv("TMPDIR", t.TempDir())
	code, stdout, stderr := walferry("restore", "-o", "-", url, "-txid", "2")
	if code != exitOK || stdout != string(states[2]) || !strings.Contains(stderr, "restored "+url) {
		t.Errorf("code %d, %d bytes, %s", code, len(stdout), stderr)
	}
	// -check finds that this is no database, before a byte is written.
	code, stdout, stderr = walferry("restore", "-o", "-", "-check", "quick", url)
	if code != exitFailure || stdout != "" || !strings.Contains(stderr, "database is damaged") {
		t.Errorf("code %d, %d bytes, %s", code, len(stdout), stderr)
	}
	var buf bytes.Buffer
	code = run(context.Background(), []string{"restore", "-o", "-", url}, fullWriter{}, &buf)
	if code != exitFailure || !strings.Contains(buf.String(), "no space") {
		t.Errorf("code %d, %s", code, buf.String())
	}
	empty(t, os.Getenv("TMPDIR"))
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		t.Errorf("%s is left in %s", e.Name(), dir)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	url, _ := threeStates(t)
	dir := t.TempDir()
	code, stdout, stderr := walferry("restore", "-dry-run", "-o", filepath.Join(dir, "out.db"), url, "-txid", "2")
	for _, s := range []string{"TXID 0000000000000002 (the newest is 0000000000000003)", "9      0000000000000001", "2 objects", "2 requests", "2023-11-14T22:15:20Z"} {
		if code != exitOK || !strings.Contains(stdout, s) {
			t.Errorf("code %d, %s does not say %q, %s", code, stdout, s, stderr)
		}
	}
	empty(t, dir)
	if code, stdout, stderr := walferry("restore", "-dry-run", "-json", url); code != exitOK || !strings.Contains(stdout, `"dry_run": true`) {
		t.Errorf("code %d, %s, %s", code, stdout, stderr)
	}
}

func TestRestoreResultAsJSON(t *testing.T) {
	url, _ := threeStates(t)
	out := filepath.Join(t.TempDir(), "out.db")
	for _, c := range []struct {
		args  []string
		wants map[string]any
	}{
		{[]string{"-o", out}, map[string]any{"restored": true, "txid": "0000000000000003", "past": false, "size": 12288.0, "page_size": 4096.0, "database": out, "replica": url, "check": "none"}},
		{[]string{"-o", out, "-delta"}, map[string]any{"restored": true, "delta": map[string]any{"used": true, "kept_pages": 3.0}}},
		{[]string{"-o", out, "-force", "-txid", "1"}, map[string]any{"restored": true, "past": true, "newest_txid": "0000000000000003"}},
		{[]string{"-o", out, "-if-db-not-exists"}, map[string]any{"restored": false, "reason": out + " exists"}},
	} {
		code, stdout, stderr := walferry(append([]string{"restore", "-json", url}, c.args...)...)
		var got map[string]any
		if err := json.Unmarshal([]byte(stdout), &got); code != exitOK || err != nil {
			t.Fatalf("%v: code %d, %v: %s%s", c.args, code, err, stdout, stderr)
		}
		for k, want := range c.wants {
			a, _ := json.Marshal(got[k])
			b, _ := json.Marshal(want)
			if !bytes.Equal(a, b) {
				t.Errorf("%v: %s is %s, want %s", c.args, k, a, b)
			}
		}
	}
}

func TestRestoreThatHasNothingToDo(t *testing.T) {
	url, _ := threeStates(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out.db")
	if code, stdout, stderr := walferry("restore", "-if-replica-exists", "-o", out, "file://"+dir+"/none"); code != exitOK || stdout != "" || !strings.Contains(stderr, "nothing to do") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
	empty(t, dir)
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := walferry("restore", "--if-db-not-exists", "-o", out, url); code != exitOK || stdout != "" || !strings.Contains(stderr, "out.db exists") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
	if b, _ := os.ReadFile(out); string(b) != "precious" {
		t.Errorf("the target says %q", b)
	}
}

func TestCheckKeepsADamagedDatabaseOut(t *testing.T) {
	url, _ := threeStates(t) // whose pages are no database
	dir := t.TempDir()
	for _, how := range []string{"quick", "full"} {
		code, _, stderr := walferry("restore", "-check", how, "-o", filepath.Join(dir, "out.db"), url)
		if code != exitFailure || !strings.Contains(stderr, "database is damaged") || !strings.Contains(stderr, "-check none") {
			t.Errorf("code %d, %s", code, stderr)
		}
		empty(t, dir)
	}
}

// Signals come while a store is in the middle of its answer.
func TestASignalLeavesNothing(t *testing.T) {
	server := s3test.Start(t)
	server.Env(t)
	server.Bucket(t, "bucket")
	dirURL, _ := threeStates(t)
	from := strings.TrimPrefix(dirURL, "file://")
	for level, to := range map[string]string{"0": "0000", "9": "0009"} {
		if err := os.CopyFS(filepath.Join(server.Dir, "bucket", "app", to), os.DirFS(filepath.Join(from, "ltx", level))); err != nil {
			t.Fatal(err)
		}
	}
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}, ErrorLog: log.New(io.Discard, "", 0)} // those whose client ends
	hangs := make(chan struct{}, 100)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "3.ltx") && r.Header.Get("Range") != "bytes=0-0" {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Content-Range", "bytes 0-999/1000")
			w.WriteHeader(http.StatusPartialContent)
			_ = http.NewResponseController(w).Flush()
			hangs <- struct{}{}
			<-r.Context().Done()
			return
		}
		next.ServeHTTP(w, r)
	}))
	defer proxy.Close()

	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, out := range []string{"out.db", "-"} {
			dir, tmp := t.TempDir(), t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "restore", "-check", "quick", "-o", out, "s3://bucket/app?endpoint="+proxy.URL)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "WALFERRY_TEST_MAIN=1", "TMPDIR="+tmp)
			var said lockedBuffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-hangs
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != exitFailure || !strings.Contains(said.String(), "interrupted") {
				t.Errorf("%v: %v, %s", signal, err, said.String())
			}
			empty(t, dir)
			empty(t, tmp)
		}
	}
}

// lockedBuffer takes what a process writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
