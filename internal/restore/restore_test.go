package restore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
)

// restored restores a history into a new directory and holds the database and the
// ledger against it.
func restored(t *testing.T, h *story) Result {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	r, err := Restore(background, h.store, out, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkRestored(t, h, out)
	if r.TXID != h.txid || r.Pages != h.size || r.PageSize != h.pageSize || r.Time.UnixMilli() != 1700000000000+int64(h.txid) {
		t.Errorf("result %+v, want TXID %s and %d pages of %d", r, h.txid, h.size, h.pageSize)
	}
	return r
}

func checkRestored(t *testing.T, h *story, out string) {
	t.Helper()
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, h.bytes()) {
		t.Fatalf("%s: %d bytes that differ from the history's %d", out, len(got), len(h.bytes()))
	}
	if names := dirNames(t, filepath.Dir(out)); !slices.Equal(names, []string{"out.db", "out.db-ledger"}) {
		t.Errorf("directory holds %v", names)
	}
	l, err := ledger.OpenReadOnly(out)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(); err != nil {
		t.Fatalf("check ledger: %v", err)
	}
	for p := uint32(1); p <= h.size; p++ {
		want := uint64(0)
		if p != ledger.LockPage(h.pageSize) {
			want = ledger.PageSum(p, got[int64(p-1)*int64(h.pageSize):][:h.pageSize])
		}
		if l.Sum(p) != want {
			t.Fatalf("ledger's sum of page %d is %016x, want %016x", p, l.Sum(p), want)
		}
	}
	for p := h.size + 1; p < h.size+1000; p++ {
		if l.Sum(p) != 0 {
			t.Fatalf("ledger has a sum of page %d, of %d", p, h.size)
		}
	}
	checkHeader(t, h, l.Header(), out)
	if l.Pending() != 0 || l.Locked() {
		t.Errorf("ledger has %d pages pending, locked %v", l.Pending(), l.Locked())
	}
}

func checkHeader(t *testing.T, h *story, lh *ledger.Header, out string) {
	t.Helper()
	head, ok := h.store.objects[key{0, h.txid, h.txid}]
	if !ok {
		p, err := Prepare(background, h.store, history.Target{})
		if err != nil {
			t.Fatal(err)
		}
		head = h.store.objects[keyOf(p.Plan.Head)]
	}
	type fields struct {
		txid     uint64
		pages    uint32
		pageSize uint32
		headSum  uint64
		headTime int64
		all      uint64
		epoch    uint64
		stamp    ledger.Stamp
		replica  string
	}
	got := fields{lh.TXID, lh.DBPages, lh.PageSize, lh.HeadSum, lh.HeadTimeMs, lh.AllDone, lh.ComparedEpoch, lh.Stamp, lh.Replica()}
	want := fields{
		uint64(h.txid), h.size, h.pageSize, ledger.HeadSum(head[:ltx.HeaderSize]), 1700000000000 + int64(h.txid),
		lh.All, lh.Epoch, ledger.StampOf(out), h.store.String(),
	}
	if got != want {
		t.Errorf("ledger's header says\n%+v, want\n%+v", got, want)
	}
	if dev, ino := ledger.Inode(out); dev != lh.DBDev || ino != lh.DBIno {
		t.Errorf("ledger is of inode %d:%d, the database is %d:%d", lh.DBDev, lh.DBIno, dev, ino)
	}
}

func dirNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRestoreOfEveryPageSize(t *testing.T) {
	for size := uint32(512); size <= 65536; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			h := newStory(t, size)
			h.next(20)
			h.next(20, 1, 7, 8, 9)
			n := min(2000, 8<<20/size)
			h.next(n, 1)   // grows
			h.next(n/6, 2) // shrinks
			h.next(n/3, 1) // and grows again, within what it was
			restored(t, h)
		})
	}
}

func TestRestoreThroughMergedLevels(t *testing.T) {
	h := newStory(t, 4096)
	h.next(10)
	h.step(20, 3)
	h.step(5, 1)
	h.put(1, 2) // 2 to 3
	h.step(30, 4, 5)
	h.step(12, 6)
	h.put(0, 5)
	h.put(2, 4)
	h.step(12, 11, 12)
	h.put(0, 6)
	if r := restored(t, h); len(r.Plan.Files) != 4 {
		t.Errorf("%d objects, want 4", len(r.Plan.Files))
	}
}

func TestRestoreOfManySmallObjects(t *testing.T) {
	h := newStory(t, 1024)
	h.next(100)
	for i := range uint32(500) {
		h.next(100+i/10, 1, 2+i%90)
	}
	if r := restored(t, h); len(r.Plan.Files) != 501 || r.Bytes == 0 {
		t.Errorf("result %+v", r)
	}
}

func TestRestoreOfLevelZeroOnly(t *testing.T) {
	h := newStory(t, 4096)
	h.step(3)
	h.put(0, 1)
	h.next(4, 2)
	restored(t, h)
}

func TestRestoreTakesTheHeadFromItsOwnObject(t *testing.T) {
	h := newStory(t, 4096)
	h.next(10)
	h.next(10, 2)
	h.next(10, 3)
	h.put(1, 2)
	// What differs from the merge's header is the nonce.
	head := h.store.objects[key{0, 3, 3}]
	head[72] = 0xff
	restored(t, h)
}

func TestRestoreComparesTheChecksum(t *testing.T) {
	h := newStory(t, 4096)
	h.next(10)
	k := h.next(12, 2)
	sum := h.sum()
	if r := restored(t, h); r.Compared {
		t.Error("compared with nothing")
	}
	h.store.sums[k] = sum
	if r := restored(t, h); !r.Compared {
		t.Error("not compared")
	}
	h.store.sums[k]++
	fails(t, h, ErrMismatch, fmt.Sprintf("%016x", sum), fmt.Sprintf("%016x", sum+1), "0000000000000002.ltx")
}

func TestRestoreOfCheckedSnapshots(t *testing.T) {
	h := newStory(t, 4096)
	k := h.next(700)
	h.store.objects[k] = encode(t, ltx.Header{
		Version: ltx.Version, PageSize: 4096, Commit: 700, MinTXID: 1, MaxTXID: 1, Timestamp: 1700000000001,
	}, h.changed[1], h.pages)
	restored(t, h)
}
