package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// allocated is what was ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// bomb is an LZ4 block that decompresses to n zeros.
func bomb(t *testing.T, n int) []byte {
	block := make([]byte, lz4.CompressBlockBound(n))
	m, err := new(lz4.Compressor).CompressBlock(make([]byte, n), block)
	if err != nil {
		t.Fatal(err)
	}
	return block[:m]
}

// frameBomb is the older encoding of a page, which decompresses to n zeros.
func frameBomb(t *testing.T, pgno uint32, n int) []byte {
	var buf bytes.Buffer
	buf.Write(binary.BigEndian.AppendUint32(nil, pgno))
	buf.Write([]byte{0, 0})
	z := lz4.NewWriter(&buf)
	if err := z.Apply(lz4.BlockSizeOption(lz4.Block4Mb)); err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(make([]byte, n)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// hostile are files that take TXID 2 to 3, and say what is not so.
func hostile(t *testing.T, w *world) map[string][]byte {
	h := w.header(3, 3)
	good, page := w.file(3, 3), w.page()
	with := func(change func(h *ltx.Header, f *craft)) []byte {
		h, f := h, newCraft(t, h)
		change(&h, f)
		head, err := h.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		return append(head, f.end()[ltx.HeaderSize:]...)
	}
	enter := func(entries ...[3]uint64) []byte {
		return with(func(_ *ltx.Header, f *craft) {
			f.page(1, page)
			f.index = nil
			for _, e := range entries {
				f.enter(e[0], e[1], e[2])
			}
		})
	}
	flip := func(at int) []byte {
		b := slices.Clone(good)
		b[at] ^= 0xff
		return b
	}
	tail := func(length uint64) []byte {
		b := slices.Clone(good)
		binary.BigEndian.PutUint64(b[len(b)-ltx.TrailerSize-8:], length)
		return b
	}
	return map[string][]byte{
		"nothing":                 {},
		"a byte":                  {1},
		"half a header":           good[:50],
		"a header":                good[:ltx.HeaderSize],
		"a header and a page":     good[:ltx.HeaderSize+200],
		"without its end":         good[:len(good)-3],
		"zeros":                   make([]byte, 5000),
		"another magic":           flip(0),
		"flags":                   flip(4),
		"page size 0":             with(func(h *ltx.Header, f *craft) { h.PageSize = 0; f.page(1, page) }),
		"page size 1000":          with(func(h *ltx.Header, f *craft) { h.PageSize = 1000; f.page(1, page) }),
		"another page size":       with(func(h *ltx.Header, f *craft) { h.PageSize = 1024; f.page(1, page) }),
		"no pages at all":         with(func(h *ltx.Header, f *craft) { h.Commit = 0 }),
		"4294967295 pages":        with(func(h *ltx.Header, f *craft) { h.Commit = 1<<32 - 1; f.page(1, page) }),
		"a million pages":         with(func(h *ltx.Header, f *craft) { h.Commit = 1e6; f.page(1, page) }),
		"one page too many":       with(func(h *ltx.Header, f *craft) { h.Commit = 21; f.page(1, page) }),
		"page 4294967295":         with(func(h *ltx.Header, f *craft) { h.Commit = 1<<32 - 1; f.page(1<<32-1, page) }),
		"another TXID":            with(func(h *ltx.Header, f *craft) { h.MinTXID, h.MaxTXID = 4, 4; f.page(1, page) }),
		"a range":                 with(func(h *ltx.Header, f *craft) { h.MinTXID = 2; f.page(1, page) }),
		"a time of long ago":      with(func(h *ltx.Header, f *craft) { h.Timestamp = -1 << 62; f.page(1, page) }),
		"a page above the size":   enter([3]uint64{21, 100, 50}),
		"pages out of order":      enter([3]uint64{2, 100, 50}, [3]uint64{1, 150, 50}),
		"a page twice":            enter([3]uint64{2, 100, 50}, [3]uint64{2, 150, 50}),
		"frames that overlap":     enter([3]uint64{2, 100, 50}, [3]uint64{3, 120, 50}),
		"a frame beyond the end":  enter([3]uint64{2, 1 << 40, 50}),
		"a frame at 2^63":         enter([3]uint64{2, 1 << 63, 50}),
		"a frame of 4 GB":         enter([3]uint64{2, 100, 1 << 32}),
		"a frame of 100 KB":       enter([3]uint64{2, 100, 100 << 10}),
		"a frame of nothing":      enter([3]uint64{2, 100, 0}),
		"a frame in the header":   enter([3]uint64{2, 0, 50}),
		"an index of nothing":     tail(0),
		"an index of 2^63":        tail(1 << 63),
		"an index of 2^64-1":      tail(1<<64 - 1),
		"an index that is longer": tail(300),
		"an index of one byte":    tail(1),
	}
}

// A file that says what is not so is an error, whatever it says, and takes little memory; and
// the connection goes on where it was once the file has gone.
func TestAHostileFileIsRefused(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(2, 20)
	files := hostile(t, w)
	last := objstore.Object{Level: 0, Min: 3, Max: 3}
	w.bucket.remove(last)
	c := w.open()
	w.reads(c, 2)
	for name, b := range files {
		o := w.bucket.put(last, b, objstore.Meta{})
		before := allocated()
		_, err := c.Begin()
		if !errors.Is(err, ltxfile.ErrCorrupt) || c.Status().State != "corrupt" {
			t.Errorf("%s: %v, state %s", name, err, c.Status().State)
		}
		if n := allocated() - before; n > 4<<20 {
			t.Errorf("%s: %d MB allocated", name, n>>20)
		}
		w.bucket.remove(o)
		w.reads(c, 2)

		// The same as the only file that there is.
		w.bucket.remove(w.bucket.all()...)
		snapshot := b
		if len(b) >= ltx.HeaderSize {
			snapshot = slices.Clone(b)
			for _, at := range []int{16, 24} { // the TXIDs
				if binary.BigEndian.Uint64(snapshot[at:]) == 3 {
					binary.BigEndian.PutUint64(snapshot[at:], 1)
				}
			}
		}
		w.bucket.put(objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: 1}, snapshot, objstore.Meta{})
		before = allocated()
		if _, err := findCold(w); !errors.Is(err, ltxfile.ErrCorrupt) {
			t.Errorf("%s, alone: %v", name, err)
		}
		if n := allocated() - before; n > 4<<20 {
			t.Errorf("%s, alone: %d MB allocated", name, n>>20)
		}
		w.bucket.clear()
		w.put(objstore.SnapshotLevel, 1, 1)
		w.put(0, 2, 2)
		w.reads(c, 2)
	}
	w.put(0, 3, 3)
	w.reads(c, 3)
}

// findCold looks for the newest state as a process does that knows none.
func findCold(w *world) (*View, error) {
	o := w.options()
	o.Timeout += time.Duration(w.bucket.last) // another source
	c, err := Open(o, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.current(), nil
}

// What only unpacking a page shows is an error of that page alone.
func TestAPageThatIsNoneIsAnErrorOfItsOwn(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.raw = true
	w.history(1, 20)
	w.commit(20, 5, 9)
	pages := w.states[3].pages
	block := func(page []byte) []byte {
		b := make([]byte, lz4.CompressBlockBound(len(page)))
		n, err := new(lz4.Compressor).CompressBlock(page, b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	good := func(pgno uint32) []byte {
		b := binary.BigEndian.AppendUint32(nil, pgno)
		b = binary.BigEndian.AppendUint16(b, ltx.PageHeaderFlagSize)
		b = binary.BigEndian.AppendUint32(b, uint32(len(block(pages[pgno]))))
		return append(b, block(pages[pgno])...)
	}
	for name, frame := range map[string][]byte{
		"another page":       good(9),
		"no page":            make([]byte, 500),
		"other flags":        append([]byte{0, 0, 0, 5, 0, 77}, good(5)[6:]...),
		"another length":     append([]byte{0, 0, 0, 5, 0, 1, 0, 0, 0, 9}, good(5)[10:]...),
		"no block":           append(good(5)[:10:10], make([]byte, len(good(5))-10)...),
		"half a block":       good(5)[:200],
		"a smaller page":     append([]byte{0, 0, 0, 5, 0, 1, 0, 0, 0, byte(len(bomb(t, 100)))}, bomb(t, 100)...),
		"a larger page":      append([]byte{0, 0, 0, 5, 0, 1, 0, 0, 0, byte(len(bomb(t, 3000)))}, bomb(t, 3000)...),
		"only its number":    {0, 0, 0, 5, 0, 1, 0},
		"a frame of 60 KB":   frameBomb(t, 5, 60<<10)[:min(560, len(frameBomb(t, 5, 60<<10)))],
		"a cut-off LZ4 file": frameBomb(t, 5, 512)[:12],
	} {
		for _, large := range []bool{false, true} { // the pages do not come with the index of a large file
			f := newCraft(t, w.header(3, 3))
			f.raw(5, frame)
			f.page(9, pages[9])
			b := f.end()
			if large {
				h := w.header(3, 3)
				h.Commit = 270
				f := newCraft(t, h)
				f.raw(5, frame)
				f.page(9, pages[9])
				for p := uint32(21); p <= 270; p++ {
					f.page(p, w.page())
				}
				b = f.end()
			}
			o := w.bucket.put(objstore.Object{Level: 0, Min: 3, Max: 3}, b, objstore.Meta{Timestamp: w.timeOf(3)})
			before := allocated()
			c := w.open(within(time.Minute + time.Duration(w.bucket.last)))
			begin(t, c)
			for p := uint32(1); p <= 20; p++ {
				got, err := readPage(c, p)
				if p == 5 {
					if !errors.Is(err, ltxfile.ErrCorrupt) {
						t.Errorf("%s: %v", name, err)
					}
				} else if err != nil || !w.states[3].same(p, got) {
					t.Errorf("%s: page %d: %v", name, p, err)
				}
			}
			if n := allocated() - before; n > 32<<20 {
				t.Errorf("%s: %d MB allocated", name, n>>20)
			}
			c.End()
			w.bucket.remove(o)
		}
	}
}

// A b-tree page may name any page as its child, itself and its parent too.
func TestHostileTreesAreOnlyReadAheadBadly(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.commit(60)
	for p := uint32(1); p <= 60; p++ {
		page := w.states[1].pages[p]
		head := page
		if p == 1 {
			head = page[100:]
		}
		head[0] = []byte{interiorTable, interiorIndex, 13, 0}[w.rnd.IntN(4)]
		binary.BigEndian.PutUint16(head[3:], uint16(w.rnd.Uint32()))
		binary.BigEndian.PutUint32(head[8:], []uint32{p, p + 1, 1, 0, 1<<32 - 1}[w.rnd.IntN(5)])
		for i := 12; i+2 <= len(head); i += 2 {
			binary.BigEndian.PutUint16(head[i:], uint16(w.rnd.IntN(520)))
		}
		for i := 300; i+4 <= len(head); i += 4 {
			binary.BigEndian.PutUint32(head[i:], w.rnd.Uint32N(70))
		}
	}
	w.ship()
	c := w.open(caching(8 << 10))
	begin(t, c)
	for range 5000 {
		p := w.rnd.Uint32N(60) + 1
		if got, err := readPage(c, p); err != nil || !w.states[1].same(p, got) {
			t.Fatalf("page %d: %v", p, err)
		}
	}
}

// A store may list whatever it likes.
func TestAHostileListingIsAnError(t *testing.T) {
	w := newWorld(t, 1, 512)
	objs := w.history(3, 20)
	for _, size := range []int64{0, 1, 99, 100, 200, 1 << 40, 1<<63 - 1, -1, -1 << 63} {
		w.bucket.set(func() {
			s := w.bucket.objects[nameOf(objs[2])]
			s.object.Size = size
			w.bucket.objects[nameOf(objs[2])] = s
		})
		before := allocated()
		if _, err := findCold(w); err == nil {
			t.Errorf("an object of %d bytes is none", size)
		}
		if n := allocated() - before; n > 4<<20 {
			t.Errorf("of %d bytes: %d MB allocated", size, n>>20)
		}
	}
}
