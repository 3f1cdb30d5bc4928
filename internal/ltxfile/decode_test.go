package ltxfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
)

// pageSink keeps what it is given.
type pageSink struct {
	t      testing.TB
	header ltx.Header
	raw    []byte
	order  []uint32 // as admitted
	sums   map[uint32]uint64

	mu    sync.Mutex
	pages map[uint32][]byte
}

func newPageSink(t testing.TB) *pageSink {
	return &pageSink{t: t, sums: map[uint32]uint64{}, pages: map[uint32][]byte{}}
}

func (s *pageSink) Begin(h ltx.Header, raw []byte) error {
	s.header, s.raw = h, slices.Clone(raw)
	return nil
}

func (s *pageSink) Admit(pgno uint32) error {
	s.order = append(s.order, pgno)
	return nil
}

func (s *pageSink) Put(first uint32, pages []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for size := int(s.header.PageSize); len(pages) > 0; pages = pages[size:] {
		s.pages[first] = slices.Clone(pages[:size])
		first++
	}
	return nil
}

func (s *pageSink) Summed(pgno uint32, sum uint64) error {
	s.sums[pgno] = sum
	return nil
}

// library reads a file with the ltx package.
func library(b []byte) (hdr ltx.Header, order []uint32, pages map[uint32][]byte, err error) {
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if err = dec.DecodeHeader(); err != nil {
		return
	}
	hdr = dec.Header()
	pages = map[uint32][]byte{}
	data := make([]byte, hdr.PageSize)
	for {
		var h ltx.PageHeader
		if err = dec.DecodePage(&h, data); err == io.EOF {
			break
		} else if err != nil {
			return
		}
		order = append(order, h.Pgno)
		pages[h.Pgno] = slices.Clone(data)
	}
	err = dec.Close()
	return
}

// beyondLibrary walks the frames of a file for what only the decoder refuses, or
// what would make the ltx package allocate without bound.
func beyondLibrary(b []byte) bool {
	var h ltx.Header
	if h.UnmarshalBinary(b) != nil || h.Validate() != nil {
		return false
	}
	page := make([]byte, h.PageSize)
	for b = b[ltx.HeaderSize:]; len(b) >= frameHead; {
		head, n := [frameHead]byte(b), uint64(binary.BigEndian.Uint32(b[6:]))
		if [ltx.PageHeaderSize]byte(head[:]) == ([ltx.PageHeaderSize]byte{}) {
			return false
		}
		// The older encoding: to walk it takes an LZ4 reader. Files of it that
		// are whole are compared in a test of their own.
		if head[5] == 0 || n > uint64(lz4.CompressBlockBound(int(h.PageSize))) {
			return true
		}
		if b = b[frameHead:]; n > uint64(len(b)) {
			return false
		}
		if got, err := lz4.UncompressBlock(b[:n], page); err == nil && got != len(page) {
			return true
		}
		b = b[n:]
	}
	return false
}

// testDecoder spares tests that decode much the making of its buffers.
var testDecoder = NewDecoder()

func compareWithLibrary(t *testing.T, b []byte) {
	s := newPageSink(t)
	ours := testDecoder.Decode(t.Context(), bytes.NewReader(b), s)
	if ours != nil && !errors.Is(ours, ErrCorrupt) {
		t.Fatalf("an error that is not ErrCorrupt: %v", ours)
	}
	if read := readAll(t, b, newPageSink(t)); (read == nil) != (ours == nil) || read != nil && !errors.Is(read, ErrCorrupt) {
		t.Fatalf("the decoder says %v, the reader %v", ours, read)
	}
	if beyondLibrary(b) {
		return
	}
	hdr, order, pages, err := library(b)
	if (ours == nil) != (err == nil) {
		t.Fatalf("the decoder says %v, the ltx package %v", ours, err)
	}
	if err != nil {
		return
	}
	s.check(hdr, order, pages)
}

func (s *pageSink) check(hdr ltx.Header, order []uint32, pages map[uint32][]byte) {
	s.t.Helper()
	if s.header != hdr || !slices.Equal(s.order, order) || len(s.pages) != len(pages) || len(s.sums) != len(pages) {
		s.t.Fatalf("header %+v and pages %v, want %+v and %v", s.header, s.order, hdr, order)
	}
	for p, data := range pages {
		if !bytes.Equal(s.pages[p], data) || s.sums[p] != ledger.PageSum(p, data) {
			s.t.Fatalf("page %d differs", p)
		}
	}
}

func TestDecoderReadsWhatTheLibraryReads(t *testing.T) {
	for i, b := range files(t) {
		hdr, order, pages, err := library(b)
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		s := newPageSink(t)
		if err := NewDecoder().Decode(t.Context(), bytes.NewReader(b), s); err != nil {
			t.Errorf("file %d, %+v: %v", i, hdr, err)
		}
		s.check(hdr, order, pages)
		if !bytes.Equal(s.raw, b[:ltx.HeaderSize]) {
			t.Errorf("file %d: its header differs", i)
		}
		s = newPageSink(t)
		if err := readAll(t, b, s); err != nil {
			t.Errorf("file %d: the reader says %v", i, err)
		}
		s.check(hdr, order, pages)
	}
}

func TestDecoderRefusesWhatTheLibraryRefuses(t *testing.T) {
	for _, b := range files(t) {
		flips := 100
		if len(b) > 100_000 {
			flips = 15
		}
		step := max(1, len(b)/flips)
		for at := 0; at < len(b); at += step {
			compareWithLibrary(t, b[:at])
			c := slices.Clone(b)
			c[at] ^= 1 << (at % 8)
			compareWithLibrary(t, c)
		}
		// The tail byte by byte: index and trailer.
		for at := max(0, len(b)-flips/2); at < len(b); at++ {
			c := slices.Clone(b)
			c[at] ^= 0x80 >> (at % 8)
			compareWithLibrary(t, c)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, b := range files(f) {
		if len(b) < 10000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { compareWithLibrary(t, b) })
}
