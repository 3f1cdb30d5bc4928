package compact

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// underRace is set where the race detector is at work.
var underRace bool

// bigMerge, in the environment, makes a test's process do nothing but a merge in a
// directory.
const bigMerge = "WALFERRY_TEST_MERGE"

// The memory of a merge is that of its process, so it has one.
func TestTheMemoryOfALargeMergeIsBounded(t *testing.T) {
	if dir := os.Getenv(bigMerge); dir != "" {
		mergeAll(t, dir)
		return
	}
	if underRace {
		t.Skip("the race detector has memory of its own")
	}
	// Pages that nothing compresses, of the largest size.
	const pages, changes = 2000, 12 // 125 MiB, and as much in the changes
	dir := t.TempDir()
	page := make([]byte, 65536)
	for i := range page {
		page[i] = byte(i * i >> 3)
	}
	block := append([]byte{0xf0}, bytes.Repeat([]byte{0xff}, (len(page)-15)/255)...)
	block = append(append(block, byte((len(page)-15)%255)), page...) // literals only
	file := func(level int, from, to ltx.TXID, numbers func(i uint32) uint32, n uint32) {
		path := pathOf(dir, objstore.Object{Level: level, Min: from, Max: to})
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := ltxfile.NewWriter(f, dir)
		err = w.WriteHeader(ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 65536, Commit: pages, MinTXID: from, MaxTXID: to,
		})
		for i := range n {
			if err == nil {
				err = w.WriteFrame(numbers(i), block, page)
			}
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file(9, 1, 1, func(i uint32) uint32 { return i + 1 }, pages)
	for txid := ltx.TXID(2); txid <= 160; txid++ {
		file(0, txid, txid, func(i uint32) uint32 { return i*160 + uint32(txid) }, changes)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), bigMerge+"="+dir)
	out, err := cmd.CombinedOutput()
	var before, peak int
	for line := range strings.Lines(string(out)) {
		_, _ = fmt.Sscanf(line, "memory: %d kB, %d kB", &before, &peak)
	}
	if err != nil || before == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d kB before, at most %d kB", before, peak)
	if used := peak - before; used > 64<<10 {
		t.Errorf("a merge took %d kB", used)
	}
	if fi, err := os.Stat(pathOf(dir, objstore.Object{Level: 9, Min: 1, Max: 160})); err != nil || fi.Size() < pages*65536 {
		t.Errorf("the snapshot: %v", err)
	}
}

func mergeAll(t *testing.T, dir string) {
	store := open(t, "file://"+dir)
	inputs := []objstore.Object{}
	for _, level := range []int{9, 0} {
		all, err := store.List(t.Context(), level, 0)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, all...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Merge(context.Background(), store, inputs, objstore.SnapshotLevel, dir); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// What was taken from the system is kept, so that it is the most there was.
	fmt.Printf("memory: %d kB, %d kB\n", before.Sys>>10, after.Sys>>10)
}
