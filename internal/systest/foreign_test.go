package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestForeign_FourWritersWithAndWithoutWalferry write and checkpoint at once; then one that
// has walferry opens the database.
func TestForeign_FourWritersWithAndWithoutWalferry(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.shell(".open "+p.uri(""), "CREATE TABLE t(w, n, b);").ok(t)
	var writers []*proc
	for i, how := range []string{"walferry", "plain", "walferry", "plain"} {
		writers = append(writers, p.start("many.py", fmt.Sprint("w", i), "100", how))
	}
	for _, w := range writers {
		w.expect("done")
		w.finish()
	}
	s := p.client()
	s.get("SELECT count(*) FROM t")
	s.shipNow()
	mustEqual(t, "restore", p.restored(), p.image())
	if got := p.query(p.restored(), "SELECT group_concat(n) FROM (SELECT count(*) AS n FROM t GROUP BY w)"); got != "100,100,100,100" {
		t.Errorf("rows of the four: %s", got)
	}
	s.end()
	p.comesBack()
}

// TestForeign_TheShipperStands stops the process that ships, as a debugger or the kernel's
// freezer do. Nobody takes its role, which it has, and nobody has to wait for it but those
// who ask for the store. When it is killed another goes on.
func TestForeign_TheShipperStands(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	first := p.client()
	first.exec("CREATE TABLE t(v)")
	first.confirm()
	second := p.client()
	first.signal(syscall.SIGSTOP)
	for i := range 20 {
		second.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
	}
	if got := second.get("SELECT walferry_wait(walferry_token(), 200)"); got != "0" {
		t.Errorf("walferry_wait is %s while the shipper stands", got)
	}
	pid, pending, lag := second.status("shipper_pid"), second.status("pending_pages"), second.status("lag_ms")
	if pid != first.pid() || pending == "0" || lag == "0" {
		t.Errorf("process %s ships, %s pages are pending, the store is %s ms behind", pid, pending, lag)
	}
	first.signal(syscall.SIGCONT)
	second.confirm()
	first.signal(syscall.SIGSTOP)
	second.exec("INSERT INTO t VALUES('stands again')")
	first.kill()
	second.confirm()
	if pid := second.status("shipper_pid"); pid != second.pid() {
		t.Errorf("process %s ships after the kill", pid)
	}
	mustEqual(t, "restore", p.restored(), p.image())
	second.end()
	p.comesBack()
}

// TestForeign_TheLastCloserDoesNotShip is one where the process that ships closes first, and
// one where a program without walferry is the last at the database and checkpoints all.
func TestForeign_TheLastCloserDoesNotShip(t *testing.T) {
	for name, last := range map[string]string{"with walferry": "", "without": "vfs=plain"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			first := p.client()
			first.exec("CREATE TABLE t(v)")
			first.confirm()
			params := []string{"interval=1h"}
			if last != "" {
				params = []string{last}
			}
			second := p.client(params...)
			second.exec("INSERT INTO t VALUES('second')")
			first.exec("INSERT INTO t VALUES('first')")
			first.end()
			second.exec("INSERT INTO t VALUES('last')")
			second.end()
			if exists(p.db + "-wal") {
				t.Error("there is a WAL after the last close")
			}
			if last != "" {
				s := p.client()
				s.get("SELECT count(*) FROM t")
				s.shipNow()
				s.end()
			}
			p.comesBack()
			if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "second,first,last" {
				t.Errorf("restored %s", got)
			}
		})
	}
}

// TestForeign_AShellWorksUnderUs has the sqlite3 shell do to the database what
// administrators do, while walferry has it open and ships.
func TestForeign_AShellWorksUnderUs(t *testing.T) {
	for name, lines := range map[string][]string{
		"checkpoints and truncates": {"INSERT INTO t VALUES('shell');", "PRAGMA wal_checkpoint(TRUNCATE);", "INSERT INTO t VALUES('shell');", "PRAGMA wal_checkpoint(TRUNCATE);"},
		"vacuums":                   {"DELETE FROM t WHERE rowid % 2;", "VACUUM;"},
		"vacuums into auto_vacuum":  {"PRAGMA auto_vacuum=FULL;", "VACUUM;", "DELETE FROM t WHERE rowid % 3;"},
		"restores a backup":         {".restore backup.db"},
		"restores a larger one":     {".restore large.db"},
		"backs up":                  {".backup copy.db"},
		"changes the schema":        {"ALTER TABLE t ADD COLUMN w;", "CREATE INDEX i ON t(v);", "REINDEX;", "ANALYZE;"},
		"recovers into it":          {"DROP TABLE t;", "CREATE TABLE t(v);", ".import rows.csv t"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.plain(".open backup.db", "CREATE TABLE t(v);", "INSERT INTO t VALUES('backup');").ok(t)
			p.plain(".open large.db", "CREATE TABLE t(v);", "INSERT INTO t SELECT randomblob(900) FROM generate_series(1, 2000);").ok(t)
			if err := os.WriteFile(filepath.Join(p.dir, "rows.csv"), []byte("one\ntwo\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := p.client()
			s.exec("PRAGMA busy_timeout=20000")
			s.exec("CREATE TABLE t(v)")
			for range 40 {
				s.exec("INSERT INTO t VALUES(randomblob(2000))")
			}
			s.confirm()
			p.plain(append([]string{".open app.db", ".timeout 20000"}, lines...)...).ok(t)
			s.exec("CREATE TABLE after(v)")
			s.exec("INSERT INTO after VALUES(1)")
			s.shipNow()
			mustEqual(t, "restore beside the application", p.restored(), p.image())
			s.end()
			p.comesBack()
		})
	}
}

// TestForeign_ADatabaseReplacedByRename is another file from then on. A program that has the
// old one open goes on with that, with SQLite as with walferry; the next open finds
// the new one and ships what differs.
func TestForeign_ADatabaseReplacedByRename(t *testing.T) {
	for _, how := range []string{"while it is open", "while it is closed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.plain(".open new.db", "CREATE TABLE t(v);", "INSERT INTO t VALUES('new'), (randomblob(30000));").ok(t)
			s := p.client()
			s.exec("CREATE TABLE t(v)")
			s.exec("INSERT INTO t VALUES(randomblob(50000))")
			s.confirm()
			if how == "while it is closed" {
				s.end()
			}
			if err := os.Rename(filepath.Join(p.dir, "new.db"), p.db); err != nil {
				t.Fatal(err)
			}
			if how == "while it is open" {
				// It goes on with the file that it has, or says that it cannot.
				if answer, ok := s.try("exec INSERT INTO t VALUES('into the old file')"); !ok && !strings.Contains(answer, "disk") && !strings.Contains(answer, "readonly") {
					t.Errorf("a commit into the old file: %s", answer)
				}
				s.kill()
				for _, suffix := range []string{"-wal", "-shm"} { // of the old one, as its owner must see to
					_ = os.Remove(p.db + suffix)
				}
			}
			s = p.client()
			s.exec("INSERT INTO t VALUES('after')")
			s.shipNow()
			if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "3" {
				t.Errorf("%s rows came back", got)
			}
			s.end()
			p.comesBack()
		})
	}
}

// TestForeign_ACopyOnAnotherMachineIsFenced copies a database with its ledger, as who moves
// to another machine does. The copy proves nothing and ships nothing; with a takeover it
// ships, and then the first is fenced.
func TestForeign_ACopyOnAnotherMachineIsFenced(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.client()
	s.exec("CREATE TABLE t(v)")
	s.exec("INSERT INTO t VALUES('both')")
	s.confirm()
	q := *p
	q.dir = tempDir(t)
	q.db = filepath.Join(q.dir, "app.db")
	for _, suffix := range []string{"", "-wal", "-ledger"} {
		b, err := os.ReadFile(p.db + suffix)
		if err == nil {
			err = os.WriteFile(q.db+suffix, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	other := q.with("WF_DB=" + q.db)
	c := other.client()
	c.exec("INSERT INTO t VALUES('copy')")
	eventually(t, "the copy is unclaimed", func() bool { return c.status("state") == "unclaimed" })
	c.fails("exec PRAGMA walferry_sync", "takeover=1")
	s.exec("INSERT INTO t VALUES('original')")
	s.confirm()
	c.end()
	mustEqual(t, "the replica of the original", p.restored(), p.image())

	c = other.client("takeover=1")
	c.exec("INSERT INTO t VALUES('taken over')")
	c.shipNow()
	s.exec("INSERT INTO t VALUES('too late')")
	s.fails("exec PRAGMA walferry_sync", "another writer", "takeover=1")
	if got := s.status("state"); got != "fenced" {
		t.Errorf("the original is %s", got)
	}
	s.exec("INSERT INTO t VALUES('and goes on')")
	if got := s.get("SELECT count(*) FROM t"); got != strconv.Itoa(4) {
		t.Errorf("the original has %s rows", got)
	}
	s.end()
	c.end()
	other.comesBack()
}
