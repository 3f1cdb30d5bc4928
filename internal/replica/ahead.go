package replica

// Reading ahead: where pages are read one after the other, those that follow are fetched before they
// are asked for, more and more of them. A table that was filled in order lies so, and a
// database after VACUUM.

const (
	// firstWindow is how many pages are fetched ahead once a page was read that follows another.
	firstWindow = 4

	// windowBytes is how much is fetched ahead at most: at 20 ms a round trip enough for
	// 200 MB/s.
	windowBytes = 4 << 20

	// maxSkip is how far apart pages may lie that are read one after the other: between the
	// leaves of a table lie those above them.
	maxSkip = 8

	// lines is how many of them are followed at a time: a join reads several tables.
	lines = 4
)

// stream is a line of pages that is being read.
type stream struct {
	next    uint32 // the page that would follow; 0: none
	reached uint32 // what is before this page was fetched or is on its way
	window  uint32 // pages; 0: no two were read yet
}

// streams are those of a connection, the one that was read last first.
type streams [lines]stream

// note is told of each page that was read.
func (ss *streams) note(c *Conn, pgno uint32) {
	i := 0
	for i < lines-1 && !ss[i].fits(pgno) {
		i++
	}
	st := ss[i]
	if !st.fits(pgno) {
		st = stream{next: pgno + 1}
	} else {
		st.follow(c, pgno)
	}
	copy(ss[1:i+1], ss[:i])
	ss[0] = st
}

func (st *stream) fits(pgno uint32) bool {
	return st.next != 0 && pgno >= st.next && pgno-st.next < maxSkip
}

func (st *stream) follow(c *Conn, pgno uint32) {
	v := c.current()
	most := uint32(min(windowBytes, c.opts.CacheSize/8) / int64(v.PageSize))
	st.next = pgno + 1
	st.reached = max(st.reached, st.next)
	if st.window == 0 {
		st.window = min(firstWindow, most)
	}
	if st.reached-st.next > st.window/2 {
		return
	}
	st.reached = c.s.ahead(v, st.reached, st.next+st.window)
	st.window = min(2*st.window, most)
}
