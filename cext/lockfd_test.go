package cext

import (
	"os"
	"path/filepath"
	"testing"
)

// A process may ship as many databases as it has descriptors for.
func TestAProcessHoldsMoreThanAThousandLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() int { return len(descriptors(t)) }
	before := open()
	var fds []int
	for range 2000 {
		fd, err := OpenLockFD(path)
		if err != nil {
			t.Errorf("after %d: %v", len(fds), err)
			break
		}
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		CloseLockFD(fd)
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
