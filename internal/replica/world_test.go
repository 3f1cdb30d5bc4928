package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// image is a database: its pages, of which only the lock page may be missing.
type image struct {
	commit uint32
	pages  map[uint32][]byte
}

// world is a database with its history, and the replica of it. What the pages hold is random.
type world struct {
	t        testing.TB
	rnd      *rand.Rand
	bucket   *bucket
	pageSize uint32
	head     ltx.TXID
	states   map[ltx.TXID]image
	changed  map[ltx.TXID][]uint32
	begin    time.Time // of TXID 0; each is a second later
	raw      bool      // pages do not compress, so that their frames have one size
	blocks   map[*byte][]byte
}

func newWorld(t testing.TB, seed uint64, pageSize uint32) *world {
	return (&world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), bucket: newBucket(t), pageSize: pageSize, blocks: map[*byte][]byte{}}).fresh(time.UnixMilli(1700000000000))
}

// fresh is another database, which ships to the same place.
func (w *world) fresh(begin time.Time) *world {
	is := *w
	is.head, is.states, is.changed, is.begin = 0, map[ltx.TXID]image{}, map[ltx.TXID][]uint32{}, begin.UTC()
	return &is
}

func (w *world) lock() uint32 { return ltx.LockPgno(w.pageSize) }

// page is new content.
func (w *world) page() []byte {
	b := make([]byte, w.pageSize)
	n := len(b) / 2
	if w.raw {
		n = len(b)
	}
	for i := 0; i+8 <= n; i += 8 {
		binary.BigEndian.PutUint64(b[i:], w.rnd.Uint64())
	}
	copy(b[len(b)-8:], fmt.Sprintf("%08x", w.rnd.Uint32()))
	return b
}

// commit is a transaction that leaves the database with a size and changes pages, besides
// those by which it grows.
func (w *world) commit(size uint32, pages ...uint32) {
	was := w.states[w.head]
	w.head++
	is := image{size, maps.Clone(was.pages)}
	if is.pages == nil {
		is.pages = map[uint32][]byte{}
	}
	maps.DeleteFunc(is.pages, func(p uint32, _ []byte) bool { return p > size })
	changed := slices.Clone(pages)
	for p := was.commit + 1; p <= size; p++ {
		changed = append(changed, p)
	}
	slices.Sort(changed)
	changed = slices.DeleteFunc(slices.Compact(changed), func(p uint32) bool { return p == w.lock() || p > size })
	for _, p := range changed {
		is.pages[p] = w.page()
	}
	w.states[w.head], w.changed[w.head] = is, changed
}

// step is a random transaction of a database of at most so many pages.
func (w *world) step(most uint32) {
	size := max(w.states[w.head].commit, 1)
	switch w.rnd.IntN(4) {
	case 0:
		size = w.rnd.Uint32N(most) + 1
	case 1:
		size = min(size+w.rnd.Uint32N(5), most)
	}
	var pages []uint32
	for range w.rnd.IntN(6) + 1 {
		pages = append(pages, w.rnd.Uint32N(size)+1)
	}
	w.commit(size, pages...)
}

func (w *world) timeOf(txid ltx.TXID) time.Time {
	return w.begin.Add(time.Duration(txid) * time.Second)
}

// header is that of a file that takes the database from before one TXID to another.
func (w *world) header(from, to ltx.TXID) ltx.Header {
	return ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: w.pageSize, Commit: w.states[to].commit,
		MinTXID: from, MaxTXID: to, Timestamp: w.timeOf(to).UnixMilli(), WALOffset: 32, NodeID: 100 + uint64(to),
	}
}

// file is what a file of the ltx package is but for checksums, which nothing here looks at: that package
// takes its time.
func (w *world) file(from, to ltx.TXID) []byte {
	f := newCraft(w.t, w.header(from, to))
	f.blocks = w.blocks
	for _, p := range w.numbers(from, to) {
		f.page(p, w.states[to].pages[p])
	}
	return f.end()
}

// numbers are those of a file's pages.
func (w *world) numbers(from, to ltx.TXID) (numbers []uint32) {
	is := w.states[to]
	for t := from; t <= to && from > 1; t++ {
		numbers = append(numbers, w.changed[t]...)
	}
	if from == 1 {
		numbers = slices.Collect(maps.Keys(is.pages))
	}
	slices.Sort(numbers)
	return slices.DeleteFunc(slices.Compact(numbers), func(p uint32) bool { return p > is.commit })
}

// encoded is the file as the ltx package makes it.
func (w *world) encoded(from, to ltx.TXID) []byte {
	w.t.Helper()
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(w.header(from, to))
	}
	for _, p := range w.numbers(from, to) {
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: p}, w.states[to].pages[p])
		}
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return buf.Bytes()
}

// put stores a file.
func (w *world) put(level int, from, to ltx.TXID) objstore.Object {
	w.t.Helper()
	m := objstore.Meta{Timestamp: w.timeOf(to), Window: objstore.Window{Epoch: 0xabc, Number: uint64(to)}}
	return w.bucket.put(objstore.Object{Level: level, Min: from, Max: to}, w.file(from, to), m)
}

// ship stores the last transaction as walferry does.
func (w *world) ship() objstore.Object {
	w.t.Helper()
	if w.head == 1 {
		return w.put(objstore.SnapshotLevel, 1, 1)
	}
	return w.put(0, w.head, w.head)
}

// history is a snapshot of some pages and n objects of level 0 after it.
func (w *world) history(n int, pages uint32) (objs []objstore.Object) {
	w.t.Helper()
	w.commit(pages)
	objs = append(objs, w.ship())
	for range n {
		w.commit(pages, w.rnd.Uint32N(pages)+1)
		objs = append(objs, w.ship())
	}
	return objs
}

func (w *world) options() Options {
	return Options{URL: w.bucket.url, Timeout: 20 * time.Second, CacheSize: 16 << 20}
}

// open opens a connection that looks for the newest state each time, with changes.
func (w *world) open(change ...func(*Options)) *Conn {
	w.t.Helper()
	c := w.opened(change...)
	w.t.Cleanup(c.Close)
	return c
}

func caching(bytes int64) func(*Options)    { return func(o *Options) { o.CacheSize = bytes } }
func polled(d time.Duration) func(*Options) { return func(o *Options) { o.Poll = d } }
func within(d time.Duration) func(*Options) { return func(o *Options) { o.Timeout = d } }
func atTXID(t ltx.TXID) func(*Options)      { return func(o *Options) { o.TXID = t.String() } }

func begin(t testing.TB, c *Conn) {
	t.Helper()
	if _, err := c.Begin(); err != nil {
		t.Fatal(err)
	}
}

// readPage reads one page of what a connection reads.
func readPage(c *Conn, pgno uint32) ([]byte, error) {
	size := int(c.current().PageSize)
	b := make([]byte, size)
	n, err := c.ReadAt(b, int64(pgno-1)*int64(size))
	return b[:n], err
}

// dressed are the bytes of page 1 that are not the database's own.
var dressed = [][2]int{{headWriteVersion, headWriteVersion + 2}, {headChange, headPages + 4}, {headSchema, headSchema + 1}, {headValidFor, headValidFor + 4}}

// undressed is page 1 without them.
func undressed(page []byte) []byte {
	page = bytes.Clone(page)
	for _, part := range dressed {
		clear(page[part[0]:part[1]])
	}
	return page
}

// same reports whether a page that was read is one of a state's.
func (s image) same(pgno uint32, got []byte) bool {
	want := s.pages[pgno]
	if want == nil {
		want = make([]byte, len(got)) // the page of SQLite's locks
	}
	if pgno == 1 {
		got, want = undressed(got), undressed(want)
	}
	return bytes.Equal(got, want)
}

// holds reads everything, and compares it.
func (w *world) holds(c *Conn, txid ltx.TXID) {
	w.t.Helper()
	want := w.states[txid]
	if c.TXID() != txid || c.Size() != int64(want.commit)*int64(w.pageSize) {
		w.t.Fatalf("TXID %s with %d bytes, want %s with %d pages", c.TXID(), c.Size(), txid, want.commit)
	}
	for p := uint32(1); p <= want.commit; p++ {
		got, err := readPage(c, p)
		if err != nil {
			w.t.Fatal(err)
		}
		if !want.same(p, got) {
			w.t.Fatalf("page %d of TXID %s is not what it was", p, txid)
		}
	}
}

// reads is one transaction of the newest state.
func (w *world) reads(c *Conn, txid ltx.TXID) {
	w.t.Helper()
	begin(w.t, c)
	w.holds(c, txid)
	c.End()
}
