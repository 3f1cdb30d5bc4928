package systest

import (
	"path/filepath"
	"testing"
)

func TestPython_ADatabaseShipsAndComesBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
c = connect()
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
for i in range(100):
    c.execute("INSERT INTO t(v) VALUES(?)", (i,))
confirm(c)
assert sync(c) == one(c, "SELECT walferry_txid()")
s = status(c)
assert s["state"] == "shipping" and s["durable"] >= 1 and s["batches"] >= 1 and s["bytes"] > 0 and s["requests"] > 0, s
assert s["shipper_pid"] == os.getpid() and s["heartbeat_ms"] > 0 and s["conditional_writes"] == "yes", s
c.execute("DELETE FROM t WHERE id % 2")
c.close()
`)
	p.comesBack()
}

func TestPython_ThreadsWriteEachWithItsConnection(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
from concurrent.futures import ThreadPoolExecutor
connect().execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v, b)")
def work(n):
    c = connect()
    for i in range(100):
        c.execute("INSERT INTO t(v, b) VALUES(?, randomblob(500))", (n * 1000 + i,))
        if i % 25 == 0:
            confirm(c)
    c.close()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(work, range(8)))
`)
	p.comesBack()
	if n := p.query(p.restored(), "SELECT count(*) FROM t"); n != "800" {
		t.Errorf("%s rows of 800 came back", n)
	}
}

func TestPython_AnAttachedDatabaseHasItsOwnReplica(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	second := *p
	second.db, second.objects = filepath.Join(p.dir, "second.db"), filepath.Join(p.dir, "replica2")
	second.replica = "file://" + second.objects
	p.python(`
second, replica = sys.argv[1:]
c = connect()
c.execute("CREATE TABLE t(v)")
c.execute("ATTACH ? AS other", (uri(second, replica=replica),))
c.execute("CREATE TABLE other.u(v)")
c.execute("BEGIN")
c.execute("INSERT INTO t VALUES(1)")
c.execute("INSERT INTO other.u VALUES(2)")
c.execute("COMMIT")
confirm(c)
confirm(c, "other")
a, b = status(c), status(c, "other")
assert a["replica"] == REPLICA and b["replica"] == replica, (a, b)
assert a["database_id"] != b["database_id"]
# A token is of one database, whichever the call names.
c.execute("INSERT INTO other.u VALUES(0)")
assert one(c, "SELECT walferry_wait(walferry_token('other'), 0)") == 0
confirm(c, "other")
c.execute("DELETE FROM other.u WHERE v = 0")
assert sync(c, "other") == one(c, "SELECT walferry_txid('other')")
c.execute("INSERT INTO other.u VALUES(3)")
c.execute("DETACH other")
c.close()
`, second.db, second.replica)
	p.comesBack()
	second.comesBack()
	if v := second.query(second.restored(), "SELECT group_concat(v) FROM u"); v != "2,3" {
		t.Errorf("rows of the attached database: %s", v)
	}
}

// Without walferry nobody else would be at these databases: no statement may
// find one locked, least of all by a connection of ours that opens or closes.
func TestInvariant9_ADatabaseOfOneConnectionIsNeverLocked(t *testing.T) {
	t.Parallel()
	newPlace(t).python(`
import shutil, tempfile, time
for i in range(40):
    d = tempfile.mkdtemp(dir="/dev/shm")
    c = connect(f"{d}/a.db", replica=f"file://{d}/r", interval="10ms", close_timeout=0)
    c.execute("PRAGMA busy_timeout=0")
    for n, sql in enumerate(["CREATE TABLE t(v)"] + ["INSERT INTO t VALUES(1)", "SELECT * FROM t", "DELETE FROM t"] * 2):
        try:
            c.execute(sql).fetchall()
        except sqlite3.OperationalError as e:
            raise AssertionError(f"database {i}, statement {n}: {sql}: {e}")
        if i % 3:
            time.sleep(i / 5000)
    c.close()
    shutil.rmtree(d)
`)
}

func TestPython_ManyDatabasesInOneProcess(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
dbs = [connect(f"{DB}{i}", replica=f"{REPLICA}/{i}") for i in range(12)]
for n in range(5):
    for i, c in enumerate(dbs):
        c.execute("CREATE TABLE IF NOT EXISTS t(v)")
        c.execute("INSERT INTO t VALUES(?)", (f"{i}-{n}",))
for c in dbs:
    confirm(c)
for c in dbs:
    c.close()
`)
	for _, n := range []string{"0", "7", "11"} {
		q := *p
		q.db, q.objects, q.replica = p.db+n, filepath.Join(p.objects, n), p.replica+"/"+n
		q.comesBack()
	}
}

func TestPython_AnExitWithoutCloseShips(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{"exit": "sys.exit()", "end of program": "pass", "exception": "try:\n    raise KeyError\nexcept KeyError:\n    sys.exit(0)"} {
		p := newPlace(t)
		p.python(`
c = connect(interval="1h")
c.execute("CREATE TABLE t(v)")
c.execute("INSERT INTO t VALUES('last')")
` + end)
		if got := p.query(p.restored(), "SELECT v FROM t"); got != "last" {
			t.Errorf("%s: restored %q", name, got)
		}
		p.comesBack()
	}
}

// TestPython_WhatCannotBeReplicatedPassesThrough opens databases that SQLite may
// use and walferry may not ship: they work, and the status says why nothing does.
func TestPython_WhatCannotBeReplicatedPassesThrough(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
c = plain()
c.executescript("PRAGMA journal_mode=DELETE; CREATE TABLE t(v); INSERT INTO t VALUES(7)")
c.close()
for params, cause in {"mode=ro": "read-only", "immutable=1": "immutable=1", "nolock=1": "nolock=1"}.items():
    c = sqlite3.connect(uri() + "&" + params, uri=True)
    assert one(c, "SELECT v FROM t") == 7, params
    s = status(c)
    assert s["state"] == "off" and cause in s["cause"], (params, s)
    try:
        one(c, "SELECT walferry_token()")
        raise SystemExit(f"{params}: a token of nothing")
    except sqlite3.OperationalError as e:
        assert cause in str(e), (params, e)
    c.close()
for name in (":memory:", "file::memory:?vfs=walferry", "file:m?mode=memory&vfs=walferry", "", "file:?vfs=walferry"):
    c = sqlite3.connect(name, uri=True)
    c.execute("CREATE TABLE t(v)")
    try:
        one(c, "SELECT walferry_token()")
        raise SystemExit(f"{name}: a token of nothing")
    except sqlite3.OperationalError as e:
        assert "walferry" in str(e), (name, e)
    rows = c.execute("PRAGMA walferry_status").fetchall()
    assert rows == [] or json.loads(rows[0][0])["state"] == "off", (name, rows)
    c.close()
`)
	if exists(p.objects) || exists(p.db+"-ledger") {
		t.Error("something of the replication was made beside the database")
	}
}

// TestPython_ADatabaseIsRemovedAndMadeAnew does what test suites do all day: in
// one process, the files go away between two opens of one path.
func TestPython_ADatabaseIsRemovedAndMadeAnew(t *testing.T) {
	t.Parallel()
	for _, suffixes := range []string{" -ledger", " ", "-ledger"} {
		p := newPlace(t)
		p.python(`
for round in range(3):
    c = connect(replica=f"{REPLICA}/{round}")
    c.execute("CREATE TABLE IF NOT EXISTS t(v)")
    c.execute("INSERT INTO t VALUES(?)", (round,))
    confirm(c)
    c.execute("INSERT INTO t VALUES('last')")
    c.close()
    for suffix in sys.argv[1].split(" "):
        if round < 2 and os.path.exists(DB + suffix):
            os.remove(DB + suffix)
`, suffixes)
		p.objects, p.replica = p.objects+"/2", p.replica+"/2"
		p.comesBack()
	}
}
