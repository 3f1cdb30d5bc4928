package systest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestReading_AForkedChildIsToldAndHasItsOwn uses in a child what its parent has opened, which is an error and
// no hang, in a child of a process that has only loaded the extension, which works, and goes on
// in the parent.
func TestReading_AForkedChildIsToldAndHasItsOwn(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	r := p.python(`
import signal
params = dict(vfs="walferry-replica", poll="0s", cache_size="1MB")
QUERY = "SELECT sum(length(b)) FROM t"

def child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as e:
            print("child:", type(e).__name__, e, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def refused(what, *texts):
    try:
        what()
    except sqlite3.Error as e:
        assert all(t in str(e) for t in texts), e
        return
    raise AssertionError("no error")

def query():
    c = connect("x", **params)
    assert one(c, QUERY) == 2700000
    c.close()

for _ in range(3):
    child(query) # loaded before, opened after

opened, reading, plain_one = connect("x", **params), connect("y", **params), plain("plain.db")
assert one(opened, QUERY) == 2700000
reading.execute("BEGIN")
assert one(reading, "SELECT count(*) FROM t WHERE id < 10") == 9

def inherited():
    refused(lambda: one(opened, QUERY), "disk I/O error")
    refused(lambda: one(reading, QUERY), "disk I/O error")
    refused(lambda: one(opened, "PRAGMA walferry_status"), "forked child")
    refused(lambda: one(opened, "PRAGMA walferry_at='latest'"), "forked child")
    refused(lambda: one(opened, "SELECT walferry_txid()"), "forked child")
    refused(lambda: one(opened, "SELECT walferry_wait('0000000000ab-1', 30000)"), "forked child")
    refused(query, "unable to open")
    opened.close()
    reading.close()
    assert one(plain_one, "SELECT 7") == 7

for _ in range(3):
    child(inherited)
assert one(reading, QUERY) == 2700000
reading.execute("COMMIT")
assert one(opened, QUERY) == 2700000
query()

say("done")
`)
	if r.stdout != "done\n" {
		t.Errorf("stdout %q", r.stdout)
	}
	for _, line := range r.errors() {
		if !strings.Contains(line, "only after the fork") {
			t.Errorf("stderr: %s", line)
		}
	}
}

// failing are opens that fail, with what stderr says of each.
var failing = map[string]string{
	"poll=soon":                   `option poll="soon": allowed is a duration`,
	"timeout=0":                   `option timeout="0": allowed is a duration from 100ms`,
	"cache_size=1":                `option cache_size="1": allowed is a size from 1MB`,
	"cache_size=lots":             `option cache_size="lots": allowed is a size from 1MB`,
	"cache_dir_size=1KB":          `option cache_dir_size="1KB": allowed is a size from 1MB`,
	"cache_dir=/proc/nowhere":     "cache_dir: ",
	"hydrate=/proc/nowhere/x":     "hydrate: ",
	"txid=0":                      `"0" is no TXID`,
	"txid=zz":                     `"zz" is no TXID`,
	"txid=ffff":                   "no such restore point",
	"at=soon":                     "soon",
	"at=1999-01-01":               "the history that is kept begins",
	"mark=none":                   `there is no mark "none"`,
	"at=now&txid=1":               "choose one",
	"replica=":                    "no replica given",
	"replica=ftp://x/y":           "ftp",
	"replica=file:///does/not/be": "no database",
	"replica=s3://bucket/x":       "no credentials found",
	"cache=shared":                "cache=shared would mix",
	"path_style=x":                "allowed is 0 or 1",
}

// TestReading_AnOpenThatFailsLeavesEverythingElseAsItIs fails to open in every way while the first file that
// this process ever opened, and others, are in use.
func TestReading_AnOpenThatFailsLeavesEverythingElseAsItIs(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	var program strings.Builder
	program.WriteString(`
params = dict(vfs="walferry-replica", poll="0s", cache_size="1MB")
QUERY = "SELECT sum(length(b)) FROM t"
first, second = connect("first", **params), connect("second", **params)
writer = connect()
reading = connect("reading", **params)
reading.execute("BEGIN")
one(reading, "SELECT count(*) FROM t WHERE id < 10")
rows = 3000

def fine():
    global rows
    writer.execute("INSERT INTO t(v, b) VALUES(1, zeroblob(900))")
    sync(writer)
    rows += 1
    for c in (first, second):
        assert one(c, QUERY) == rows * 900, (one(c, QUERY), rows)
        assert status(c)["state"] == "reading"
    assert one(reading, QUERY) == 3000 * 900

def fails(what):
    say("failing", what)
    print("failing", what, file=sys.stderr, flush=True)
    extra = dict(p.split("=", 1) for p in what.split("&"))
    for _ in range(3):
        try:
            connect("failing", **(params | extra)).execute("SELECT 1 FROM t")
        except sqlite3.OperationalError as e:
            assert "unable to open" in str(e), e
        else:
            raise AssertionError(what + ": opened")
    try:
        first.execute("ATTACH ? AS other", (uri("failing", **(params | extra)),))
    except sqlite3.OperationalError as e:
        assert "unable to open" in str(e), e
    else:
        raise AssertionError(what + ": attached")
    fine()

fine()
`)
	for what := range failing {
		fmt.Fprintf(&program, "fails(%q)\n", what)
	}
	program.WriteString(`
reading.execute("COMMIT")
first.close()
second.close()
assert one(reading, QUERY) == rows * 900
say("done")
`)
	r := p.python(program.String())
	if !strings.HasSuffix(r.stdout, "done\n") {
		t.Errorf("stdout %q", r.stdout)
	}
	_, rest, _ := strings.Cut(r.stderr, "failing ")
	for _, part := range strings.Split(rest, "failing ") {
		what, said, _ := strings.Cut(part, "\n")
		if what == "" {
			continue
		}
		if want := failing[what]; strings.Count(said, "walferry: cannot open replica ") != 4 || strings.Count(said, want) < 4 {
			t.Errorf("%s: stderr %q does not say %q four times", what, said, want)
		}
	}
}

// TestReading_ACacheThatIsSharedIsRefused has SQLite share what is opened under one name, whatever it is. Where
// the URI says so the open fails; where the program has told SQLite, nothing is read any more once a second
// connection has come to the first one's file.
func TestReading_ACacheThatIsSharedIsRefused(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	r := p.python(`
import ctypes
params = dict(vfs="walferry-replica", poll="0s")
try:
    connect("x", cache="shared", **params)
except sqlite3.OperationalError as e:
    assert "unable to open" in str(e), e
else:
    raise AssertionError("opened")
c = connect("x", cache="private", **params)
assert one(c, "SELECT count(*) FROM t") == 3000
c.close()

import _sqlite3
sqlite = ctypes.CDLL(None if hasattr(ctypes.CDLL(None), "sqlite3_enable_shared_cache") else "libsqlite3.so.0")
assert sqlite.sqlite3_enable_shared_cache(1) == 0
a = connect("x", txid="2", **params)
assert one(a, "SELECT count(*) FROM t") == 0
other = connect("y", txid="3", **params) # by another name
assert one(other, "SELECT count(*) FROM t") == 3000
b = connect("x", txid="3", **params)
for c in (a, b):
    try:
        rows = one(c, "SELECT count(*) FROM t")
    except sqlite3.OperationalError as e:
        assert "disk I/O error" in str(e), e
    else:
        raise AssertionError(f"read {rows} rows")
assert one(other, "SELECT count(*) FROM t") == 3000
a.close()
b.close()
a = connect("x", txid="2", **params)
assert one(a, "SELECT count(*) FROM t") == 0
`)
	if n := strings.Count(r.stderr, "cache=shared would mix what is opened under one name"); n != 2 {
		t.Errorf("stderr %q", r.stderr)
	}
}

// TestReading_BesideADefaultVFS opens replicas in a program whose other databases are all replicated.
func TestReading_BesideADefaultVFS(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with("WALFERRY_DEFAULT=1", "WALFERRY_INTERVAL=50ms")
	p = p.with("WALFERRY_REPLICA=" + p.replica + "/{name}")
	p.python(`
w = plain()
w.execute("CREATE TABLE t(v)")
w.execute("INSERT INTO t VALUES(1)")
confirm(w)
# The variable names the replica of a reader too, by the same name.
r = sqlite3.connect(f"file:{DB}?vfs=walferry-replica&poll=0s", uri=True, isolation_level=None)
assert one(r, "SELECT v FROM t") == 1
w.execute("UPDATE t SET v = 2")
assert one(r, "SELECT walferry_wait(?, 30000)", one(w, "SELECT walferry_token()")) == 1
assert one(r, "SELECT v FROM t") == 2
# In one connection, either as main.
w.execute(f"ATTACH 'file:{DB}?vfs=walferry-replica' AS r")
assert one(w, "SELECT count(*) FROM main.t JOIN r.t USING(v)") == 1
assert one(w, "SELECT walferry_txid('r')") == one(w, "SELECT walferry_txid('main')")
r.execute(f"ATTACH 'file:{DB}2?vfs=walferry' AS other")
r.execute("CREATE TABLE other.u AS SELECT * FROM main.t")
confirm(r, "other")
r.execute(f"VACUUM INTO 'file:{DB}.copy?vfs=unix'")
assert one(sqlite3.connect(DB + ".copy"), "SELECT v FROM t") == 2
r.execute("CREATE TEMP TABLE x AS SELECT * FROM main.t")
for c in (r, w):
    c.close()
`)
	q := *p
	q.objects, q.replica = filepath.Join(p.objects, "app.db"), "file://"+filepath.Join(p.objects, "app.db")
	q.comesBack()
	if exists(filepath.Join(p.dir, "app.db.copy-ledger")) && !exists(filepath.Join(p.objects, "app.db.copy")) {
		t.Error("the copy has a ledger and no replica")
	}
}

// TestReading_ManyThreadsAndConnections uses connections from many threads, each its own and some shared, which open
// and close meanwhile.
func TestReading_ManyThreadsAndConnections(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	p.python(`
import random
from concurrent.futures import ThreadPoolExecutor
params = dict(vfs="walferry-replica", cache_size="1MB")
shared = [connect("shared", **params) for _ in range(3)]
moments = ["1", "2", "3"]
counts = {m: None for m in moments}
for m in moments:
    c = connect("x", txid=m, **params)
    counts[m] = one(c, "SELECT count(*) FROM sqlite_schema"), (one(c, "SELECT sum(v) FROM t") if m != "1" else None)
    c.close()

def work(n):
    rnd = random.Random(n)
    for i in range(15):
        m = rnd.choice(moments)
        c = connect("x", txid=m, **params)
        assert one(c, "SELECT count(*) FROM sqlite_schema") == counts[m][0]
        if m != "1":
            assert one(c, "SELECT sum(v) FROM t") == counts[m][1]
        m = rnd.choice(moments)
        one(c, f"PRAGMA walferry_txid='{m}'")
        assert one(c, "SELECT count(*) FROM sqlite_schema") == counts[m][0]
        one(c, "PRAGMA walferry_at='latest'")
        assert one(c, "SELECT sum(length(b)) FROM t") == 2700000
        if rnd.randrange(2):
            c.close()
        assert one(rnd.choice(shared), "SELECT count(*) FROM t WHERE id % 3 = 0") == 1000
with ThreadPoolExecutor(12) as pool:
    list(pool.map(work, range(12)))
`)
}
