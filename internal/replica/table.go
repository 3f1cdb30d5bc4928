package replica

// chunkPages is how many pages one chunk of a table tells of. A refresh copies the
// chunks that it changes, 12 KB each, and the list of all, 200 KB for a database of 100 GB.
const chunkPages = 1024

// place is where a page lies.
type place struct {
	file uint32 // its id; 0: in no file
	off  int64
	size int // of the frame, in bytes
}

// chunk holds places, packed to 12 bytes each: of the files the ids, of the frames the
// offset, which may have 46 bits, above the size, which needs 17.
type chunk struct {
	file  [chunkPages]uint32
	frame [chunkPages]uint64
}

// count is how many pages it tells of.
func (c *chunk) count() (n int) {
	for _, id := range c.file {
		if id != 0 {
			n++
		}
	}
	return n
}

const sizeBits = 18

// maxOffset is the first offset that a chunk cannot hold: 64 TiB, of 5 that S3 allows.
const maxOffset = 1 << (64 - sizeBits)

// table tells for every page of one state of a database where it lies. A table is not
// changed once it is in use, so any number of readers may share it; states that follow each
// other share the chunks in which they do not differ.
type table struct {
	chunks []*chunk // nil: of none of its pages
	pages  uint32
}

// at returns the place of a page from 1 on.
func (t *table) at(pgno uint32) place {
	if pgno == 0 || pgno > t.pages {
		return place{}
	}
	c, i := t.chunks[(pgno-1)/chunkPages], (pgno-1)%chunkPages
	if c == nil {
		return place{}
	}
	return place{c.file[i], int64(c.frame[i] >> sizeBits), int(c.frame[i] & (1<<sizeBits - 1))}
}

// edit is a table being made from another one.
type edit struct {
	chunks []*chunk
	own    []uint64 // a bit for each chunk that is the edit's own
	whole  int      // chunks at the begin that the other one had no gap in
}

func (t *table) edit() *edit {
	return &edit{append([]*chunk(nil), t.chunks...), make([]uint64, (len(t.chunks)+63)/64), int(t.pages / chunkPages)}
}

// set tells where a page lies. Memory grows with the pages that are set, and 8 bytes for each
// chunk below the highest, whose number is the caller's to bound.
func (e *edit) set(pgno uint32, p place) {
	n := int((pgno - 1) / chunkPages)
	e.grow(n + 1)
	c := e.chunks[n]
	if !e.owns(n) {
		fresh := new(chunk)
		if c != nil {
			*fresh = *c
		}
		c, e.chunks[n] = fresh, fresh
		e.own[n/64] |= 1 << (n % 64)
	}
	i := (pgno - 1) % chunkPages
	c.file[i] = p.file
	c.frame[i] = uint64(p.off)<<sizeBits | uint64(p.size)
}

func (e *edit) owns(n int) bool { return e.own[n/64]&(1<<(n%64)) != 0 }

func (e *edit) grow(n int) {
	if n > len(e.chunks) {
		e.chunks = append(e.chunks, make([]*chunk, n-len(e.chunks))...)
	}
	if words := (n + 63) / 64; words > len(e.own) {
		e.own = append(e.own, make([]uint64, words-len(e.own))...)
	}
}

// end returns the table of a database of so many pages, or the first page that lies in no file
// and is not to be skipped. What was set beyond the end is forgotten, so that it
// cannot come back when the database grows again.
func (e *edit) end(pages, skip uint32) (t *table, missing uint32) {
	n := int((uint64(pages) + chunkPages - 1) / chunkPages)
	e.grow(n)
	e.chunks = e.chunks[:n:n]
	if last := pages % chunkPages; last != 0 && e.chunks[n-1] != nil {
		for i := last; i < chunkPages; i++ {
			if e.chunks[n-1].file[i] != 0 {
				e.set(uint32(n-1)*chunkPages+i+1, place{})
			}
		}
	}
	for i, c := range e.chunks {
		if i < e.whole && !e.owns(i) {
			continue
		}
		first := uint32(i)*chunkPages + 1
		for j := uint32(0); j < chunkPages && first+j <= pages && first+j != 0; j++ {
			if (c == nil || c.file[j] == 0) && first+j != skip {
				return nil, first + j
			}
		}
	}
	return &table{e.chunks, pages}, 0
}
