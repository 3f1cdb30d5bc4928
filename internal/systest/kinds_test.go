package systest

import "testing"

// TestKinds_EveryDatabaseComesBack has databases of all kinds grow, change, shrink and be
// vacuumed. Nothing of what they are matters to walferry, which ships pages.
func TestKinds_EveryDatabaseComesBack(t *testing.T) {
	kinds := map[string]string{
		"all kinds of tables": "PRAGMA page_size=512; PRAGMA encoding='UTF-16'; PRAGMA application_id=12345; PRAGMA user_version=77;" +
			"CREATE VIRTUAL TABLE f USING fts5(text); INSERT INTO f VALUES('one two');" +
			"CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r VALUES(1, 2, 3);" +
			"CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES(1, 2);" +
			"CREATE TABLE s(a INTEGER, b ANY AS (a+1) STORED) STRICT; INSERT INTO s VALUES(1)",
		"auto_vacuum":             "PRAGMA page_size=65536; PRAGMA auto_vacuum=FULL",
		"incremental vacuum":      "PRAGMA page_size=2048; PRAGMA encoding='UTF-16be'; PRAGMA auto_vacuum=INCREMENTAL",
		"mmap, not synchronous":   "PRAGMA page_size=8192; PRAGMA mmap_size=268435456; PRAGMA synchronous=OFF",
		"a small cache, FULL":     "PRAGMA page_size=16384; PRAGMA cache_size=2; PRAGMA cache_spill=1; PRAGMA synchronous=FULL",
		"a small WAL, EXTRA":      "PRAGMA page_size=32768; PRAGMA synchronous=EXTRA; PRAGMA checkpoint_fullfsync=1; PRAGMA wal_autocheckpoint=3; PRAGMA journal_size_limit=0",
		"no checkpoint, old file": "PRAGMA page_size=1024; PRAGMA legacy_file_format=1; PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=ON",
		"1 reserved byte":         "reserve 1",
		"255 reserved bytes":      "reserve 255",
	}
	for name, sql := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.python(kindsProgram, sql)
			p.comesBack()
		})
	}
}

const kindsProgram = `
sql = sys.argv[1]
if sql.startswith("reserve "):
    # What extensions do that keep something of their own on each page: byte 20 of the header,
    # and the content of pages that are there ends earlier.
    n = int(sql.split()[1])
    c = plain()
    c.executescript("PRAGMA page_size=1024; VACUUM; CREATE TABLE seed(v)")
    c.close()
    b = bytearray(open(DB, "rb").read())
    for page in range(len(b) // 1024):
        at = page * 1024 + (100 if page == 0 else 0)
        assert b[at] == 13, "a leaf"
        b[at + 5:at + 7] = (1024 - n).to_bytes(2, "big") if int.from_bytes(b[at + 3:at + 5], "big") == 0 else b[at + 5:at + 7]
        if page == 0: # the one cell of the schema moves up
            start = int.from_bytes(b[at + 5:at + 7], "big")
            cell = b[start:1024]
            b[start:1024] = bytes(1024 - start)
            b[start - n:1024 - n] = cell
            b[at + 5:at + 7] = (start - n).to_bytes(2, "big")
            b[at + 8:at + 10] = (start - n).to_bytes(2, "big")
    b[20] = n
    open(DB, "wb").write(b)
    sql = ""
c = connect()
c.executescript(sql)
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
c.execute("CREATE INDEX ta ON t(a)")
for i in range(60):
    c.execute("INSERT INTO t(a, b) VALUES(?, randomblob(?))", (f"tëxt {i}" * (i % 7), 37 * i % 3000))
    if i % 20 == 0:
        confirm(c)
c.execute("BEGIN")
c.execute("SAVEPOINT a")
c.execute("UPDATE t SET b = randomblob(5000)")
c.execute("ROLLBACK TO a")
c.execute("INSERT INTO t(a, b) SELECT a, b FROM t WHERE id % 3")
c.execute("SAVEPOINT b")
c.execute("DELETE FROM t WHERE id % 5 = 0")
c.execute("RELEASE b")
c.execute("COMMIT")
confirm(c)
c.execute("DELETE FROM t WHERE id % 4")
c.execute("PRAGMA incremental_vacuum")
confirm(c)
c.execute("VACUUM")
sync(c)
c.execute("INSERT INTO t(a, b) VALUES('last', randomblob(100000))")
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
sync(c)
assert one(c, "PRAGMA integrity_check") == "ok"
assert status(c)["state"] == "shipping", status(c)
c.close()
`

// TestKinds_APageSizeThatChanges needs another prefix. The status says so, nothing is put,
// and the database goes on.
func TestKinds_APageSizeThatChanges(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
c = connect()
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
c.execute("INSERT INTO t(v) VALUES(randomblob(20000))")
sync(c)
before = one(c, "SELECT walferry_txid()")

def resize(size):
    assert one(c, "PRAGMA journal_mode=DELETE") == "delete"
    c.execute(f"PRAGMA page_size={size}")
    c.execute("VACUUM")
    assert one(c, "PRAGMA page_size") == size
    assert one(c, "PRAGMA journal_mode=WAL") == "wal"

resize(8192)
c.execute("INSERT INTO t(v) VALUES('of another size')")
for ask in ("PRAGMA walferry_sync", "SELECT walferry_wait(walferry_token(), 30000)"):
    try:
        raise SystemExit(f"{ask}: {one(c, ask)}")
    except sqlite3.OperationalError as e:
        assert "page size changed from 4096 to 8192" in str(e) and "another prefix" in str(e), e
s = status(c)
assert s["state"] == "page_size_changed" and "another prefix" in s["cause"], s
assert one(c, "SELECT walferry_txid()") == before
c.execute("INSERT INTO t(v) VALUES('and goes on')")
c.close()

c = connect()
c.execute("INSERT INTO t(v) VALUES('in the next process')")
try:
    raise SystemExit(sync(c))
except sqlite3.OperationalError as e:
    assert "page size changed" in str(e), e
c.close()

second = REPLICA + "-8192"
c = connect(replica=second)
c.execute("INSERT INTO t(v) VALUES('at another prefix')")
sync(c)
assert status(c)["state"] == "shipping", status(c)
c.close()
say("second", second)
`)
	q := *p
	q.replica, q.objects = p.replica+"-8192", p.objects+"-8192"
	q.comesBack()
	if got := p.query(p.restored(), "PRAGMA page_size; SELECT count(*) FROM t"); got != "4096\n1" {
		t.Errorf("the first prefix has %q", got)
	}
}
