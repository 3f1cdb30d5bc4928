package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestMark_NamesTheStateOfItsMoment marks a database from SQL, spoils it, and has the
// marked state back.
func TestMark_NamesTheStateOfItsMoment(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, store := range []string{"file", "s3"} {
		t.Run(store, func(t *testing.T) {
			p := newPlace(t)
			if store == "s3" {
				p.onS3(server, "bucket", "app")
			}
			s := p.client("interval=1h")
			s.exec("CREATE TABLE t(v)")
			s.exec("INSERT INTO t VALUES('precious')")
			txid := s.get("SELECT walferry_mark('before migration / 100%')")
			image := p.image()
			s.exec("DROP TABLE t")
			s.exec("PRAGMA walferry_sync")
			s.exec("CREATE TABLE u(v)")
			if again := s.get("SELECT walferry_mark('second')"); again <= txid {
				t.Errorf("the second mark has TXID %s after %s", again, txid)
			}
			s.end()
			out := filepath.Join(tempDir(t), "marked.db")
			p.walferry("restore", "-mark", "before migration / 100%", "-o", out, p.replica).ok(t)
			mustEqual(t, "restore of the mark", out, image)
			mustEqual(t, "litestream restore of its TXID", p.byLitestream("-txid", txid), image)
		})
	}
}

func TestMark_IsOfTheDatabaseThatItsSchemaNames(t *testing.T) {
	t.Parallel()
	p, q := newPlace(t), newPlace(t)
	s := p.client("interval=1h")
	s.exec("CREATE TABLE t(v)")
	s.exec("ATTACH '" + q.uri("&interval=1h") + "' AS aux")
	s.exec("CREATE TABLE aux.u(v)")
	s.exec("INSERT INTO aux.u VALUES(7)")
	s.get("SELECT walferry_mark('there', 'aux')")
	s.fails("get SELECT walferry_mark('x', 'nowhere')", "not opened with vfs=walferry")
	s.end()
	if exists(filepath.Join(p.objects, "marks")) {
		t.Error("the main database was marked")
	}
	out := filepath.Join(tempDir(t), "aux.db")
	q.walferry("restore", "-mark", "there", "-o", out, q.replica).ok(t)
	if got := q.query(out, "SELECT v FROM u"); got != "7" {
		t.Errorf("the marked database has %q", got)
	}
}

func TestMark_ThatCannotBeSetSaysWhy(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.client("interval=1h")
	s.fails("get SELECT walferry_mark('too early')", "walferry: ")
	s.exec("CREATE TABLE t(v)")
	s.fails("get SELECT walferry_mark('')", "no name")
	s.fails("get SELECT walferry_mark(NULL)", "a mark's name is a text")
	s.fails("get SELECT walferry_mark('two' || char(10) || 'lines')", "control character")
	s.fails("get SELECT walferry_mark(printf('%.300c', 'x'))", "at most 200")
	s.fails("get SELECT walferry_mark('nul' || char(0) || 'byte')", "a mark's name is a text")
	if err := os.Chmod(p.objects, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(p.objects, 0o700)
	if os.Geteuid() != 0 {
		s.fails("get SELECT walferry_mark('no room')", "no permission")
	}
	s.end()
}

// TestKeep_ProcessesThatEndAtOnceKeepTheHistory runs a shell for every commit, with
// times so short that each has something to do.
func TestKeep_ProcessesThatEndAtOnceKeepTheHistory(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	options := "&snapshot_interval=1s&retention=2s&l0_retention=1s&mark_retention=1h"
	marked := ""
	for n := range 12 {
		lines := []string{".open " + p.uri(options), "CREATE TABLE IF NOT EXISTS t(v);", fmt.Sprintf("INSERT INTO t VALUES(%d);", n)}
		if n == 1 {
			lines = append(lines, "SELECT walferry_mark('second row');")
		}
		// The time between processes is what makes things due.
		if r := p.shell(append(lines, ".shell sleep 0.4")...).ok(t); len(r.errors()) != 0 {
			t.Fatal(r.stderr)
		}
		if n == 1 {
			marked = p.image()
		}
	}
	if s := p.status(); s["keep_error"] != nil {
		t.Errorf("keep_error is %v", s["keep_error"])
	}
	snapshots, _ := filepath.Glob(filepath.Join(p.objects, "ltx", "9", "*.ltx"))
	if n := len(snapshots); n < 2 || n > 6 {
		t.Errorf("%d snapshots are left: %s", n, strings.Join(snapshots, " "))
	}
	p.comesBack()
	out := filepath.Join(tempDir(t), "marked.db")
	p.walferry("restore", "-mark", "second row", "-o", out, p.replica).ok(t)
	mustEqual(t, "restore of the mark", out, marked)
}
