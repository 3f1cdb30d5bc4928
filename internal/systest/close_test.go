package systest

import (
	"fmt"
	"sync"
	"testing"
)

// TestInvariant10_ALastCloseLeavesNothing closes right behind a commit, fifty times,
// with a window that is far from over.
func TestInvariant10_ALastCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
for i in range(50):
    a, b = connect(interval="1h"), connect(interval="1h")
    a.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
    for _ in range(i % 4 + 1):
        b.execute("INSERT INTO t(v) VALUES(?)", (i,))
        a.execute("INSERT INTO t(v) VALUES(randomblob(9000))")
    (a, b)[i % 2].close()
    (b, a)[i % 2].close()
    left = [s for s in ("-wal", "-shm", "-journal") if os.path.exists(DB + s)]
    assert not left, (i, left)
    c = sqlite3.connect(f"file:{DB}?mode=ro", uri=True)
    print("rows", one(c, "SELECT count(*) FROM t"))
    c.close()
`)
	if s := p.status(); s["lag_ms"] != 0.0 || s["pending_pages"] != 0.0 || s["all_pending"] != false || s["shipper_pid"] != 0.0 {
		t.Errorf("status after the last close: %v", s)
	}
	p.comesBack()
}

// TestClose_EachCloseHasShipped restores after each of some closes.
func TestClose_EachCloseHasShipped(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for range 8 {
		p.shell(".open "+p.uri("&interval=1h"), "CREATE TABLE IF NOT EXISTS t(v);", "INSERT INTO t VALUES(randomblob(20000));", "DELETE FROM t WHERE rowid % 3 = 0;").ok(t)
		mustEqual(t, "restore", p.restored(), p.db)
	}
	p.comesBack()
}

// TestClose_ATimeoutOfZeroWaitsForNothing leaves the batch to the next open.
func TestClose_ATimeoutOfZeroWaitsForNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.shell(".open "+p.uri("&interval=1h&close_timeout=0"), "CREATE TABLE t(v);",
		"PRAGMA walferry_sync;", "INSERT INTO t VALUES(1);").ok(t) // the first batch does not wait for its interval
	if n := p.newest(); n != 2 {
		t.Errorf("TXID %s was shipped by a close that was not to wait", n)
	}
	p.shell(".open "+p.uri("&interval=1h"), "SELECT * FROM t;").ok(t)
	p.comesBack()
}

// TestClose_ProcessesThatEndTogetherLeaveNothingBehind has several shells begin and end
// a database at the same time, whoever of them ships.
func TestClose_ProcessesThatEndTogetherLeaveNothingBehind(t *testing.T) {
	for round := range 6 {
		p := newPlace(t)
		var shells sync.WaitGroup
		for n := range 4 {
			shells.Go(func() {
				r := p.shell(".timeout 20000", ".open "+p.uri(""), ".timeout 20000", "CREATE TABLE IF NOT EXISTS t(v);", fmt.Sprintf("INSERT INTO t VALUES(%d);", n))
				if r.code != 0 {
					t.Errorf("round %d: %s", round, r.stderr)
				}
			})
		}
		shells.Wait()
		if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "4" {
			t.Errorf("round %d: %s of 4 rows are in the replica; status %v", round, got, p.status())
		}
	}
}

// TestClose_AWALThatIsLeftOnPurposeStays closes as a program does that wants to find its
// WAL again; the batch that is read after it must not be the last close in its place.
func TestClose_AWALThatIsLeftOnPurposeStays(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for range rounds(t, 5) {
		p.shell(".open "+p.uri("&interval=1h"), ".dbconfig no_ckpt_on_close on", "CREATE TABLE IF NOT EXISTS t(v);", "INSERT INTO t VALUES(1);").ok(t)
		if !exists(p.db + "-wal") {
			t.Fatal("a connection of ours has checkpointed and deleted the WAL")
		}
		p.comesBack()
	}
	p.shell(".open "+p.uri(""), "SELECT count(*) FROM t;").ok(t)
	if exists(p.db + "-wal") {
		t.Error("an ordinary close has left the WAL")
	}
}
