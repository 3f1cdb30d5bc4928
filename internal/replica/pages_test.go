package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

func TestTheseTestsFilesAreThoseOfTheFormat(t *testing.T) {
	w := newWorld(t, 1, 1024)
	w.history(3, 20)
	for _, from := range []ltx.TXID{1, 2, 4} {
		got, want := w.file(from, 4), w.encoded(from, 4)
		if n := len(want) - ltx.TrailerSize; len(got) != len(want) || !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("%d bytes, not the %d of the ltx package", len(got), len(want))
		}
	}
}

func TestEveryPageIsWhatItWasAtEveryPageSize(t *testing.T) {
	for size := uint32(512); size <= 65536; size *= 2 {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, uint64(size), size)
			c := (*Conn)(nil)
			for _, pages := range []uint32{3, 40, 40, 7, 1, 60, 59} { // it grows and shrinks
				w.commit(pages, 1, pages, w.rnd.Uint32N(pages)+1)
				w.ship()
				if c == nil {
					c = w.open()
				}
				w.reads(c, w.head)
			}
			cold := w.open()
			for txid := w.head; txid > 0; txid-- {
				if err := cold.PinTXID(txid); err != nil {
					t.Fatal(err)
				}
				w.reads(cold, txid)
			}
			// As merged files, and each state from a snapshot of its own.
			w.put(1, 2, 4)
			w.put(2, 2, 7)
			w.put(objstore.SnapshotLevel, 1, 6)
			for _, o := range w.bucket.all() {
				if o.Level == 0 || o.Level == 9 && o.Max == 1 {
					w.bucket.remove(o)
				}
			}
			w.put(objstore.SnapshotLevel, 1, 3)
			for _, txid := range []ltx.TXID{7, 6, 4, 3} {
				if err := cold.PinTXID(txid); err != nil {
					t.Fatal(err)
				}
				w.reads(cold, txid)
			}
		})
	}
}

// Litestream's first file may lie at level 0, with all pages, and so may any other.
func TestAFirstFileOfLevel0IsEnough(t *testing.T) {
	w := newWorld(t, 1, 1024)
	w.commit(30)
	w.put(0, 1, 1)
	c := w.open()
	w.reads(c, 1)
	w.commit(35, 3)
	w.put(0, 2, 2)
	w.reads(c, 2)
	var all []uint32
	for p := range uint32(20) {
		all = append(all, p+1)
	}
	w.commit(20, all...)
	w.put(0, 3, 3)
	w.reads(c, 3)
	w.reads(w.open(), 3)
}

func TestAnyPartOfTheFileCanBeRead(t *testing.T) {
	w := newWorld(t, 1, 1024)
	w.history(2, 20)
	c := w.open()
	begin(t, c)
	whole := make([]byte, 20*1024)
	if n, err := c.ReadAt(whole, 0); n != len(whole) || err != nil {
		t.Fatal(n, err)
	}
	for range 500 {
		off := w.rnd.IntN(22 * 1024)
		b := bytes.Repeat([]byte{0xee}, w.rnd.IntN(3000))
		n, err := c.ReadAt(b, int64(off))
		if want := min(max(len(whole)-off, 0), len(b)); n != want || err != nil {
			t.Fatalf("%d bytes at %d: %d, %v", len(b), off, n, err)
		}
		if n > 0 && !bytes.Equal(b[:n], whole[off:off+n]) {
			t.Fatalf("%d bytes at %d are others than when all is read", len(b), off)
		}
	}
}

// SQLite finds no WAL here, and sees by a counter that the file has changed, and only then.
func TestTheHeaderIsThatOfADatabaseWithoutAWAL(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(1, 10)
	c := w.open()
	header := func() (counter uint32) {
		t.Helper()
		begin(t, c)
		defer c.End()
		b := make([]byte, 100)
		if _, err := c.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		counter = binary.BigEndian.Uint32(b[headChange:])
		if b[18] != 1 || b[19] != 1 || binary.BigEndian.Uint32(b[headValidFor:]) != counter ||
			int64(binary.BigEndian.Uint32(b[headPages:]))*512 != c.Size() {
			t.Fatalf("%x", b)
		}
		part := make([]byte, 16) // as SQLite asks for it
		if _, err := c.ReadAt(part, headChange); err != nil || !bytes.Equal(part, b[headChange:headChange+16]) {
			t.Fatalf("%x, %v, want %x", part, err, b[headChange:headChange+16])
		}
		return counter
	}
	first := header()
	if again := header(); again != first {
		t.Errorf("nothing has changed, and the counter goes from %d to %d", first, again)
	}
	seen := map[uint32]bool{first: true}
	changed := func(what string) {
		t.Helper()
		if n := header(); seen[n] {
			t.Errorf("%s: the counter is %d again", what, n)
		} else {
			seen[n] = true
		}
	}
	for range 3 {
		w.commit(10, 5)
		w.ship()
		changed("a commit")
	}
	if err := c.PinTXID(2); err != nil {
		t.Fatal(err)
	}
	changed("a state of the past")
	if err := c.PinAt(latest); err != nil {
		t.Fatal(err)
	}
	changed("the newest again")
}

// The page of SQLite's locks lies at 1 GiB, so the database up to there is one page over and over.
func TestThePageOfLocksIsZeros(t *testing.T) {
	const lock = 16385
	w := newWorld(t, 1, 65536)
	common, pages := make([]byte, 65536), map[uint32][]byte{}
	copy(common, "a page")
	file := func(from, to ltx.TXID, commit uint32, numbers ...uint32) []byte {
		h := w.header(from, to)
		h.Commit = commit
		f := newCraft(t, h)
		for _, p := range numbers {
			page := pages[p]
			if page == nil {
				page = common
			}
			f.page(p, page)
		}
		return f.end()
	}
	upTo := func(n uint32) (numbers []uint32) {
		for p := uint32(1); p <= n; p++ {
			if p != lock {
				numbers = append(numbers, p)
			}
		}
		return numbers
	}
	put := func(level int, from, to ltx.TXID, b []byte) objstore.Object {
		return w.bucket.put(objstore.Object{Level: level, Min: from, Max: to}, b, objstore.Meta{Timestamp: w.timeOf(to)})
	}
	check := func(c *Conn, commit uint32) {
		t.Helper()
		begin(t, c)
		defer c.End()
		if c.Size() != int64(commit)*65536 {
			t.Fatalf("%d pages, want %d", c.Size()/65536, commit)
		}
		for _, p := range []uint32{2, lock - 1, lock, lock + 1, lock + 2} {
			want := pages[p]
			switch {
			case p > commit:
				want = nil
			case p == lock:
				want = make([]byte, 65536)
			case want == nil:
				want = common
			}
			if got, err := readPage(c, p); err != nil || !bytes.Equal(got, want) {
				t.Errorf("page %d of %d: %v", p, commit, err)
			}
		}
	}
	put(objstore.SnapshotLevel, 1, 1, file(1, 1, lock-2, upTo(lock-2)...))
	c := w.open()
	check(c, lock-2)
	for p := uint32(lock - 1); p <= lock+2; p++ {
		pages[p] = w.page()
	}
	for i, step := range []struct {
		commit uint32
		pages  []uint32
	}{{lock - 1, []uint32{lock - 1}}, {lock + 2, []uint32{lock + 1, lock + 2}}, {lock - 1, []uint32{1}}, {lock, []uint32{1}}, {lock + 1, []uint32{lock + 1}}} {
		put(0, ltx.TXID(i+2), ltx.TXID(i+2), file(ltx.TXID(i+2), ltx.TXID(i+2), step.commit, step.pages...))
		check(c, step.commit)
		check(w.open(), step.commit)
	}
	was := w.bucket.all()
	put(0, 7, 7, file(7, 7, lock+2, lock+2))
	put(objstore.SnapshotLevel, 1, 7, file(1, 7, lock+2, upTo(lock+2)...))
	w.bucket.remove(was...)
	check(c, lock+2)
	put(0, 8, 8, file(8, 8, lock+2, lock))
	if _, err := c.Begin(); err == nil {
		t.Error("a page of locks with content")
	}
}

// SQLite reads the schema anew where its number has changed, so that of another schema must have another.
func TestAnotherSchemaHasAnotherNumber(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.raw = true
	cookie := func(w *world, n uint32) {
		binary.BigEndian.PutUint32(w.states[w.head].pages[1][headSchema:], n)
	}
	w.commit(10)
	cookie(w, 7)
	w.ship()
	c := w.open()
	number := func() uint32 {
		t.Helper()
		begin(t, c)
		defer c.End()
		page, err := readPage(c, 1)
		if err != nil {
			t.Fatal(err)
		}
		part := make([]byte, 8)
		if _, err := c.ReadAt(part, headSchema-2); err != nil || !bytes.Equal(part, page[headSchema-2:headSchema+6]) {
			t.Fatalf("%x, %v", part, err)
		}
		return binary.BigEndian.Uint32(page[headSchema:])
	}
	if n := number(); n != 7 {
		t.Errorf("the database's own is 7, not %d", n)
	}
	// Only what is before the schema changes, as where a page becomes free.
	w.commit(10, 3)
	w.states[2].pages[1] = bytes.Clone(w.states[1].pages[1])
	w.states[2].pages[1][headSchema-8] ^= 1
	w.changed[2] = []uint32{1, 3}
	w.ship()
	if n := number(); n != 7 {
		t.Errorf("nothing of the schema has changed, and its number is %d", n)
	}
	w.commit(10, 1)
	cookie(w, 8)
	w.ship()
	if n := number(); n != 8 {
		t.Errorf("a change of the schema gives number %d", n)
	}
	// A writer whose power was cut has undone commits, and goes on with other ones.
	w.commit(10, 1)
	cookie(w, 8)
	w.ship()
	undone := number()
	if undone == 8 {
		t.Error("another schema has the number of the one before")
	}
	if n := number(); n != undone {
		t.Errorf("read again the number is %d, and was %d", n, undone)
	}
	seen := map[uint32]bool{7: true, 8: true, undone: true}
	for range 5 { // another database takes the place
		w.bucket.clear()
		w = w.fresh(w.begin.Add(1 << 40))
		w.commit(10)
		cookie(w, 8)
		w.ship()
		n := number()
		if seen[n] {
			t.Errorf("another database has the number %d, that was there before", n)
		}
		seen[n] = true
	}
}
