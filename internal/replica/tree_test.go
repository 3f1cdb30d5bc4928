package replica

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// interiorPage is a page of a b-tree above others.
func interiorPage(size int, pgno uint32, children []uint32) []byte {
	page := make([]byte, size)
	head := page
	if pgno == 1 {
		head = page[headEnd:]
	}
	head[0] = interiorTable
	last := len(children) - 1
	binary.BigEndian.PutUint16(head[3:], uint16(last))
	binary.BigEndian.PutUint32(head[8:], children[last])
	for i, c := range children[:last] {
		cell := size - 6*(i+1)
		binary.BigEndian.PutUint16(head[12+2*i:], uint16(cell))
		binary.BigEndian.PutUint32(page[cell:], c)
	}
	return page
}

func leaf(size int) []byte {
	page := make([]byte, size)
	page[0] = 13
	return page
}

// A scan reads the leaves in the order in which the pages above name them, wherever they lie.
func TestAScanIsFetchedAheadWhereverItsPagesLie(t *testing.T) {
	const size, perParent, nParents = 4096, 200, 5
	rnd := rand.New(rand.NewPCG(1, 1))
	numbers := rnd.Perm(nParents*(perParent+1) + 1)
	next := func() uint32 { // of pages that are not 1
		n := numbers[0] + 2
		numbers = numbers[1:]
		return uint32(n)
	}
	root := next()
	var above []uint32
	below := map[uint32][]uint32{}
	for range nParents {
		p := next()
		above = append(above, p)
		for range perParent {
			below[p] = append(below[p], next())
		}
	}
	var tr tree
	fetched, waited, read := map[uint32]bool{}, 0, map[uint32]bool{}
	see := func(pgno uint32, page []byte) {
		hit := fetched[pgno]
		if !hit {
			waited++
		}
		read[pgno] = true
		list := tr.note(pgno, page, 64, hit)
		if next := tr.onward(); len(list) == 0 && next != 0 && (fetched[next] || read[next]) {
			list = tr.foresee(next, interiorPage(size, next, below[next]))
		}
		for _, p := range list {
			if fetched[p] {
				t.Errorf("page %d is fetched twice", p)
			}
			fetched[p] = true
		}
	}
	see(root, interiorPage(size, root, above))
	for _, p := range above {
		see(p, interiorPage(size, p, below[p]))
		for _, l := range below[p] {
			see(l, leaf(size))
		}
	}
	// The root, the first two of its children, and the first two of the first one's.
	if most := 1 + 2 + 2; waited > most {
		t.Errorf("a scan of %d pages waited for %d, want at most %d", len(read), waited, most)
	}
	for p := range fetched {
		if !read[p] {
			t.Errorf("page %d was fetched and never read", p)
		}
	}
}

// Lookups fetch what they need: nothing is fetched ahead.
func TestLookupsFetchNothingAhead(t *testing.T) {
	const size = 4096
	rnd := rand.New(rand.NewPCG(2, 2))
	children := make([]uint32, 400)
	for i := range children {
		children[i] = uint32(i*7 + 3)
	}
	var tr tree
	ahead := len(tr.note(2, interiorPage(size, 2, children), 64, false))
	at := 0
	for range 1000 {
		for next := at; next >= at && next < at+2*maxSkip; { // the next one by chance would be a scan
			next = rnd.IntN(len(children))
			if next < at || next >= at+2*maxSkip {
				at = next
				break
			}
		}
		ahead += len(tr.note(children[at], leaf(size), 64, false))
	}
	if ahead != 0 {
		t.Errorf("%d pages were fetched ahead of lookups", ahead)
	}
}

// lookups goes n times from a page to a random leaf below one of its children, and returns how many of
// the children it waited for and which were fetched ahead, at most so many. SQLite keeps the page itself.
func lookups(t *testing.T, n, children, most int) (waited int, ahead map[uint32]bool) {
	t.Helper()
	const size, perChild = 4096, 300
	rnd := rand.New(rand.NewPCG(4, 4))
	var above []uint32
	for i := range children {
		above = append(above, uint32(10+i*(perChild+1)))
	}
	var tr tree
	ahead = map[uint32]bool{}
	here := map[uint32]bool{}
	see := func(pgno uint32, page []byte) {
		hit := here[pgno]
		list := tr.note(pgno, page, 1024, hit)
		if len(list) == 0 && !hit {
			list = tr.siblings(pgno, most-len(ahead))
		}
		for _, p := range list {
			if !slices.Contains(above, p) {
				t.Errorf("page %d was fetched ahead, which is a leaf", p)
			}
			ahead[p], here[p] = true, true
		}
		here[pgno] = true
	}
	see(2, interiorPage(size, 2, above))
	for last := -1; n > 0; n-- {
		i := rnd.IntN(children)
		for i >= last && i < last+2*maxSkip { // the next one by chance would be a scan
			i = rnd.IntN(children)
		}
		last = i
		if !here[above[i]] {
			waited++
		}
		var below []uint32
		for k := range uint32(perChild) {
			below = append(below, above[i]+1+k)
		}
		see(above[i], interiorPage(size, above[i], below))
		see(below[0]+rnd.Uint32N(perChild), leaf(size))
	}
	return waited, ahead
}

// After some lookups the next ones wait for nothing but their leaf.
func TestLookupsHaveThePagesAboveTheLeavesFetched(t *testing.T) {
	const children = 300
	waited, ahead := lookups(t, 1000, children, 1024)
	if waited > 40 || len(ahead) > children {
		t.Errorf("1000 lookups waited for %d pages above leaves, and %d of %d were fetched ahead", waited, len(ahead), children)
	}
}

func TestALookupFetchesNothingAhead(t *testing.T) {
	if _, ahead := lookups(t, 1, 300, 1024); len(ahead) > 0 {
		t.Errorf("%d pages were fetched ahead", len(ahead))
	}
}

// A database may have more pages above leaves than anybody wants.
func TestLookupsFetchAheadWithinABound(t *testing.T) {
	const most = 50
	if _, ahead := lookups(t, 200, 300, most); len(ahead) != most {
		t.Errorf("%d pages were fetched ahead, want %d", len(ahead), most)
	}
}

func TestPagesThatAreNoTreeAreNoHarm(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	var tr tree
	for i := range 20000 {
		page := make([]byte, 512<<rnd.IntN(3))
		for j := range page {
			page[j] = byte(rnd.Uint32())
		}
		page[0] = interiorTable
		if i%3 == 0 {
			copy(page, make([]byte, 20))
		}
		pgno := 1 + rnd.Uint32N(50)
		for _, p := range tr.note(pgno, page, 1+rnd.IntN(100), rnd.IntN(2) == 0) {
			_ = p
		}
		for _, p := range tr.siblings(pgno, rnd.IntN(100)-10) {
			_ = p
		}
		for _, p := range tr {
			if len(p.children) > len(page)*2 {
				t.Fatalf("%d children in a page of %d bytes", len(p.children), len(page))
			}
		}
	}
	var children []uint32
	for i := range uint32(100) {
		children = append(children, i+10)
	}
	for _, pgno := range []uint32{1, 2} {
		page := interiorPage(4096, pgno, children)
		head := page
		if pgno == 1 {
			head = page[headEnd:]
		}
		if got := childrenOf(nil, page, head); !slices.Equal(got, children) {
			t.Errorf("page %d: children %v", pgno, got)
		}
	}
}
