package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// newDatabase is the path of a file that stands for a database.
func newDatabase(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(path, []byte("a database"), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, database string) *Ledger {
	t.Helper()
	l, err := Open(database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// newLedger is a ledger made new, of a database of so many pages.
func newLedger(t testing.TB, pages uint32) *Ledger {
	t.Helper()
	database := newDatabase(t)
	l := open(t, database)
	if err := l.Reset(database); err != nil {
		t.Fatal(err)
	}
	if err := l.Grow(pages); err != nil {
		t.Fatal(err)
	}
	return l
}
