package systest

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// lost is a replica whose database is gone.
type lost struct {
	*place
	downloads atomic.Int64  // of the snapshot, from its first byte
	begun     chan struct{} // a download has begun
	gate      chan struct{} // downloads wait until it is closed
}

// newLost ships 1000 rows to a bucket and removes the database. What asks the server
// goes through a proxy that counts and stops downloads of the snapshot.
func newLost(t *testing.T) *lost {
	t.Helper()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	l := &lost{place: newPlace(t).onS3(server, "bucket", "app"), begun: make(chan struct{}, 100), gate: make(chan struct{})}
	l.shell(".open "+l.uri(""), "CREATE TABLE t(id INTEGER PRIMARY KEY, v);",
		"WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, randomblob(500) FROM n;", "PRAGMA walferry_sync;").ok(t)
	for _, suffix := range []string{"", "-ledger"} {
		if err := os.Remove(l.db + suffix); err != nil {
			t.Fatal(err)
		}
	}
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorLog = log.New(io.Discard, "", 0) // of clients that were killed
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/0009/0000") && strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") && r.Header.Get("Range") != "bytes=0-0" {
			l.downloads.Add(1)
			l.begun <- struct{}{}
			select {
			case <-l.gate:
			case <-r.Context().Done():
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	l.place = l.with("AWS_ENDPOINT_URL_S3="+proxy.URL, "WALFERRY_RESTORE=auto")
	return l
}

// opener is a shell that opens the database and counts rows.
func (l *lost) opener() *proc {
	l.t.Helper()
	p := start(l.t, l.dir, l.env, sqlite3Shell(l.t), "-batch")
	p.send(".load " + strings.TrimSuffix(extension(l.t), ".so"))
	p.send(".open " + l.uri(""))
	p.send("SELECT 'rows', count(*) FROM t;")
	return p
}

// hidden are the files of a restore under way.
func (l *lost) hidden() []string {
	l.t.Helper()
	all, err := filepath.Glob(filepath.Join(l.dir, ".app.db.walferry-*"))
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

func (l *lost) opened(p *proc) {
	l.t.Helper()
	if got := p.expect("rows|"); got != "1000" {
		l.t.Errorf("%s rows", got)
	}
	p.finish()
	if lines := walferryLines(p.err.String()); len(lines) > 0 {
		l.t.Errorf("stderr: %q", lines)
	}
}

func TestRestore_OnceHoweverManyOpen(t *testing.T) {
	t.Parallel()
	l := newLost(t)
	var all []*proc
	for range 10 {
		all = append(all, l.opener())
	}
	<-l.begun
	if exists(l.db) {
		t.Error("the database is there before it is whole")
	}
	close(l.gate)
	for _, p := range all {
		l.opened(p)
	}
	if n := l.downloads.Load(); n != 1 {
		t.Errorf("%d restores", n)
	}
	if left := l.hidden(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if s := l.status(); s["state"] == "unclaimed" {
		t.Errorf("status: %v", s)
	}
	l.shell(".open "+l.uri(""), "INSERT INTO t(v) VALUES('goes on');", "PRAGMA walferry_sync;").ok(t)
	if got := l.query(l.restored(), "SELECT count(*) FROM t"); got != "1001" {
		t.Errorf("%s rows in the replica", got)
	}
}

func TestRestore_AKilledOneIsTakenUp(t *testing.T) {
	t.Parallel()
	l := newLost(t)
	first := l.opener()
	<-l.begun
	waiting := l.opener()
	first.kill()
	<-l.begun // by the one that waited
	if exists(l.db) {
		t.Error("the database is there before it is whole")
	}
	waiting.kill()
	if left := l.hidden(); len(left) < 2 {
		t.Errorf("two restores were killed and have left %v", left)
	}
	close(l.gate)
	l.opened(l.opener())
	if left := l.hidden(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRestore_WhatIsLeftOfALostDatabaseGoes(t *testing.T) {
	t.Parallel()
	for what, leave := range map[string]func(p *place){
		"an empty file":   func(p *place) { write(p.t, p.db, "") },
		"the ledger":      func(p *place) {},
		"a WAL":           func(p *place) { write(p.t, p.db+"-wal", "of another database"); write(p.t, p.db+"-shm", "x") },
		"a journal":       func(p *place) { write(p.t, p.db+"-journal", "x") },
		"a broken ledger": func(p *place) { write(p.t, p.db+"-ledger", "x") },
	} {
		p := newPlace(t)
		p.shell(".open "+p.uri(""), "CREATE TABLE t(v);", "INSERT INTO t VALUES('kept');").ok(t)
		if err := os.Remove(p.db); err != nil {
			t.Fatal(err)
		}
		leave(p)
		for range 2 {
			r := p.shell(".open "+p.uri("&restore=auto"), "SELECT v FROM t;", "PRAGMA walferry_sync;").ok(t)
			if !strings.HasPrefix(r.stdout, "kept\n0") || len(r.errors()) > 0 {
				t.Errorf("%s: %q, %q", what, r.stdout, r.stderr)
			}
		}
	}
}

func TestRestore_AnEmptyReplicaBeginsANewDatabase(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	var all []*proc
	for i := range 4 {
		c := start(t, p.dir, p.env, sqlite3Shell(t), "-batch")
		for _, line := range []string{".load " + strings.TrimSuffix(extension(t), ".so"), ".open " + p.uri("&restore=auto"), ".timeout 20000",
			"CREATE TABLE IF NOT EXISTS t(v);", fmt.Sprintf("INSERT INTO t VALUES(%d);", i)} {
			c.send(line)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.finish()
	}
	if got := p.query(p.db, "SELECT count(*) FROM t"); got != "4" {
		t.Errorf("%s rows", got)
	}
	p.shell(".open "+p.uri("&restore=auto"), "PRAGMA walferry_sync;").ok(t) // closes that meet may leave their last commits to the next opening
	p.comesBack()
}

func TestRestore_NoDatabaseRatherThanAnEmptyOne(t *testing.T) {
	t.Parallel()
	l := newLost(t)
	close(l.gate)
	damaged := newPlace(t)
	damaged.shell(".open "+damaged.uri(""), "CREATE TABLE t(v);", "PRAGMA walferry_sync;", "INSERT INTO t VALUES(1);", "PRAGMA walferry_sync;").ok(t)
	for _, suffix := range []string{"", "-ledger"} {
		if err := os.Remove(damaged.db + suffix); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(damaged.objects, "ltx", "9")); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		p    *place
		says string
	}{
		"the store is away":     {l.with("AWS_ENDPOINT_URL_S3=http://127.0.0.1:1"), "refused"},
		"the secret is wrong":   {l.with("AWS_SECRET_ACCESS_KEY=wrong"), "AWS_SECRET_ACCESS_KEY"},
		"the replica has a gap": {damaged, "gap"},
	} {
		r := c.p.shell(".open "+c.p.uri("&restore=auto"), "CREATE TABLE t(v);")
		lines := r.errors()
		if r.code == 0 && !strings.Contains(r.stderr, "unable to open database") || len(lines) == 0 {
			t.Fatalf("%s: exit status %d, %q", what, r.code, r.stderr)
		}
		if !strings.Contains(lines[0], "restore=auto: the database is gone") || !strings.Contains(lines[0], c.says) || !strings.Contains(lines[0], "restore=off") {
			t.Errorf("%s: %q", what, lines[0])
		}
		if exists(c.p.db) || exists(c.p.db+"-ledger") {
			t.Errorf("%s: a file was made", what)
		}
	}
}

// The child of a process in which Go runs cannot restore, and must not begin an empty
// database.
func TestRestore_AForkedChildBeginsNoDatabase(t *testing.T) {
	t.Parallel()
	for _, suffixes := range [][]string{{""}, {"", "-ledger"}} {
		p := newPlace(t)
		p.shell(".open "+p.uri(""), "CREATE TABLE t(v);", "INSERT INTO t VALUES('kept');").ok(t)
		for _, suffix := range suffixes {
			if err := os.Remove(p.db + suffix); err != nil {
				t.Fatal(err)
			}
		}
		r := p.python(`
other = connect("other.db", replica="file://" + os.path.abspath("other"))
child = os.fork()
if child == 0:
    try:
        connect(restore="auto").execute("CREATE TABLE u(v)")
    except sqlite3.OperationalError as e:
        say(e)
    os._exit(0)
os.waitpid(child, 0)
say(one(connect(restore="auto", takeover="1", require="1"), "SELECT v FROM t"))
`)
		if r.stdout != "unable to open database file\nkept\n" {
			t.Errorf("%q: stdout %q", suffixes, r.stdout)
		}
		if lines := r.errors(); len(lines) != 1 || !strings.Contains(lines[0], "a forked child cannot restore it") {
			t.Errorf("%q: stderr %q", suffixes, lines)
		}
	}
}

// A database that has just begun in the parent is empty too, and is not gone.
func TestRestore_AForkedChildBeginsWhatTheParentOpened(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
c = connect(restore="auto")
one(c, "SELECT count(*) FROM sqlite_schema")
child = os.fork()
if child == 0:
    connect(restore="auto").execute("CREATE TABLE t(v)")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
sync(c)
`)
	p.comesBack()
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
