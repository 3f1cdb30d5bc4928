package sqlcheck

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// database writes a database in WAL mode, whose bytes 18 and 19 promise a WAL
// that is not there.
func database(t *testing.T, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a b%20?#.db")
	db, err := sql.Open("sqlite", escaped(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range append([]string{
		"PRAGMA journal_mode=WAL",
		"CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)",
		"CREATE INDEX i ON t(b)",
		"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<2000) INSERT INTO t SELECT i, printf('%0100d', i) FROM n",
	}, statements...) {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	return path
}

func escaped(path string) string {
	return "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

func names(t *testing.T, path string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestASoundDatabaseHasNoProblemsAndNothingBesideIt(t *testing.T) {
	path := database(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if before[18] != 2 {
		t.Fatal("the database is not in WAL mode")
	}
	if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Dir(path), 0o700) })
	for _, full := range []bool{false, true} {
		if problems, err := Check(t.Context(), path, full); err != nil || problems != nil {
			t.Errorf("full %v: %q, %v", full, problems, err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
	if got := names(t, path); !slices.Equal(got, []string{filepath.Base(path)}) {
		t.Errorf("the directory holds %q", got)
	}
}

func TestALockedDatabaseIsCheckedWithoutWaiting(t *testing.T) {
	path := database(t)
	db, err := sql.Open("sqlite", escaped(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range []string{"PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE"} {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	if problems, err := Check(t.Context(), path, true); err != nil || problems != nil {
		t.Errorf("%q, %v", problems, err)
	}
}

func TestDamageIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		full   bool // only found by the full check
	}{
		"a page of zeros":   {func(b []byte) []byte { clear(b[5*4096 : 6*4096]); return b }, false},
		"cut short":         {func(b []byte) []byte { return b[:len(b)/2] }, false},
		"no database":       {func(b []byte) []byte { return bytes.Repeat([]byte("walferry"), 1024) }, false},
		"a schema of noise": {func(b []byte) []byte { copy(b[3000:4096], bytes.Repeat([]byte{0xc7}, 1096)); return b }, false},
		"a row without entry": {func(b []byte) []byte {
			// The key in the table's leaf; its index entry keeps the old one.
			at := bytes.LastIndex(b, []byte(strings.Repeat("0", 97)+"123"))
			first := bytes.Index(b, []byte(strings.Repeat("0", 97)+"123"))
			b[min(at, first)+99] = '4'
			return b
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := database(t)
			b, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, c.damage(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			quick, err := Check(t.Context(), path, false)
			if err != nil || (quick == nil) != c.full || len(quick) > MaxProblems {
				t.Errorf("quick: %q, %v", quick, err)
			}
			full, err := Check(t.Context(), path, true)
			if err != nil || full == nil || len(full) > MaxProblems {
				t.Errorf("full: %q, %v", full, err)
			}
		})
	}
}

func TestWhatCannotBeChecked(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, filepath.Join(dir, "none.db")} {
		if problems, err := Check(t.Context(), path, false); err == nil {
			t.Errorf("%s: %q", path, problems)
		}
	}
	if got := names(t, fifo); !slices.Equal(got, []string{"fifo"}) {
		t.Errorf("the directory holds %q", got)
	}
}

// The collation is known to this process's SQLite while the database is
// written, and is taken from the schema's text afterwards by another name.
func TestACollationOfTheApplicationsIsNoDamage(t *testing.T) {
	if err := sqlite.RegisterCollationUtf8("wf_here", strings.Compare); err != nil {
		t.Fatal(err)
	}
	path := database(t, "CREATE TABLE c(x TEXT COLLATE wf_here)", "CREATE INDEX ci ON c(x)", "INSERT INTO c VALUES('a'),('b')")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.ReplaceAll(b, []byte("wf_here"), []byte("wf_gone")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := Check(t.Context(), path, true); !errors.Is(err, ErrUncheckable) || problems != nil {
		t.Errorf("%q, %v", problems, err)
	}
}

func TestACheckEndsWithItsContext(t *testing.T) {
	path := database(t, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO t(b) SELECT printf('%0400d', i) FROM n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if problems, err := Check(ctx, path, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q, %v", problems, err)
	}
}

// What is loaded into an application must bring no second SQLite with it.
func TestOnlyTheCommandLineHasIt(t *testing.T) {
	for _, pkg := range []string{"../../cmd/loadable", "../../vfs", "../../shipper"} {
		out, err := exec.Command("go", "list", "-deps", pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "modernc.org/") || strings.HasSuffix(strings.TrimSpace(line), "internal/sqlcheck") {
				t.Errorf("%s pulls in %s", pkg, line)
			}
		}
	}
}
