package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"
)

// TestAdopt_GoesOnWithALitestreamReplica takes over a replica of litestream's, goes on with it without
// uploading the database again, gives it back to litestream after merging and retention have
// run, and takes it once more.
func TestAdopt_GoesOnWithALitestreamReplica(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.client("vfs=plain")
	s.exec("PRAGMA journal_mode=WAL")
	s.exec("CREATE TABLE t(v, b)")
	s.exec("INSERT INTO t VALUES('theirs', randomblob(600000))")
	l := p.replicate()
	p.awaitRow("theirs")
	l.kill()
	s.do("close")

	if r := p.walferry("adopt", p.db, p.replica).ok(t); !strings.Contains(r.stdout, "they are the same") {
		t.Errorf("adopt says %q", r.stdout)
	}
	before := p.newest()
	s = p.client("interval=1h", "snapshot_interval=1s", "retention=2s", "l0_retention=1s")
	s.exec("INSERT INTO t VALUES('ours', 1)")
	s.exec("PRAGMA walferry_sync")
	if state := s.status("state"); state != "shipping" {
		t.Fatalf("the state is %s: %s", state, s.status("cause"))
	}
	name := filepath.Join(p.objects, "ltx", "0", ltx.FormatFilename(before+1, before+1))
	if fi, err := os.Stat(name); err != nil || fi.Size() > 50000 {
		t.Errorf("the first object of ours: %v, %v", fi, err)
	}
	for i := range 4 {
		s.exec(fmt.Sprintf("UPDATE t SET b = %d WHERE v = 'ours'", i))
		s.exec("PRAGMA walferry_sync")
	}
	s.end()
	mustEqual(t, "walferry restore", p.restored(), p.image())
	p.walferry("compact", "-snapshot", "-retention", "1s", "-l0-retention", "1s", p.replica).ok(t)
	p.comesBack()

	s = p.client("vfs=plain")
	s.exec("INSERT INTO t VALUES('theirs again', 2)")
	l = p.replicate()
	p.awaitRow("theirs again")
	s.exec("INSERT INTO t VALUES('and again', 3)")
	p.awaitRow("and again")
	l.kill()
	s.do("close")
	mustEqual(t, "walferry restore", p.restored(), p.byLitestream())

	// The ledger is of the history as it was before litestream went on: it must not claim what
	// has come since.
	s = p.client("interval=1h")
	s.exec("INSERT INTO t VALUES('too soon', 4)")
	s.fails("exec PRAGMA walferry_sync", "another writer has put")
	s.end()
	if r := p.walferry("adopt", p.db, p.replica); r.code == 0 || !strings.Contains(r.stderr, "remove "+p.db+"-ledger") {
		t.Errorf("adopt with a ledger of another history: code %d, %s", r.code, r.stderr)
	}
	if err := os.Remove(p.db + "-ledger"); err != nil {
		t.Fatal(err)
	}
	if r := p.walferry("adopt", p.db, p.replica); r.code == 0 || !strings.Contains(r.stderr, "-newer") {
		t.Errorf("adopt of a database that has gone on: code %d, %s", r.code, r.stderr)
	}
	if exists(p.db + "-ledger") {
		t.Error("a refused adoption left a ledger")
	}
	p.walferry("adopt", "-newer", p.db, p.replica).ok(t)
	s = p.client("interval=1h")
	s.exec("PRAGMA walferry_sync")
	s.end()
	if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "theirs,ours,theirs again,and again,too soon" {
		t.Errorf("restored %s", got)
	}
	p.comesBack()
}

func TestAdopt_RefusesAnotherDatabase(t *testing.T) {
	t.Parallel()
	p, q := newPlace(t), newPlace(t)
	for i, place := range []*place{p, q} {
		s := place.client("interval=1h")
		s.exec("CREATE TABLE t(v)")
		s.exec(fmt.Sprintf("INSERT INTO t SELECT randomblob(%d) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)", 20000+i))
		s.end()
	}
	if err := os.Remove(p.db + "-ledger"); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{}, {"-newer"}} {
		r := p.walferry(append(append([]string{"adopt"}, flags...), p.db, q.replica)...)
		if r.code != 1 || !strings.Contains(r.stderr, "do not look like the same database") {
			t.Errorf("adopt %q: code %d, %s", flags, r.code, r.stderr)
		}
	}
	for args, text := range map[string]string{
		p.db + "x " + p.replica:           "no such file",
		p.db + " file:///nowhere/replica": "no database",
		p.db:                              "URL of its replica",
		p.db + " gs://bucket/app":         "allowed are file:///dir",
	} {
		if r := p.walferry(append([]string{"adopt"}, strings.Fields(args)...)...); r.code == 0 || !strings.Contains(r.stderr, text) {
			t.Errorf("adopt %s: code %d, %s", args, r.code, r.stderr)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, ".*adopt*")); len(left) > 0 || exists(p.db+"-ledger") {
		t.Errorf("left behind: %q", left)
	}
	s := q.client("interval=1h")
	if r := q.walferry("adopt", q.db, q.replica); r.code == 0 || !strings.Contains(r.stderr, "stop it first") {
		t.Errorf("adopt of a database in use: code %d, %s", r.code, r.stderr)
	}
	s.end()
	p.walferry("adopt", p.db, p.replica).ok(t)
	s = p.client("interval=1h")
	s.exec("INSERT INTO t VALUES(1)")
	s.exec("PRAGMA walferry_sync")
	s.end()
	p.comesBack()
}
