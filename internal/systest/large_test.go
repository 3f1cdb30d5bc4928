package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestLarge_OneTransactionIsOneObjectInBoundedMemory writes WALFERRY_TEST_LARGE megabytes, 100
// if it does not say, in one transaction, and half of them once more in another. From 1100
// on the database reaches beyond the page of SQLite's locks.
func TestLarge_OneTransactionIsOneObjectInBoundedMemory(t *testing.T) {
	megabytes, sizes := 100, []int{4096}
	if n, err := strconv.Atoi(os.Getenv("WALFERRY_TEST_LARGE")); err == nil {
		megabytes, sizes = n, []int{4096, 65536}
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint("page size ", size), func(t *testing.T) {
			p := newPlace(t)
			s := p.start("large.py", fmt.Sprint(megabytes), fmt.Sprint(size))
			s.patience = patience * max(1, time.Duration(megabytes/100))
			resident, _ := strconv.Atoi(s.expect("resident"))
			t.Logf("%d MB in a transaction: %d KiB more resident", megabytes, resident)
			if most := 48<<10 + size; resident > most { // some hundred pages are under way at a time
				t.Errorf("%d KiB more resident after %d MB", resident, megabytes)
			}
			s.expect("done")
			s.finish()
			if n := p.newest(); n != 4 {
				t.Errorf("%d objects", n)
			}
			if left, _ := filepath.Glob(filepath.Join(p.dir, ".*")); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
			out := filepath.Join(p.dir, "restored.db")
			r := start(t, p.dir, p.env, artefact(t, "walferry"), "restore", "-q", "-o", out, p.replica)
			r.patience = s.patience
			r.finish()
			mustEqual(t, "restore", out, p.db)
		})
	}
}
