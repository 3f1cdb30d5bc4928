package ltxfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/superfly/ltx"
)

// from opens a file in memory, and counts.
func from(b []byte, opens *int) Opener {
	return func(off, n int64) (io.ReadCloser, error) {
		*opens++
		return io.NopCloser(io.NewSectionReader(bytes.NewReader(b), off, n)), nil
	}
}

func headerOf(t testing.TB, b []byte) (h ltx.Header, ok bool) {
	return h, len(b) >= ltx.HeaderSize && h.UnmarshalBinary(b[:ltx.HeaderSize]) == nil && h.Validate() == nil
}

func TestTheIndexFindsEveryPage(t *testing.T) {
	for i, b := range files(t) {
		h, order, pages, err := library(b)
		if err != nil {
			t.Fatal(err)
		}
		opens, page := 0, make([]byte, h.PageSize)
		var found []uint32
		for e, err := range Index(h, int64(len(b)), from(b, &opens)) {
			if err != nil {
				t.Fatalf("file %d: %v", i, err)
			}
			found = append(found, e.Pgno)
			if err := UnpackFrame(e, b[e.Offset:e.Offset+e.Size], page); err != nil || !bytes.Equal(page, pages[e.Pgno]) {
				t.Fatalf("file %d: page %d, %v", i, e.Pgno, err)
			}
		}
		if !slices.Equal(found, order) || opens != 2 {
			t.Errorf("file %d: %v in %d requests, want %v", i, found, opens, order)
		}
	}
}

func TestAnIndexThatIsLeftEarlyIsClosed(t *testing.T) {
	b := files(t)[1]
	h, _ := headerOf(t, b)
	open, opened, closed := from(b, new(int)), 0, 0
	for range Index(h, int64(len(b)), func(off, n int64) (io.ReadCloser, error) {
		opened++
		r, err := open(off, n)
		return closer{r, &closed}, err
	}) {
		break
	}
	if opened != 2 || closed != 2 {
		t.Errorf("opened %d, closed %d", opened, closed)
	}
}

type closer struct {
	io.Reader
	n *int
}

func (c closer) Close() error { *c.n++; return nil }

// checkIndex reads the index of a file that may say anything.
func checkIndex(t *testing.T, b []byte) {
	h, ok := headerOf(t, b)
	if !ok {
		return
	}
	last, next := uint32(0), int64(ltx.HeaderSize)
	page := make([]byte, h.PageSize)
	for e, err := range Index(h, int64(len(b)), from(b, new(int))) {
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("an error that is not ErrCorrupt: %v", err)
			}
			break
		}
		if e.Pgno <= last || e.Pgno > h.Commit || e.Offset < next || e.Offset+e.Size > int64(len(b)) || e.Size > 70_000 {
			t.Fatalf("%+v after page %d, which ends at %d, in %d bytes", e, last, next, len(b))
		}
		last, next = e.Pgno, e.Offset+e.Size
		if err := UnpackFrame(e, b[e.Offset:next], page); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("an error that is not ErrCorrupt: %v", err)
		}
	}
}

func TestAHostileIndexIsRefused(t *testing.T) {
	pages := content(7, 512, 5)
	good := encode(t, plainHeader(512, 5, 2, 2), numbers(1, 5), pages)
	h, _ := headerOf(t, good)
	indexAt := len(good) - tailSize - int(binary.BigEndian.Uint64(good[len(good)-tailSize:]))
	rebuilt := func(index ...uint64) []byte {
		b := slices.Clone(good[:indexAt])
		for _, v := range index {
			b = binary.AppendUvarint(b, v)
		}
		b = binary.BigEndian.AppendUint64(b, uint64(len(b)-indexAt))
		return append(b, make([]byte, ltx.TrailerSize)...)
	}
	length := func(n uint64) []byte {
		b := slices.Clone(good)
		binary.BigEndian.PutUint64(b[len(b)-tailSize:], n)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                  nil,
		"only a header":          good[:ltx.HeaderSize],
		"a length of 2^63":       length(1 << 63),
		"a length of 2^64 - 1":   length(1<<64 - 1),
		"a length of nothing":    length(0),
		"a length that is less":  length(3),
		"a length that is more":  length(uint64(len(good)-indexAt-tailSize) + 1),
		"all that there is":      length(uint64(len(good) - ltx.HeaderSize - tailSize)),
		"a page above the size":  rebuilt(6, 100, 50, 0),
		"pages out of order":     rebuilt(2, 100, 50, 1, 150, 50, 0),
		"a page twice":           rebuilt(2, 100, 50, 2, 150, 50, 0),
		"frames that overlap":    rebuilt(1, 100, 50, 2, 149, 50, 0),
		"a frame in the header":  rebuilt(1, 99, 50, 0),
		"a frame in the index":   rebuilt(1, uint64(indexAt)-60, 58, 0),
		"a frame of 4 GiB":       rebuilt(1, 100, 1<<32, 0),
		"an offset of 2^63":      rebuilt(1, 1<<63, 50, 0),
		"an offset that wraps":   rebuilt(1, 1<<63-1, 1<<63-1, 0),
		"a frame of nothing":     rebuilt(1, 100, 6, 0),
		"no end":                 rebuilt(1, 100, 50),
		"an end before the last": rebuilt(1, 100, 50, 0, 2),
	} {
		n, last := 0, error(nil)
		for _, err := range Index(h, int64(len(b)), from(b, new(int))) {
			n++
			last = err
		}
		if !errors.Is(last, ErrCorrupt) {
			t.Errorf("%s: %v after %d pages", name, last, n)
		}
	}
}

func TestAnIndexOfAnObjectThatIsShorterThanListed(t *testing.T) {
	b := files(t)[4]
	h, _ := headerOf(t, b)
	for _, err := range Index(h, int64(len(b))+1000, from(b, new(int))) {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v", err)
		}
		return
	}
	t.Error("no error")
}

func FuzzIndex(f *testing.F) {
	for _, b := range files(f) {
		if len(b) < 10000 {
			f.Add(b)
		}
	}
	f.Fuzz(checkIndex)
}
