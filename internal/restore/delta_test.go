package restore

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

var rounds = flag.Int("restore.rounds", 15, "random histories that deltas go over")

// longStory is one whose states are kept.
func longStory(t testing.TB, pageSize uint32) *story {
	h := newStory(t, pageSize)
	h.was, h.checked = map[ltx.TXID][]byte{}, true
	return h
}

// deltaTo restores over out and holds the result against what the database was.
func deltaTo(t *testing.T, h *story, out string, txid ltx.TXID) Result {
	t.Helper()
	h.store.served.Store(0)
	r, err := Restore(background, h.store, out, Options{Delta: true, Target: history.Target{TXID: txid}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, h.was[txid]) {
		for p := range len(h.was[txid]) / int(h.pageSize) {
			if off := p * int(h.pageSize); off+int(h.pageSize) > len(got) || !bytes.Equal(got[off:off+int(h.pageSize)], h.was[txid][off:off+int(h.pageSize)]) {
				t.Errorf("page %d differs", p+1)
			}
		}
		t.Errorf("TXID %d: %d bytes that differ from the database's %d, %v; %+v", txid, len(got), len(h.was[txid]), err, r)
	}
	if r.Bytes != h.store.served.Load() || r.TXID != txid || r.Past != (txid < h.txid) || r.Compared != h.checked {
		t.Errorf("%d bytes came from the store; result %+v", h.store.served.Load(), r)
	}
	if txid == h.txid {
		checkRestored(t, h, out)
	} else if names := dirNames(t, filepath.Dir(out)); len(names) != 1 {
		t.Errorf("directory holds %v", names)
	}
	return r
}

func TestADeltaDownloadsWhatDiffers(t *testing.T) {
	for _, checked := range []bool{true, false} {
		h := longStory(t, 4096)
		h.checked = checked
		h.next(1000)
		h.next(1000, 5, 700)
		out := filepath.Join(t.TempDir(), "out.db")
		first, err := Restore(background, h.store, out, Options{Delta: true})
		if err != nil || first.Delta || first.Whole != "" {
			t.Fatalf("where there is none yet: %+v, %v", first, err)
		}
		h.next(1010, 7, 900, 901)
		h.next(990, 8)
		h.next(995, 9, 800)
		h.step(995, 800, 801)
		h.put(1, 3) // and no level 0 of it
		// The application has written too, and what a WAL says does not count.
		f, err := os.OpenFile(out, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("changed"), 99*4096+17); err != nil {
			t.Fatal(err)
		}
		f.Close()
		write(t, out+"-wal", "old", 0o600)

		r := deltaTo(t, h, out, h.txid)
		if !r.Delta || r.Whole != "" || r.Kept < 960 || r.Bytes > 150_000 || r.Plan.Size() < 2_000_000 {
			t.Errorf("%+v", r)
		}
		// Nothing has changed.
		if r := deltaTo(t, h, out, h.txid); !r.Delta || r.Kept != h.size || r.Bytes > 3*tailBytes {
			t.Errorf("%+v", r)
		}
		// And back.
		if r := deltaTo(t, h, out, 2); !r.Delta || r.Kept < 960 || r.Bytes > 200_000 {
			t.Errorf("%+v", r)
		}
		// A database of the past has no ledger.
		if r := deltaTo(t, h, out, h.txid); r.Delta || !strings.Contains(r.Whole, "no ledger") {
			t.Errorf("%+v", r)
		}
	}
}

// Of many files only those are asked that the wanted pages are in, or may be.
func TestADeltaOverManyFiles(t *testing.T) {
	h := longStory(t, 512)
	h.next(400)
	for i := range uint32(300) {
		h.next(400, 2+i)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	if _, err := Restore(background, h.store, out, Options{}); err != nil {
		t.Fatal(err)
	}
	if r := deltaTo(t, h, out, h.txid); !r.Delta || r.Requests > 20 {
		t.Errorf("%d requests where nothing has changed, %+v", r.Requests, r.Whole)
	}
	h.next(400, 7)
	h.next(400, 8)
	if r := deltaTo(t, h, out, h.txid); !r.Delta || r.Requests > 20+windowParts {
		t.Errorf("%d requests for two files, %+v", r.Requests, r.Whole)
	}
	if r := deltaTo(t, h, out, 290); !r.Delta || r.Kept < 380 {
		t.Errorf("%d requests, %+v", r.Requests, r.Whole)
	}
}

func TestWhereADeltaIsNone(t *testing.T) {
	start := func(t *testing.T) (*story, string) {
		h := longStory(t, 4096)
		h.next(300)
		h.next(300, 5)
		out := filepath.Join(t.TempDir(), "out.db")
		if _, err := Restore(background, h.store, out, Options{}); err != nil {
			t.Fatal(err)
		}
		h.next(301, 6)
		return h, out
	}
	change := func(t *testing.T, out string, f func(*ledger.Header)) {
		l, err := ledger.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f(l.Header())
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T, h *story, out string)
		says string
	}{
		"no ledger":     {func(t *testing.T, h *story, out string) { os.Remove(out + "-ledger") }, "no ledger"},
		"a garbled one": {func(t *testing.T, h *story, out string) { change(t, out, func(h *ledger.Header) { h.Magic[0]++ }) }, "cannot be trusted"},
		"of elsewhere": {func(t *testing.T, h *story, out string) {
			change(t, out, func(h *ledger.Header) { h.SetReplica("x://y") })
		}, "x://y"},
		"knows nothing":   {func(t *testing.T, h *story, out string) { change(t, out, func(h *ledger.Header) { h.TXID = 0 }) }, "knows nothing"},
		"a newer one":     {func(t *testing.T, h *story, out string) { change(t, out, func(h *ledger.Header) { h.TXID = 77 }) }, "not there"},
		"other page size": {func(t *testing.T, h *story, out string) { change(t, out, func(h *ledger.Header) { h.PageSize = 512 }) }, "page size"},
		"another history": {func(t *testing.T, h *story, out string) {
			h.store.sums = map[key]uint64{}
			h.checked = false
			change(t, out, func(h *ledger.Header) { h.HeadSum++ })
		}, "nothing in the replica proves"},
		"another history, seen in the end": {func(t *testing.T, h *story, out string) {
			f, err := os.OpenFile(out, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			page := make([]byte, 4096)
			if _, err := f.WriteAt(page, 40*4096); err != nil {
				t.Fatal(err)
			}
			l, err := ledger.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			l.Grow(300)
			_ = l.Check()
			l.SetSum(41, ledger.PageSum(41, page))
		}, "do not fit together"},
		"files gone": {func(t *testing.T, h *story, out string) {
			h.put(9, 1)
			delete(h.store.objects, key{0, 3, 3})
		}, "not there"},
		"most differs": {func(t *testing.T, h *story, out string) {
			var all []uint32
			for p := range uint32(300) {
				all = append(all, p+1)
			}
			h.next(301, all...)
			h.step(301, 8)
			h.put(9, 1)
			h.put(0, h.txid)
		}, "of 301 pages differ"},
		"a damaged index": {func(t *testing.T, h *story, out string) {
			b := h.store.objects[key{9, 1, 1}]
			b[len(b)-18]++
			h.store.objects[key{9, 1, 1}] = b
			h.step(301, 9)
			h.put(3, 1) // does without
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, out := start(t)
			c.do(t, h, out)
			r := deltaTo(t, h, out, h.txid)
			if c.says != "" && (r.Delta || !strings.Contains(r.Whole, c.says)) {
				t.Errorf("%+v does not say %q", r, c.says)
			}
		})
	}
}

// A merged file that reaches beyond the state that is restored, or that is there, does not
// hold pages that were cut off before its end.
func TestADeltaAcrossACutThatAMergeHides(t *testing.T) {
	h := longStory(t, 4096)
	h.next(300)
	h.next(300, 5)
	h.step(300, 299)
	out := filepath.Join(t.TempDir(), "out.db")
	h.put(0, 3)
	if _, err := Restore(background, h.store, out, Options{}); err != nil {
		t.Fatal(err)
	}
	h.step(250, 6)
	delete(h.store.objects, key{0, 3, 3})
	h.put(1, 3) // 3 to 4, of 250 pages
	h.put(9, 1)
	h.next(260)
	if r := deltaTo(t, h, out, 2); !r.Delta {
		t.Errorf("%+v", r)
	}
}

// A kill may come between the sums of an object that was put and its TXID: the entries are
// then of one TXID later than the ledger says.
func TestADeltaFromALedgerBetweenTwoTXIDs(t *testing.T) {
	h := longStory(t, 4096)
	h.checked = false
	h.next(300)
	h.next(300, 5)
	h.next(300, 6)
	out := filepath.Join(t.TempDir(), "out.db")
	if _, err := Restore(background, h.store, out, Options{}); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	l.Header().TXID = 2
	l.Header().Attempts[3] = ledger.Attempt{TXID: 3, Nonce: 1}
	l.Close()
	if r := deltaTo(t, h, out, 2); !r.Delta {
		t.Errorf("%+v", r)
	}
}

func TestAFailedDeltaTouchesNothing(t *testing.T) {
	h := longStory(t, 4096)
	h.next(500)
	out := filepath.Join(t.TempDir(), "out.db")
	if _, err := Restore(background, h.store, out, Options{}); err != nil {
		t.Fatal(err)
	}
	h.next(500, 7, 8)
	h.next(500, 300)
	before, _ := os.ReadFile(out + "-ledger")
	unreachable := errors.New("no such luck")
	for nth := 1; ; nth++ {
		h.store.opens = 0
		h.store.open = func(_ objstore.Object, _ int64, n int) error {
			if n == nth {
				return errors.Join(unreachable, objstore.ErrRefused)
			}
			return nil
		}
		r, err := Restore(background, h.store, out, Options{Delta: true})
		if err == nil {
			if !r.Delta || nth < 3 {
				t.Errorf("%+v after %d", r, nth)
			}
			break
		}
		if !errors.Is(err, unreachable) {
			t.Fatal(err)
		}
		if names := dirNames(t, filepath.Dir(out)); len(names) != 2 {
			t.Fatalf("directory holds %v", names)
		}
		if got, _ := os.ReadFile(out); !bytes.Equal(got, h.was[1]) {
			t.Fatal("the database has changed")
		}
		if got, _ := os.ReadFile(out + "-ledger"); !bytes.Equal(got, before) {
			t.Fatal("the ledger has changed")
		}
	}
	checkRestored(t, h, out)
}

func TestDeltasOverRandomHistories(t *testing.T) {
	deltas := 0
	for seed := range uint64(*rounds) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := longStory(t, []uint32{512, 1024, 4096}[r.IntN(3)])
		h.checked = r.IntN(2) == 0
		merged := [3]ltx.TXID{1, 1, 1} // up to where levels 1 to 3 have it
		more := func() {
			size := max(2, uint32(int(max(h.size, 40))+r.IntN(21)-10))
			var pages []uint32
			for range r.IntN(6) {
				pages = append(pages, 1+r.Uint32N(size))
			}
			h.next(size, append(pages, 1)...)
			for i := range merged {
				if r.IntN(4+4*i) == 0 && merged[i] < h.txid {
					h.put(i+1, merged[i]+1)
					merged[i] = h.txid
				}
			}
			if r.IntN(15) == 0 {
				h.put(9, 1)
			}
		}
		for range 1 + r.IntN(20) {
			more()
		}
		out := filepath.Join(t.TempDir(), "out.db")
		if _, err := Restore(background, h.store, out, Options{}); err != nil {
			t.Fatal(err)
		}
		for range r.IntN(20) {
			more()
		}
		if r.IntN(2) == 0 { // what a retention of level 0 leaves
			for k := range h.store.objects {
				if k.level == 0 && k.max <= merged[0] {
					delete(h.store.objects, k)
				}
			}
		}
		f, err := os.OpenFile(out, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range r.IntN(3) {
			_, _ = f.WriteAt([]byte{byte(r.IntN(256))}, r.Int64N(2*int64(h.size)*int64(h.pageSize)))
		}
		f.Close()
		txid := h.txid
		if r.IntN(2) == 0 {
			txid = 1 + ltx.TXID(r.Uint64N(uint64(h.txid)))
		}
		if _, err := Prepare(background, h.store, history.Target{TXID: txid}); err != nil {
			continue // inside a merged file
		}
		if deltaTo(t, h, out, txid).Delta {
			deltas++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if deltas < *rounds/4 {
		t.Errorf("only %d deltas in %d rounds", deltas, *rounds)
	}
}
