package restore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

func TestFreshTakesThePlaceOfALostDatabase(t *testing.T) {
	h := threeSteps(t)
	for _, left := range [][]string{{}, {""}, {"-ledger", "-wal", "-shm", "-journal"}, {"", "-ledger"}} {
		out := filepath.Join(t.TempDir(), "out.db")
		for _, suffix := range left {
			text := "old"
			if suffix == "" {
				text = ""
			}
			if err := os.WriteFile(out+suffix, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Restore(background, h.store, out, Options{Fresh: true}); err != nil {
			t.Fatalf("with %q: %v", left, err)
		}
		checkRestored(t, h, out)
	}
}

func TestFreshReplacesNoDatabase(t *testing.T) {
	h := threeSteps(t)
	out := filepath.Join(t.TempDir(), "out.db")
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(background, h.store, out, Options{Fresh: true}); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	os.Remove(out)
	appears := func(objstore.Object, int64, int) error { return os.WriteFile(out, []byte("precious"), 0o600) }
	h.store.open = appears // while the restore is under way
	if _, err := Restore(background, h.store, out, Options{Fresh: true}); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(out); string(b) != "precious" || len(dirNames(t, filepath.Dir(out))) != 1 {
		t.Errorf("%q, directory holds %v", b, dirNames(t, filepath.Dir(out)))
	}
}

// A process that ships a database which is gone has begun a new one, or had it taken away.
func TestFreshStandsBackFromAShipper(t *testing.T) {
	h := threeSteps(t)
	out := filepath.Join(t.TempDir(), "out.db")
	l, err := ledger.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	role, err := l.TryLock(ledger.Descriptors{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reset(out); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(background, h.store, out, Options{Fresh: true}); !errors.Is(err, ErrInUse) || h.store.opens != 0 {
		t.Errorf("%v, after %d downloads", err, h.store.opens)
	}
	if _, err := Restore(background, newMemStore(), out, Options{Fresh: true}); !errors.Is(err, history.ErrNothing) {
		t.Errorf("of an empty replica: %v", err)
	}
	role.Unlock()
	if _, err := Restore(background, h.store, out, Options{Fresh: true}); err != nil {
		t.Error(err)
	}
}

// Whoever finds the database may open it at once, and the restore be killed: it needs its ledger.
func TestAFreshDatabaseIsNeverWithoutItsLedger(t *testing.T) {
	h := threeSteps(t)
	for range 5 {
		out := filepath.Join(t.TempDir(), "out.db")
		there := make(chan error, 1)
		go func() {
			for t.Context().Err() == nil {
				if _, err := os.Lstat(out); err == nil {
					_, err = os.Lstat(out + ledger.Suffix)
					there <- err
					return
				}
			}
		}()
		if _, err := Restore(background, h.store, out, Options{Fresh: true}); err != nil {
			t.Fatal(err)
		}
		if err := <-there; err != nil {
			t.Error(err)
		}
		checkRestored(t, h, out)
	}
}
