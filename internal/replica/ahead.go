package replica

import "slices"

// Reading ahead: where pages are read one after the other, those that follow are fetched before they
// are asked for, more and more of them.

const (
	// firstWindow is how many pages are fetched ahead once a page was read that follows another.
	firstWindow = 4

	// windowBytes is how much is fetched ahead at most: at 20 ms a round trip enough for
	// 200 MB/s.
	windowBytes = 4 << 20

	// maxSkip is how far apart two pages may be that are read one after the other: between the
	// leaves of a table lie those above them, and SQLite keeps some itself.
	maxSkip = 8

	// lines is how many of them are followed at a time: a join reads several tables.
	lines = 4
)

// ahead is what a connection expects to be read next.
type ahead struct {
	lines [lines]line // the one that was read last first
	tree  tree
	wide  int // how many pages were fetched for lookups that may come
	list  []uint32
	page  []byte // of further
}

// note is told of each page that was read; page is its content if all of it was. Of one that was
// in memory it is only seen whether it was expected.
func (a *ahead) note(c *Conn, pgno uint32, page []byte, hit bool) {
	v := c.current()
	most := int(min(windowBytes, c.opts.CacheSize/8) / int64(v.PageSize))
	if page != nil {
		list := a.tree.note(pgno, page, most, hit)
		if len(list) == 0 && !hit {
			// No more in all than at a time, for in a database of many gigabytes most are
			// not wanted.
			list = a.tree.siblings(pgno, most-a.wide)
			a.wide += len(list)
		}
		if len(list) == 0 {
			list = a.further(v)
		}
		if len(list) > 0 {
			c.s.ahead(v, list)
			return
		}
	}
	if from, to := a.follow(pgno, uint32(most)); from < to {
		a.list = a.list[:0]
		for p := from; p < to && p <= v.Pages; p++ {
			a.list = append(a.list, p)
		}
		c.s.ahead(v, a.list)
	}
}

// further returns pages of a scan beyond those that the tree has seen, if the page that names them
// is in memory already.
func (a *ahead) further(v *View) []uint32 {
	next := a.tree.onward()
	if next == 0 {
		return nil
	}
	a.page = slices.Grow(a.page[:0], int(v.PageSize))[:v.PageSize]
	if at := v.table.at(next); at.file == 0 || !pages.get(pageKey{at.file, next}, 0, a.page) {
		return nil
	}
	return a.tree.foresee(next, a.page)
}

// line is a run of pages that is being read: the overflow pages of a large row, a table that was
// filled in order, a database after VACUUM.
type line struct {
	next    uint32 // the page that would follow; 0: none
	reached uint32 // what is before this page was fetched or is on its way
	window  uint32 // pages; 0: no two were read yet
}

// follow returns the pages from..to-1 to fetch ahead, at most so many.
func (a *ahead) follow(pgno, most uint32) (from, to uint32) {
	i := 0
	for i < lines-1 && !a.lines[i].fits(pgno) {
		i++
	}
	l := a.lines[i]
	if l.fits(pgno) {
		from, to = l.advance(pgno, most)
	} else {
		l = line{next: pgno + 1}
	}
	copy(a.lines[1:i+1], a.lines[:i])
	a.lines[0] = l
	return from, to
}

func (l *line) fits(pgno uint32) bool {
	return l.next != 0 && pgno >= l.next && pgno-l.next < maxSkip
}

func (l *line) advance(pgno, most uint32) (from, to uint32) {
	l.next = pgno + 1
	l.reached = max(l.reached, l.next)
	l.window = max(l.window, min(firstWindow, most))
	if l.reached-l.next > l.window/2 {
		return 0, 0
	}
	from, to = l.reached, l.next+l.window
	l.reached = max(from, to)
	l.window = min(2*l.window, most)
	return from, to
}
