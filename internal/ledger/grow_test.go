package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk is a directory on a file system of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestGrowOnAFullDiskIsAnError(t *testing.T) {
	database := filepath.Join(smallDisk(t, "512k"), "app.db")
	if err := os.WriteFile(database, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, database)
	if err := l.Reset(database); err != nil {
		t.Fatal(err)
	}
	if err := l.Grow(2 * SegmentPages); err != nil {
		t.Fatal(err)
	}
	l.SetSum(2*SegmentPages, 9)
	if err := l.Grow(40 * SegmentPages); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Grow on a full disk: %v", err)
	}
	if l.header.Segments != 2 || l.Sum(2*SegmentPages) != 9 {
		t.Fatalf("%d segments after a Grow that failed", l.header.Segments)
	}
	if l.Lost() {
		t.Fatal("a Grow that failed lost the ledger")
	}
	// What was allocated before is usable to its last byte, and by the next open.
	for p := uint32(1); p <= 2*SegmentPages; p += 61 {
		l.Mark(p)
	}
	if err := open(t, database).Check(); err != nil {
		t.Fatalf("Check after a Grow that failed: %v", err)
	}
}

func TestResetOnAFullDiskIsAnError(t *testing.T) {
	database := filepath.Join(smallDisk(t, "64k"), "app.db")
	if err := os.WriteFile(database, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, database).Reset(database); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Reset on a full disk: %v", err)
	}
}

func TestGrow(t *testing.T) {
	l := newLedger(t, 1)
	l.SetSum(1, 3)
	for _, n := range []uint32{0, 1, SegmentPages, SegmentPages + 1, 2 * SegmentPages, 5*SegmentPages + 1, 1} {
		if err := l.Grow(n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if s, _ := l.at(n); s == nil {
				t.Fatalf("page %d has no place after Grow", n)
			}
		}
	}
	if l.header.Segments != 6 || l.Sum(1) != 3 {
		t.Fatalf("%d segments, sum %d", l.header.Segments, l.Sum(1))
	}
	fi, _ := l.file.Stat()
	if fi.Size() != HeaderSize+6*SegmentSize {
		t.Fatalf("size %d", fi.Size())
	}
}

// A file longer than the header says, as a crash within Grow leaves it, is whole.
func TestACrashWithinGrowIsHarmless(t *testing.T) {
	l := newLedger(t, 1)
	if err := l.file.Truncate(HeaderSize + 3*SegmentSize + 17); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	if err := l.Grow(4 * SegmentPages); err != nil || l.header.Segments != 4 {
		t.Fatalf("Grow: %v, %d segments", err, l.header.Segments)
	}
}
