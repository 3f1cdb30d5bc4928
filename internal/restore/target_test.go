package restore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/ledger"
)

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsOverwrittenUnlessForced(t *testing.T) {
	h := threeSteps(t)
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", "-ledger"} {
		t.Run("out.db"+suffix, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out.db")
			write(t, out+suffix, "precious", 0o640)
			_, err := Restore(background, h.store, out, Options{})
			if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "out.db"+suffix) || !strings.Contains(err.Error(), "-force") {
				t.Fatalf("error %v", err)
			}
			if b, _ := os.ReadFile(out + suffix); string(b) != "precious" {
				t.Fatalf("the file says %q", b)
			}
			if _, err := Restore(background, h.store, out, Options{Force: true}); err != nil {
				t.Fatal(err)
			}
			checkRestored(t, h, out)
		})
	}
}

func TestForceKeepsTheMode(t *testing.T) {
	h := threeSteps(t)
	out := filepath.Join(t.TempDir(), "out.db")
	write(t, out, "old", 0o664)
	if _, err := Restore(background, h.store, out, Options{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{out, out + "-ledger"} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o664 {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
}

func TestForceKeepsALink(t *testing.T) {
	h := threeSteps(t)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "out.db"), filepath.Join(t.TempDir(), "link.db")
	write(t, real, "old", 0o600)
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(background, h.store, link, Options{Force: true}); err != nil {
		t.Fatal(err)
	}
	checkRestored(t, h, real)
}

func TestAFailureWithForceTouchesNothing(t *testing.T) {
	h := threeSteps(t)
	b := h.store.objects[key{0, 3, 3}]
	h.store.objects[key{0, 3, 3}] = b[:len(b)-3]
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", "-ledger"} {
		write(t, filepath.Join(dir, "out.db"+suffix), suffix, 0o600)
	}
	_, err := Restore(background, h.store, filepath.Join(dir, "out.db"), Options{Force: true})
	if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
	names := dirNames(t, dir)
	if len(names) != 5 {
		t.Errorf("directory holds %v", names)
	}
	for _, n := range names {
		if b, _ := os.ReadFile(filepath.Join(dir, n)); string(b) != strings.TrimPrefix(n, "out.db") {
			t.Errorf("%s says %q", n, b)
		}
	}
}

func TestADatabaseInUseIsNotReplaced(t *testing.T) {
	h := threeSteps(t)
	out := filepath.Join(t.TempDir(), "out.db")
	write(t, out, "old", 0o600)
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A reader's lock, as every connection in WAL mode holds it.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: lockStart + 2, Len: 510}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(background, h.store, out, Options{Force: true}); !errors.Is(err, ErrInUse) {
		t.Fatalf("error %v", err)
	}
	f.Close()
	if _, err := Restore(background, h.store, out, Options{Force: true}); err != nil {
		t.Fatal(err)
	}

	// Its shipper's lock.
	l, err := ledger.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	role, err := l.TryLock(ledger.Descriptors{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(background, h.store, out, Options{Force: true}); !errors.Is(err, ErrInUse) {
		t.Fatalf("error %v", err)
	}
	role.Unlock()
	if _, err := Restore(background, h.store, out, Options{Force: true}); err != nil {
		t.Fatal(err)
	}
}

func TestATargetThatAppearsMeanwhileIsKept(t *testing.T) {
	h := threeSteps(t)
	for _, suffix := range []string{"", "-wal"} {
		out := filepath.Join(t.TempDir(), "out.db")
		_, err := Restore(background, h.store, out, Options{Progress: func(done, _ int64) {
			if done > 0 {
				write(t, out+suffix, "precious", 0o600)
			}
		}})
		if !errors.Is(err, ErrExists) {
			t.Fatalf("error %v", err)
		}
		if b, _ := os.ReadFile(out + suffix); string(b) != "precious" || len(dirNames(t, filepath.Dir(out))) != 1 {
			t.Errorf("%q, directory holds %v", b, dirNames(t, filepath.Dir(out)))
		}
	}
}

func TestImpossibleTargets(t *testing.T) {
	h := threeSteps(t)
	dir := t.TempDir()
	for _, force := range []bool{false, true} {
		if _, err := Restore(background, h.store, dir, Options{Force: force}); !errors.Is(err, ErrExists) {
			t.Errorf("directory: %v", err)
		}
		if _, err := Restore(background, h.store, filepath.Join(dir, "no", "out.db"), Options{Force: force}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no directory: %v", err)
		}
	}
}

// A write between the rename and the stamp must not be covered by the stamp.
func TestAStampIsOnlyForTheFileThatWasWritten(t *testing.T) {
	h := threeSteps(t)
	out := filepath.Join(t.TempDir(), "out.db")
	tg, err := newTarget(out, false, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tg.create(); err != nil {
		t.Fatal(err)
	}
	defer tg.discard()
	if _, err := tg.db.Write(h.bytes()); err != nil {
		t.Fatal(err)
	}
	before := ledger.StampOf(tg.db.Name())
	settled := settle(before.MtimeNs)
	if err := tg.rename(tg.db.Name(), out); err != nil {
		t.Fatal(err)
	}
	if err := tg.stamp(before, settled); err != nil || tg.ledger.Header().Stamp.Valid != 1 {
		t.Fatalf("no stamp: %v", err)
	}
	tg.ledger.Header().Stamp = ledger.Stamp{}
	if _, err := tg.db.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := tg.stamp(before, settled); err != nil || tg.ledger.Header().Stamp.Valid != 0 {
		t.Errorf("a stamp though the file was written to: %v", err)
	}
	os.Remove(out)
}
