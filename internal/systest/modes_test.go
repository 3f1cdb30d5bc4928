package systest

import (
	"fmt"
	"testing"
)

func TestModes_ExclusiveLockingIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
for sql in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA main.locking_mode(exclusive)"):
    c = connect()
    try:
        c.execute(sql)
        raise SystemExit("it was taken")
    except sqlite3.OperationalError as e:
        assert "locking_mode=EXCLUSIVE" in str(e) and "NORMAL" in str(e), e
    c.execute("PRAGMA locking_mode=NORMAL")
    assert one(c, "PRAGMA locking_mode") == "normal"
    c.execute("CREATE TABLE IF NOT EXISTS t(v)")
    c.execute("INSERT INTO t VALUES(1)")
    c.close()
`)
	p.comesBack()
}

func TestModes_AJournalModeOfTheApplicationIsRespected(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"delete", "truncate", "persist"} {
		p := newPlace(t)
		p.python(`
mode = sys.argv[1]
c = connect()
c.execute("CREATE TABLE t(v)")
sync(c)
assert one(c, "SELECT count(*) FROM t") == 0
assert one(c, "PRAGMA journal_mode") == "wal"
assert one(c, f"PRAGMA journal_mode={mode}") == mode
for i in range(5):
    c.execute("INSERT INTO t VALUES(?)", (i,))
    assert one(c, "PRAGMA journal_mode") == mode, i
try:
    sync(c)
    raise SystemExit("shipped from a rollback journal")
except sqlite3.OperationalError as e:
    assert "journal_mode=WAL" in str(e), e
s = status(c)
assert s["state"] == "not_wal" and "WAL" in s["cause"], s
c.close()
c = connect()
assert one(c, "SELECT count(*) FROM t") == 5
assert one(c, "PRAGMA journal_mode") == "wal", "not switched back after the last close"
confirm(c)
assert status(c)["state"] == "shipping", status(c)
c.close()
`, mode)
		p.comesBack()
	}
}

func TestModes_WalKeepLeavesTheDatabaseAlone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
c = connect(wal="keep")
c.execute("CREATE TABLE t(v)")
c.execute("INSERT INTO t VALUES(1)")
assert one(c, "PRAGMA journal_mode") == "delete"
try:
    sync(c)
    raise SystemExit("shipped from a rollback journal")
except sqlite3.OperationalError as e:
    assert "WAL" in str(e), e
assert status(c)["state"] == "not_wal", status(c)
assert one(c, "PRAGMA journal_mode=WAL") == "wal"
c.execute("INSERT INTO t VALUES(2)")
sync(c)
assert status(c)["state"] == "shipping", status(c)
c.close()
`)
	p.comesBack()
}

func TestModes_OptionsComeFromTheEnvironmentAndTheURIWins(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.with("WALFERRY_REPLICA="+p.replica, "WALFERRY_INTERVAL=77ms", "WALFERRY_WAL=keep").python(`
c = connect(replica=None, interval=None)
s = status(c)
assert s["interval_ms"] == 77, s
c.execute("CREATE TABLE t(v)")
assert one(c, "PRAGMA journal_mode") == "delete"
c.close()
c = connect(replica=None, interval="88ms", wal="auto")
s = status(c)
assert s["interval_ms"] == 88, s
assert one(c, "SELECT count(*) FROM t") == 0
assert one(c, "PRAGMA journal_mode") == "wal"
c.execute("INSERT INTO t VALUES(1)")
sync(c)
assert status(c)["replica"] == REPLICA
c.close()
`)
	p.comesBack()
}

// TestModes_SQLiteAnswersAsWithoutUs does the same at random with a database of walferry's
// and a plain one: all journal modes inside and outside of transactions, savepoints,
// checkpoints, VACUUM, other settings. With wal=keep all answers are the same; with
// wal=auto the database is well and ships in the end.
func TestModes_SQLiteAnswersAsWithoutUs(t *testing.T) {
	seeds := []int{3, 16, 21} // which found something once
	for seed := range rounds(t, 3) {
		seeds = append(seeds, 1000+seed)
	}
	for _, seed := range seeds {
		for _, mode := range []string{"keep", "auto"} {
			t.Run(fmt.Sprint(mode, seed), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t)
				p.differ(seed, mode, "")
			})
		}
	}
}

func (p *place) differ(seed int, mode, extra string) {
	p.t.Helper()
	d := p.start("differ.py", fmt.Sprint(seed), mode, extra)
	d.expect("done")
	d.finish()
	p.comesBack()
}

// TestModes_AsWithoutUsWithASharedCache does so where the connections of a process share one
// file and cache, by their URIs or by a switch that our own connection must not follow; and
// where SQLite does not count on what a torn write spares, and so fills the WAL's sectors up.
func TestModes_AsWithoutUsWithASharedCache(t *testing.T) {
	for _, extra := range []string{"cache=shared", "shared", "psow=0", "cache=shared&psow=0"} {
		for seed := range rounds(t, 2) {
			for _, mode := range []string{"keep", "auto"} {
				t.Run(fmt.Sprint(extra, mode, seed), func(t *testing.T) {
					t.Parallel()
					newPlace(t).differ(2000+seed, mode, extra)
				})
			}
		}
	}
}

// TestModes_ASharedCacheUnderThreads has threads write through connections that share one file,
// while batches are read from it.
func TestModes_ASharedCacheUnderThreads(t *testing.T) {
	t.Parallel()
	for _, vfs := range []string{"walferry", "unix"} { // the second is what is expected
		p := newPlace(t)
		p.python(`
import threading
def shared():
    return connect(vfs=sys.argv[1], cache="shared", interval="10ms")
first = shared()
first.execute("PRAGMA journal_mode=WAL")
first.execute("CREATE TABLE t(thread, n, v)")
done, wrong = [], []
def write(thread):
    try:
        c = shared()
        for n in range(150):
            while True:
                try:
                    c.execute("INSERT INTO t VALUES(?, ?, randomblob(2000))", (thread, n))
                    break
                except sqlite3.OperationalError as e:
                    if "locked" not in str(e):
                        raise
        c.close()
        done.append(thread)
    except Exception as e:
        wrong.append(repr(e))
threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert not wrong and len(done) == 4, wrong
assert first.execute("SELECT thread, count(*), min(n), max(n) FROM t GROUP BY thread").fetchall() == [(i, 150, 0, 149) for i in range(4)]
assert one(first, "PRAGMA integrity_check") == "ok"
if sys.argv[1] == "walferry":
    confirm(first)
    assert status(first)["state"] == "shipping", status(first)
first.close()
`, vfs)
		if vfs == "walferry" {
			p.comesBack()
		}
	}
}
