package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCandidates(t *testing.T) {
	const s = SegmentPages
	span := func(from, to uint32) (pages []uint32) {
		for p := from; p <= to; p++ {
			pages = append(pages, p)
		}
		return pages
	}
	tests := []struct {
		name     string
		dirty    []uint32
		inflight []uint32
		n, floor uint32
		every    bool
		want     []uint32
	}{
		{"nothing", nil, nil, 100, 100, false, nil},
		{"an empty database", []uint32{1, 2}, nil, 0, 0, true, nil},
		{"dirty and in flight, in order", []uint32{70, 3}, []uint32{64, 65, 3}, 100, None, false, []uint32{3, 64, 65, 70}},
		{"none above the size", []uint32{99, 100, 101, 128}, []uint32{200}, 100, None, false, []uint32{99, 100}},
		{"above the floor", []uint32{2}, nil, 70, 67, false, []uint32{2, 68, 69, 70}},
		{"floor at a word's last page", nil, nil, 66, 64, false, []uint32{65, 66}},
		{"floor one below a word's last page", nil, nil, 66, 63, false, []uint32{64, 65, 66}},
		{"floor at a word's first page", nil, nil, 67, 65, false, []uint32{66, 67}},
		{"floor 0", nil, nil, 3, 0, false, []uint32{1, 2, 3}},
		{"floor above the size", []uint32{1}, nil, 3, 9, false, []uint32{1}},
		{"every", nil, []uint32{2}, 130, None, true, span(1, 130)},
		{"a segment's last page", []uint32{s - 1, s, s + 1, s + 2}, nil, s, s, false, []uint32{s - 1, s}},
		{"the next segment's first", []uint32{s, s + 1, s + 2}, nil, s + 1, s + 1, false, []uint32{s, s + 1}},
		{"floor at the end of a segment", nil, nil, s + 3, s, false, []uint32{s + 1, s + 2, s + 3}},
		{"floor before the end of a segment", nil, nil, s + 1, s - 2, false, []uint32{s - 1, s, s + 1}},
		{"the end of two segments", []uint32{2 * s}, []uint32{2*s + 1}, 2 * s, None, false, []uint32{2 * s}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, 2*s+1)
			for _, p := range tt.dirty {
				l.Mark(p)
			}
			for _, p := range tt.inflight {
				l.SetInflight(p)
			}
			if got := slices.Collect(l.Candidates(tt.n, tt.floor, tt.every)); !slices.Equal(got, tt.want) {
				t.Fatalf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// naive is the ledger as maps.
type naive struct {
	dirty, inflight map[uint32]bool
	sums            map[uint32]uint64
	min, minInf     uint32
}

func TestPagesBehaveAsAMapWould(t *testing.T) {
	l := newLedger(t, 3*SegmentPages)
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		if err := l.Reset(newDatabase(t)); err != nil {
			t.Fatal(err)
		}
		m := naive{map[uint32]bool{}, map[uint32]bool{}, map[uint32]uint64{}, None, None}
		page := func() uint32 {
			switch base := uint32(r.IntN(3)) * SegmentPages; r.IntN(3) {
			case 0:
				return base + 1 + uint32(r.IntN(130))
			case 1:
				return base + SegmentPages - uint32(r.IntN(130))
			default:
				return 1 + uint32(r.IntN(3*SegmentPages))
			}
		}
		for range 60 {
			switch r.IntN(7) {
			case 0, 1:
				p := page()
				l.Mark(p)
				m.dirty[p] = true
			case 2:
				p := page()
				l.SetInflight(p)
				m.inflight[p] = true
			case 3:
				p, sum := page(), r.Uint64()|1
				l.SetSum(p, sum)
				m.sums[p] = sum
			case 4:
				if r.IntN(3) == 0 {
					v := page()
					atomic.StoreUint32(&l.header.MinPages, v)
					m.min = v
				}
				l.TakeDirty(nil, nil)
				for p := range m.dirty {
					m.inflight[p] = true
				}
				clear(m.dirty)
				m.minInf, m.min = min(m.minInf, m.min), None
			case 5:
				if r.IntN(4) == 0 {
					l.ClearInflight()
					clear(m.inflight)
					m.minInf = None
				}
			case 6:
				n := page()
				if r.IntN(3) == 0 {
					n = []uint32{0, SegmentPages, 2 * SegmentPages, 3 * SegmentPages, None}[r.IntN(5)]
				}
				if r.IntN(4) == 0 {
					l.ForgetFrom(n)
					for p := range m.sums {
						if p > n {
							delete(m.sums, p)
						}
					}
				}
			}
		}
		n, floor, every := page(), page(), r.IntN(8) == 0
		var want []uint32
		var xor uint64
		known := true
		for p := uint32(1); p <= 3*SegmentPages; p++ {
			if p <= n && (every || p > floor || m.dirty[p] || m.inflight[p]) {
				want = append(want, p)
			}
			if l.Sum(p) != m.sums[p] {
				t.Fatalf("seed %d: sum of page %d is %x, want %x", seed, p, l.Sum(p), m.sums[p])
			}
			if p <= n {
				xor ^= m.sums[p]
				known = known && m.sums[p] != 0
			}
		}
		if got := slices.Collect(l.Candidates(n, floor, every)); !slices.Equal(got, want) {
			t.Fatalf("seed %d: candidates of %d pages above %d (every: %v): %d, want %d", seed, n, floor, every, got, want)
		}
		both := len(m.inflight)
		for p := range m.dirty {
			if !m.inflight[p] {
				both++
			}
		}
		if l.Pending() != both || l.header.MinPages != m.min || l.header.MinInflight != m.minInf {
			t.Fatalf("seed %d: %d pending, want %d; sizes %d and %d, want %d and %d", seed, l.Pending(), both, l.header.MinPages, l.header.MinInflight, m.min, m.minInf)
		}
		if l.Unknown(n, 0) == known {
			t.Fatalf("seed %d: Unknown(%d) = %v", seed, n, !known)
		}
		if !known {
			xor = 0
		}
		if got := l.XOR(n, 0); got != xor {
			t.Fatalf("seed %d: XOR(%d) = %x, want %x", seed, n, got, xor)
		}
	}
}

func TestTheLockPageNeedsNoEntry(t *testing.T) {
	l := newLedger(t, 3)
	l.SetSum(1, 5)
	l.SetSum(3, 6)
	if l.XOR(3, 2) != 5^6 || l.Unknown(3, 2) {
		t.Fatal("the lock page's missing entry counts")
	}
	if !l.Unknown(3, 0) || l.XOR(3, 0) != 0 {
		t.Fatal("another page's missing entry does not count")
	}
	if LockPage(4096) != 262145 || LockPage(65536) != 16385 || LockPage(512) != 2097153 {
		t.Fatal("the lock page is elsewhere")
	}
}

func TestAMarkBeyondTheLedgerCountsForAll(t *testing.T) {
	l := newLedger(t, 1)
	before := l.header.All
	l.Mark(SegmentPages + 1)
	if l.header.All != before+1 || l.Pending() != 0 {
		t.Fatalf("all went from %d to %d, %d pending", before, l.header.All, l.Pending())
	}
	if l.Sum(SegmentPages+1) != 0 || l.Sum(0) != 0 {
		t.Fatal("a page beyond the ledger has a sum")
	}
}

// Markers and a shipper at the same words: the page of a commit whose marking
// has ended is in a batch that was pinned after the commit.
func TestTakeDirtyLosesNoBit(t *testing.T) {
	const markers, commits, pages = 4, 3000, 256
	l := newLedger(t, pages)
	var published, marked [markers]atomic.Uint64 // commits of each marker
	order := make([][]uint32, markers)
	for i := range order {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		for range commits {
			order[i] = append(order[i], 1+r.Uint32N(pages))
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range markers {
		wg.Go(func() {
			for _, p := range order[i] {
				published[i].Add(1)
				// As mark() of cext does: look, then set.
				s, at := l.at(p)
				if atomic.LoadUint64(&s.dirty[at/64])&(1<<(at%64)) == 0 {
					atomic.OrUint64(&s.dirty[at/64], 1<<(at%64))
				}
				marked[i].Add(1)
			}
		})
	}
	var shipped [markers]uint64
	var pinned [pages + 1][markers]uint64 // commits at the pin of the last batch that had the page
	for total := uint64(0); total < markers*commits; {
		var upTo [markers]uint64
		total = 0
		for i := range upTo {
			upTo[i] = marked[i].Load()
			total += upTo[i]
		}
		l.TakeDirty(nil, nil)
		var now [markers]uint64
		for i := range now {
			now[i] = published[i].Load()
		}
		for p := uint32(1); p <= pages; p++ {
			s, at := l.at(p)
			if atomic.LoadUint64(&s.inflight[at/64])&(1<<(at%64)) != 0 {
				pinned[p] = now
			}
		}
		for i := range upTo {
			for n := shipped[i]; n < upTo[i]; n++ {
				if p := order[i][n]; n >= pinned[p][i] {
					t.Errorf("commit %d of marker %d: page %d was marked and is in no batch", n, i, p)
					return
				}
			}
			shipped[i] = upTo[i]
		}
		l.ClearInflight()
	}
	if n := l.Pending(); n != 0 {
		t.Errorf("%d pages pending at the end", n)
	}
}

func TestPageSumTellsPagesAndPlacesApart(t *testing.T) {
	a, b := make([]byte, 512), make([]byte, 512)
	b[511] = 1
	sums := map[uint64]string{}
	for p := range uint32(100) {
		for name, data := range map[string][]byte{"a": a, "b": b} {
			key := fmt.Sprint(p, name)
			sum := PageSum(p, data)
			if was, dup := sums[sum]; dup || sum == 0 {
				t.Fatalf("%s and %s have the sum %x", was, key, sum)
			}
			sums[sum] = key
		}
	}
}

func TestTakeDirtyTellsWhatItTook(t *testing.T) {
	l := newLedger(t, SegmentPages+70)
	want := []uint32{1, 64, 65, SegmentPages, SegmentPages + 1, SegmentPages + 70}
	for _, p := range want {
		l.Mark(p)
		if !l.Dirty(p) {
			t.Fatalf("page %d is not dirty", p)
		}
	}
	l.SetInflight(9)
	atomic.StoreUint32(&l.header.MinPages, 12)
	var got, above []uint32
	l.TakeDirty(func(p uint32) { got = append(got, p) }, func(n uint32) { above = append(above, n) })
	if !slices.Equal(got, want) || !slices.Equal(above, []uint32{12}) {
		t.Fatalf("took %d above %d", got, above)
	}
	if l.Dirty(64) || l.Dirty(0) || l.Dirty(3*SegmentPages) || l.Pending() != len(want)+1 {
		t.Fatalf("%d pending", l.Pending())
	}
	l.TakeDirty(func(p uint32) { t.Errorf("page %d again", p) }, func(n uint32) { t.Errorf("size %d again", n) })
}

// Who waits for the role of the shipper has not checked the ledger, and still tells how far
// behind the store is.
func TestPendingIsSeenByThoseWhoWait(t *testing.T) {
	l := newLedger(t, 10)
	other := open(t, strings.TrimSuffix(l.Path(), Suffix))
	if n := other.Pending(); n != 0 {
		t.Fatalf("%d pages are pending in a new ledger", n)
	}
	if err := l.Grow(3 * SegmentPages); err != nil {
		t.Fatal(err)
	}
	for _, p := range []uint32{1, 7, 2*SegmentPages + 5} {
		l.SetInflight(p)
	}
	if n := other.Pending(); n != 3 {
		t.Errorf("%d pages are pending for who waits, want 3", n)
	}
	fresh := open(t, newDatabase(t))
	if n := fresh.Pending(); n != 0 {
		t.Errorf("%d pages are pending in an empty file", n)
	}
}
