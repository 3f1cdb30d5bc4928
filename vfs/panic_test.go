package vfs

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/shipper"
)

const panicValue = "a fault of walferry's own"

// armed is what panics next: a method of the handler or of a store.
var armed atomic.Value

func panicAt(method string) {
	if armed.CompareAndSwap(method, "") {
		panic(panicValue)
	}
}

// panicky is a handler that panics.
type panicky struct{ *process }

func (p panicky) Check(path string, params map[string]string) error {
	panicAt("Check")
	return p.process.Check(path, params)
}
func (p panicky) Open(path string, params map[string]string) (cext.Opened, error) {
	panicAt("Open")
	return p.process.Open(path, params)
}
func (p panicky) Last(handle uint64)          { panicAt("Last"); p.process.Last(handle) }
func (p panicky) Close(handle uint64)         { panicAt("Close"); p.process.Close(handle) }
func (p panicky) Status(handle uint64) string { panicAt("Status"); return p.process.Status(handle) }
func (p panicky) Mark(handle uint64, name string) (uint64, error) {
	panicAt("Mark")
	return p.process.Mark(handle, name)
}

// panickyStore is a store that panics.
type panickyStore struct{ objstore.Store }

func (s panickyStore) Create(ctx context.Context, o objstore.Object, body objstore.Body, m objstore.Meta, note func(string)) error {
	panicAt("store.Create")
	return s.Store.Create(ctx, o, body, m, note)
}
func (s panickyStore) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	panicAt("store.List")
	return s.Store.List(ctx, level, from)
}
func (s panickyStore) PutMark(ctx context.Context, m objstore.Mark) error {
	panicAt("store.PutMark")
	return s.Store.PutMark(ctx, m)
}

// guest is an application with a database and walferry.
type guest struct {
	*testing.T
	dir string
}

func (g guest) path(name string) string { return filepath.Join(g.dir, name+".db") }

func (g guest) open(name, params string) *sql.Conn {
	g.Helper()
	db, err := sql.Open("sqlite3", fmt.Sprintf("file:%s?vfs=walferry&interval=10ms&replica=file://%s/%s%s", g.path(name), g.dir, name, params))
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = db.Close() })
	c, err := db.Conn(g.Context())
	if err != nil {
		g.Fatalf("open %s: %v", name, err)
	}
	g.Cleanup(func() { _ = c.Close() })
	return c
}

func (g guest) text(c *sql.Conn, query string, args ...any) (text string, err error) {
	err = c.QueryRowContext(g.Context(), query, args...).Scan(&text)
	return text, err
}

func (g guest) write(c *sql.Conn) {
	g.Helper()
	if _, err := c.ExecContext(g.Context(), "CREATE TABLE IF NOT EXISTS t(v); INSERT INTO t VALUES(1)"); err != nil {
		g.Errorf("the application was disturbed: %v", err)
	}
}

func (g guest) rows(c *sql.Conn) string {
	g.Helper()
	n, err := g.text(c, "SELECT count(*) FROM t")
	if err != nil {
		g.Errorf("the application was disturbed: %v", err)
	}
	return n
}

// broken holds what a process owes its application after a panic.
func (g guest) broken(c *sql.Conn) {
	g.Helper()
	var s Status
	text, err := g.text(c, "PRAGMA walferry_status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil || s.State != "broken" && s.State != "off" || !strings.Contains(s.Cause, panicValue) {
		g.Errorf("status %s, %v", text, err)
	}
	for _, ask := range []string{"PRAGMA walferry_sync", "SELECT walferry_wait(walferry_token(), 60000)", "SELECT walferry_mark('m')"} {
		if got, err := g.text(c, ask); err == nil || !strings.Contains(err.Error(), panicValue) {
			g.Errorf("%s: %q, %v", ask, got, err)
		}
	}
}

// freed waits until another process may ship, and reads what it would find.
func (g guest) freed(name string) (s Status) {
	g.Helper()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		l, err := ledger.OpenReadOnly(g.path(name))
		if err != nil {
			g.Fatal(err)
		}
		locked := l.Locked()
		status := shipper.ReadStatus(l)
		l.Close()
		if !locked {
			return status
		}
	}
	g.Errorf("%s: the role of the shipper is still taken", name)
	return s
}

// TestAPanicEndsReplicationAndNothingElse has each case in a process of its own, in which
// one of two databases meets a panic; then the test's own process goes on with both.
func TestAPanicEndsReplicationAndNothingElse(t *testing.T) {
	for _, at := range []string{"Check", "Open", "Status", "Mark", "Last", "Close", "store.Create", "store.List", "store.PutMark"} {
		t.Run(at, func(t *testing.T) {
			if dir := os.Getenv("WALFERRY_TEST_PANIC"); dir != "" {
				panicIn(guest{t, dir}, at)
				return
			}
			t.Parallel()
			g := guest{t, t.TempDir()}
			stderr := rerun(t, "WALFERRY_TEST_PANIC="+g.dir)
			if n := strings.Count(stderr, "internal error: "+panicValue); n != 1 {
				t.Errorf("the log tells it %d times:\n%s", n, stderr)
			}
			for _, name := range []string{"first", "second", "third"} {
				c := g.open(name, "")
				if _, err := g.text(c, "PRAGMA walferry_sync"); err != nil {
					t.Errorf("%s: another process cannot go on: %v", name, err)
				}
				g.write(c)
				if _, err := g.text(c, "PRAGMA walferry_sync"); err != nil {
					t.Errorf("%s: another process cannot go on: %v", name, err)
				}
			}
		})
	}
}

// The goroutines that wait for the last batches at exit(3) are recovered by whoever waits
// for them, and that is the border to C (cext.guarded).
func TestAPanicAtExitReachesItsCaller(t *testing.T) {
	// A Shipper that nobody has made panics when it is closed.
	p := &process{databases: map[string]*database{"app.db": {opts: options{closeTimeout: time.Millisecond}, ship: new(shipper.Shipper)}}}
	if caught := group.Catch(p.Exit); caught == nil || !strings.Contains(string(caught.Stack), "Exit") {
		t.Errorf("caught %v", caught)
	}
	if !p.mu.TryLock() {
		t.Error("a lock is still held")
	}
}

// rerun runs the test once more in a process of its own and returns its stderr.
func rerun(t *testing.T, env string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), env)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	if lines := strings.TrimSpace(stdout.String()); lines != "PASS" && !strings.HasPrefix(lines, "PASS\ncoverage:") {
		t.Errorf("walferry wrote to stdout: %s", lines)
	}
	return stderr.String()
}

func panicIn(g guest, at string) {
	newStore = func(url string, o objstore.Options) (objstore.Store, error) {
		s, err := objstore.New(url, o)
		return panickyStore{s}, err
	}
	cext.SetHandler(panicky{here})
	first, second := g.open("first", ""), g.open("second", "")
	for _, c := range []*sql.Conn{first, second} {
		g.write(c)
		if _, err := g.text(c, "PRAGMA walferry_sync"); err != nil {
			g.Fatal(err)
		}
	}
	armed.Store(at)
	var third *sql.Conn
	switch at {
	case "Check", "Open":
		third = g.open("third", "")
	case "Status":
		if text, err := g.text(first, "PRAGMA walferry_status"); err != nil || !strings.Contains(text, panicValue) {
			g.Errorf("status %s, %v", text, err)
		}
	case "Mark", "store.PutMark":
		if _, err := g.text(first, "SELECT walferry_mark('m')"); err == nil || !strings.Contains(err.Error(), panicValue) {
			g.Errorf("mark: %v", err)
		}
	case "Last", "Close":
		c := g.open("third", "")
		g.write(c)
		if err := c.Raw(func(c any) error { return c.(interface{ Close() error }).Close() }); err != nil {
			g.Error(err)
		}
	case "store.Create":
		g.write(first)
		if _, err := g.text(first, "PRAGMA walferry_sync"); err == nil || !strings.Contains(err.Error(), panicValue) {
			g.Errorf("sync: %v", err)
		}
	case "store.List":
		third = g.open("third", "")
		g.write(third)
		if _, err := g.text(third, "SELECT walferry_wait(walferry_token(), 60000)"); err == nil || !strings.Contains(err.Error(), panicValue) {
			g.Errorf("wait: %v", err)
		}
	}
	if armed.Load() != "" {
		g.Fatal("nothing panicked")
	}
	if third == nil {
		third = g.open("third", "")
	}
	for _, c := range []*sql.Conn{first, second, third} {
		g.write(c)
		g.write(c)
		g.broken(c)
	}
	if n := g.rows(first); n != "3" && at != "store.Create" || n != "4" && at == "store.Create" {
		g.Errorf("%s rows", n)
	}
	for _, name := range []string{"first", "second"} {
		if s := g.freed(name); s.State != "broken" || !strings.Contains(s.Cause, panicValue) {
			g.Errorf("%s: its ledger says %q: %s", name, s.State, s.Cause)
		}
	}
	for _, params := range []string{"&require=1", "&restore=auto"} {
		db, err := sql.Open("sqlite3", fmt.Sprintf("file:%s?vfs=walferry&replica=file://%s/fourth%s", g.path("fourth"), g.dir, params))
		if err == nil {
			err = db.Ping()
		}
		if err == nil {
			g.Errorf("%s: opened", params)
		}
		_ = db.Close()
		_ = os.Remove(g.path("fourth"))
	}
}
