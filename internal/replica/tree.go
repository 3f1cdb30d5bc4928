package replica

import (
	"encoding/binary"
	"slices"
)

// Reading ahead along a b-tree: a page above the leaves names its children in the order in which a
// scan reads them, wherever they lie. https://www.sqlite.org/fileformat.html#b_tree_pages

const (
	interiorIndex = 2
	interiorTable = 5
)

// innerWindow is how many pages that are above others are fetched ahead: each names hundreds, and lies
// by itself.
const innerWindow = 8

// parents is how many pages above others are remembered: of two b-trees the ones on the way down, mostly.
const parents = 6

// parent is a page that has others below it.
type parent struct {
	pgno     uint32
	children []uint32
	next     int // the child that would follow the one that was read last
	reached  int // what is before this child was fetched or is on its way
	window   int // children; 0: no two were read in order

	lookups int // of children that are above others themselves, out of order
	wide    int // what is before this child was fetched for such lookups
}

// tree remembers the pages above those that are read, the one of which a child was read last first.
type tree [parents]parent

// note is told of each page that was read whole, and returns those to fetch ahead, at most so
// many. They are valid until the next call.
func (t *tree) note(pgno uint32, page []byte, most int, hit bool) (ahead []uint32) {
	above, at := t.find(pgno, hit)
	window := 0
	if above != nil {
		if interior(pgno, page) {
			most = min(most, innerWindow)
		}
		ahead = above.follow(at, most)
		if at > 0 { // a scan that comes from the page before goes on as fast
			window = t.window(above.children[at-1])
		}
	}
	if t.enter(parent{pgno: pgno, window: window}, page) {
		if begin := t[0].begin(); len(begin) > 0 {
			ahead = append(slices.Clip(ahead), begin...)
		}
	}
	return ahead
}

// onward returns the page whose children a scan reads after those of the present one, once all of
// those were fetched or are on their way; 0 if that is not so or it was told of already.
func (t *tree) onward() uint32 {
	p := &t[0]
	if p.window == 0 || p.reached < len(p.children) {
		return 0
	}
	for i := range t {
		at := slices.Index(t[i].children, p.pgno) + 1
		if at == 0 || at == len(t[i].children) {
			continue
		}
		if next := t[i].children[at]; t.window(next) == 0 {
			return next
		}
	}
	return 0
}

// foresee is told what is in the page that onward named, and returns the first of its children.
func (t *tree) foresee(pgno uint32, page []byte) (ahead []uint32) {
	if t.enter(parent{pgno: pgno, window: t[0].window}, page) {
		ahead = t[0].begin()
	}
	return ahead
}

// find returns the parent of a page, and the place of the page in it. The parent is the first then. With
// near it is found only where it would follow the page that was read last.
func (t *tree) find(pgno uint32, near bool) (*parent, int) {
	for i := range t {
		from, to := 0, len(t[i].children)
		if near {
			from, to = min(t[i].next, to), min(t[i].next+maxSkip, to)
		}
		if at := slices.Index(t[i].children[from:to], pgno); at >= 0 {
			p := t[i]
			copy(t[1:i+1], t[:i])
			t[0] = p
			return &t[0], from + at
		}
	}
	return nil, 0
}

func (t *tree) window(pgno uint32) int {
	for i := range t {
		if t[i].pgno == pgno {
			return t[i].window
		}
	}
	return 0
}

// enter remembers a page that is above others in place of what it was before, or of the oldest, and
// reports whether it is one. Those that lookups come through are kept longer: SQLite has them in memory and
// does not read them again, while each lookup brings others.
func (t *tree) enter(p parent, page []byte) bool {
	if !interior(p.pgno, page) {
		return false
	}
	old := parents - 1
	for old > parents/2 && t[old].lookups > 0 {
		old--
	}
	if t[old].lookups > 0 {
		old = parents - 1
	}
	for i, was := range t {
		if was.pgno != p.pgno {
			continue
		}
		old, p.lookups, p.wide = i, was.lookups, was.wide
		if was.next == 0 { // no more than foreseen
			p.window, p.reached = max(p.window, was.window), was.reached
		}
	}
	p.children = childrenOf(t[old].children[:0], page, header(p.pgno, page))
	copy(t[1:old+1], t[:old])
	t[0] = p
	return true
}

// header is a page from its b-tree header on.
func header(pgno uint32, page []byte) []byte {
	if pgno == 1 && len(page) > headEnd {
		return page[headEnd:]
	}
	return page
}

// interior reports whether a page is above others.
func interior(pgno uint32, page []byte) bool {
	kind := header(pgno, page)[0]
	return kind == interiorTable || kind == interiorIndex
}

// begin returns the children to fetch before the first of them is read: none unless a scan comes
// from the page before.
func (p *parent) begin() (ahead []uint32) {
	if p.window == 0 || p.reached > 0 {
		return nil
	}
	p.reached = min(p.window, len(p.children))
	return p.children[:p.reached]
}

// follow is told that a child was read.
func (p *parent) follow(at, most int) (ahead []uint32) {
	inOrder := at >= p.next && at < p.next+maxSkip && (p.next > 0 || p.window > 0)
	p.next = at + 1
	if !inOrder {
		p.window, p.reached = 0, 0
		return nil
	}
	p.window = max(p.window, min(firstWindow, most))
	p.reached = max(p.reached, p.next)
	if to := min(p.next+p.window, len(p.children)); p.reached < to && p.reached-p.next <= p.window/2 {
		ahead, p.reached = p.children[p.reached:to], to
		p.window = min(2*p.window, most)
	}
	return ahead
}

// maxSiblings is how many pages a lookup has fetched ahead: as many as can be on their way at a time.
const maxSiblings = aheadFlights

// siblings returns pages to fetch ahead, at most so many, once note was told of a page that had to be
// waited for. In a b-tree all children of a page are above others if one is. The next lookup will
// want another of them, anywhere, and would wait once for it and once for the leaf: so they are
// fetched, more with each lookup, and none with the first, which may be the only one.
func (t *tree) siblings(pgno uint32, most int) []uint32 {
	p := &t[1]
	if t[0].pgno != pgno || !slices.Contains(p.children, pgno) || p.window > 0 {
		return nil
	}
	p.lookups++
	from := min(p.wide, len(p.children)) // which may have become fewer
	p.wide = min(from+max(0, min(2*(p.lookups-1), maxSiblings, most)), len(p.children))
	return p.children[from:p.wide]
}

// childrenOf reads the numbers of the pages below one. head is page from its b-tree header on. Whatever the page
// holds, there are no more than fit into it.
func childrenOf(children []uint32, page, head []byte) []uint32 {
	const headerSize = 12
	if len(head) < headerSize {
		return children
	}
	cells := int(binary.BigEndian.Uint16(head[3:]))
	for i := range min(cells, (len(head)-headerSize)/2) {
		cell := int(binary.BigEndian.Uint16(head[headerSize+2*i:]))
		if cell+4 > len(page) {
			return children
		}
		children = append(children, binary.BigEndian.Uint32(page[cell:]))
	}
	return append(children, binary.BigEndian.Uint32(head[8:]))
}
