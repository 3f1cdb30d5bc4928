package systest

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/superfly/ltx"
)

// undone is what the status says after a recovery that dropped commits which the
// replica has, and the newest TXID from before it.
type undone struct {
	p     *place
	ahead ltx.TXID
	said  string // by the next open, on stderr
}

// reopened opens the database after a crash, commits once more and looks at what is
// said about the commits that recovery dropped.
func reopened(p *place) undone {
	p.t.Helper()
	ahead := p.newest()
	r := p.shell(".open "+p.uri(""), "CREATE TABLE IF NOT EXISTS later(v);", "INSERT INTO later VALUES(1);", "PRAGMA walferry_sync;").ok(p.t)
	p.comesBack() // the store is taken back to what the database is
	return undone{p, ahead, strings.Join(r.errors(), "\n")}
}

// names checks that log and status name the newest object from before the crash, and
// that it can still be restored, as the database was when it was shipped.
func (u undone) names(query, want string) {
	t := u.p.t
	t.Helper()
	var status struct{ Undone string }
	if err := json.Unmarshal([]byte(u.p.walferry("status", "-json", u.p.db).ok(t).stdout), &status); err != nil {
		t.Fatal(err)
	}
	for from, text := range map[string]string{"status": status.Undone, "log": u.said} {
		if !strings.Contains(text, u.ahead.String()) {
			t.Errorf("the %s does not name TXID %s: %q", from, u.ahead, text)
		}
	}
	out := tempDir(t) + "/undone.db"
	u.p.walferry("restore", "-o", out, "-txid", u.ahead.String(), u.p.replica).ok(t)
	if got := u.p.query(out, query); got != want {
		t.Errorf("what was undone is %q in the replica, want %q", got, want)
	}
}

// TestUndone_APowerCutThatTookTheEndOfTheWAL (S6): the store has a commit whose frames
// did not reach the disk.
func TestUndone_APowerCutThatTookTheEndOfTheWAL(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := p.client()
	c.exec("CREATE TABLE t(v)")
	c.exec("INSERT INTO t VALUES('kept')")
	c.exec("PRAGMA walferry_sync")
	kept, err := os.Stat(p.db + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	c.exec("INSERT INTO t VALUES('lost')")
	c.exec("PRAGMA walferry_sync")
	c.kill()
	if err := os.Truncate(p.db+"-wal", kept.Size()); err != nil {
		t.Fatal(err)
	}
	u := reopened(p)
	if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "kept" {
		t.Errorf("the replica holds %q after the next object", got)
	}
	u.names("SELECT group_concat(v) FROM t", "kept,lost")
}

// TestUndone_SQLiteDropsACommitAfterARolledBackSpill is SQLite's own loss (up to
// 3.47): pages spilled in a savepoint that is rolled back leave frames without a
// checksum behind, which are valid until a recovery stops at them. The replica has the
// commit, and those that came later.
func TestUndone_SQLiteDropsACommitAfterARolledBackSpill(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := p.client()
	for _, sql := range []string{
		"PRAGMA wal_autocheckpoint=0",
		"PRAGMA cache_size=5",
		"CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
		"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<59) INSERT INTO t SELECT i, randomblob(3000) FROM n",
		"PRAGMA walferry_sync",
		"BEGIN",
		"SAVEPOINT s",
		"UPDATE t SET v=randomblob(3000)",
		"UPDATE t SET v=randomblob(3000) WHERE id>=50",
		"ROLLBACK TO s",
		"INSERT INTO t VALUES(1000, 'committed')",
		"COMMIT",
		"INSERT INTO t VALUES(1001, 'and later')",
		"PRAGMA walferry_sync",
	} {
		c.exec(sql)
	}
	c.kill()
	lost := p.query(p.image(), "SELECT count(*) FROM t") == "60"
	if version := p.query(":memory:", "SELECT sqlite_version()"); !lost {
		if version == "3.40.1" {
			t.Fatalf("SQLite %s lost nothing: this test tests nothing", version)
		}
		t.Logf("SQLite %s has lost nothing", version)
		reopened(p)
		return
	}
	reopened(p).names("SELECT count(*) FROM t WHERE id >= 1000", "2")
}
