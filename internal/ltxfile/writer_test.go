package ltxfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
)

// readAll gives a sink a file through a Reader.
func readAll(t testing.TB, b []byte, to *pageSink) error {
	r, err := NewReader(bytes.NewReader(b), 512)
	if err != nil {
		return err
	}
	h := r.Header()
	raw, err := h.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	_ = to.Begin(h, raw)
	plain, again := make([]byte, h.PageSize), make([]byte, h.PageSize)
	for {
		f, err := r.Next(plain)
		if err == io.EOF {
			if _, again := r.Next(plain); again != io.EOF {
				t.Fatalf("after its end the reader says %v", again)
			}
			return nil
		} else if err != nil {
			return err
		}
		if n, err := lz4.UncompressBlock(f.Block, again); err != nil || n != len(again) || !bytes.Equal(plain, again) {
			t.Fatalf("page %d is not its block", f.Pgno)
		}
		_ = to.Admit(f.Pgno)
		_ = to.Put(f.Pgno, plain)
		_ = to.Summed(f.Pgno, ledger.PageSum(f.Pgno, plain))
	}
}

// block compresses a page as the ltx package does.
func block(t testing.TB, page []byte) []byte {
	b := make([]byte, lz4.CompressBlockBound(len(page)))
	var c lz4.Compressor
	n, err := c.CompressBlock(page, b)
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	return b[:n]
}

// write makes a file as encode does, by way of a Writer.
func write(t testing.TB, hdr ltx.Header, numbers []uint32, pages map[uint32][]byte, sums bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf, t.TempDir())
	defer w.Discard()
	err := w.WriteHeader(hdr)
	for _, p := range numbers {
		if err != nil {
			break
		}
		if sums {
			err = w.WriteSum(p, block(t, pages[p]), SumPage(pages[p]))
		} else {
			err = w.WriteFrame(p, block(t, pages[p]), pages[p])
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(buf.Len()) {
		t.Errorf("the writer says %d bytes, wrote %d", w.Size(), buf.Len())
	}
	return buf.Bytes()
}

func TestTheWriterWritesWhatTheLibraryWrites(t *testing.T) {
	for size := uint32(512); size <= 65536; size *= 2 {
		pages := content(3, size, 60)
		for round := range 8 {
			commit := uint32(rand.IntN(60) + 1)
			hdr, all := plainHeader(size, commit, 1, 7), numbers(1, commit)
			if round%2 == 0 {
				hdr.MinTXID = 5
				all = slices.DeleteFunc(all, func(uint32) bool { return rand.IntN(3) == 0 })
			}
			want := encode(t, hdr, all, pages)
			if got := write(t, hdr, all, pages, round%4 < 2); !bytes.Equal(got, want) {
				t.Fatalf("page size %d, %d of %d pages: the file differs", size, len(all), commit)
			}
		}
	}
}

// Around the lock page, here at 1 GiB: pages of 64 KiB.
func TestTheWriterLeavesOutTheLockPage(t *testing.T) {
	const lock = 16385
	page := make([]byte, 65536)
	packed, sum := block(t, page), SumPage(page)
	for commit := uint32(lock - 2); commit <= lock+2; commit++ {
		var own bytes.Buffer
		w := NewWriter(&own, t.TempDir())
		if err := w.WriteHeader(plainHeader(65536, commit, 1, 1)); err != nil {
			t.Fatal(err)
		}
		for p := uint32(1); p <= commit; p++ {
			if p == lock {
				continue
			}
			if p == commit { // one is missing
				if err := w.Close(); !errors.Is(err, ErrOrder) {
					t.Fatalf("%d of %d pages: %v", p-1, commit, err)
				}
				w.err = nil // which ended it
			}
			if err := w.WriteSum(p, packed, sum); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Every page up to there is a second of work for the ltx package, so it reads the last.
	pages := map[uint32][]byte{}
	for p := uint32(lock - 2); p <= lock+2; p++ {
		pages[p] = page
	}
	got := write(t, plainHeader(65536, lock+2, 2, 2), []uint32{lock - 1, lock + 1, lock + 2}, pages, true)
	if _, order, _, err := library(got); err != nil || len(order) != 3 {
		t.Errorf("the ltx package reads %v, %v", order, err)
	}
}

// readAllLibrary is library without keeping the pages.
func readAllLibrary(b []byte) error {
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if err := dec.DecodeHeader(); err != nil {
		return err
	}
	data := make([]byte, dec.Header().PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, data); err == io.EOF {
			return dec.Close()
		} else if err != nil {
			return err
		}
	}
}

func TestTheWriterRefusesWhatMakesNoFile(t *testing.T) {
	page := content(5, 512, 1)[1]
	b := block(t, page)
	snapshot, changes := plainHeader(512, 9, 1, 3), plainHeader(512, 9, 2, 3)
	for name, c := range map[string]struct {
		h     ltx.Header
		pages []uint32
		block []byte
	}{
		"page 0":                     {changes, []uint32{0}, b},
		"a page twice":               {changes, []uint32{3, 3}, b},
		"out of order":               {changes, []uint32{3, 2}, b},
		"beyond the database":        {changes, []uint32{10}, b},
		"a snapshot from page 2":     {snapshot, []uint32{2}, b},
		"a snapshot with a hole":     {snapshot, []uint32{1, 3}, b},
		"a snapshot that ends early": {snapshot, numbers(1, 8), b},
		"an empty block":             {changes, []uint32{1}, nil},
		"a block that is too long":   {changes, []uint32{1}, make([]byte, 2000)},
		"the lock page":              {plainHeader(65536, 16386, 2, 2), []uint32{16385}, b},
		"checksums":                  {ltx.Header{Version: ltx.Version, PageSize: 512, Commit: 1, MinTXID: 1, MaxTXID: 1}, nil, b},
		"no page size":               {plainHeader(1000, 1, 1, 1), nil, b},
	} {
		w := NewWriter(io.Discard, t.TempDir())
		err := w.WriteHeader(c.h)
		for _, p := range c.pages {
			if err == nil {
				err = w.WriteSum(p, c.block, 1)
			}
		}
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if w.Close() == nil {
			t.Errorf("%s: the file was ended after %v", name, err)
		}
	}
	w := NewWriter(io.Discard, t.TempDir())
	if err := w.WriteHeader(changes); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFrame(1, b, page[:100]); !errors.Is(err, ErrOrder) {
		t.Errorf("a part of a page: %v", err)
	}
	if err := NewWriter(io.Discard, "").Close(); !errors.Is(err, ErrOrder) {
		t.Errorf("no header: %v", err)
	}
}

func TestALargeIndexGoesToAFileWithoutAName(t *testing.T) {
	dir := t.TempDir()
	page := make([]byte, 512)
	b, sum := block(t, page), SumPage(page)
	const pages = 180_000
	var own bytes.Buffer
	w := NewWriter(&own, dir)
	if err := w.WriteHeader(plainHeader(512, pages, 1, 1)); err != nil {
		t.Fatal(err)
	}
	for p := uint32(1); p <= pages; p++ {
		if err := w.WriteSum(p, b, sum); err != nil {
			t.Fatal(err)
		}
	}
	if !w.index.Spilled() {
		t.Error("the index was kept in memory")
	}
	if names, _ := os.ReadDir(dir); len(names) > 0 {
		t.Errorf("it has a name: %v", names)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.index.Spilled() {
		t.Error("the file is open after the end")
	}
	if err := readAllLibrary(own.Bytes()); err != nil {
		t.Error(err)
	}
}

// A disk that is full is an error of every step that meets it, and of Close.
func TestAWriteThatFailsEndsTheFile(t *testing.T) {
	pages := content(6, 4096, 40)
	whole := write(t, plainHeader(4096, 40, 1, 1), numbers(1, 40), pages, false)
	full := errors.New("no space left")
	for room := 0; room < len(whole); room += len(whole)/20 + 1 {
		w := NewWriter(&bounded{room, full}, t.TempDir())
		_ = w.WriteHeader(plainHeader(4096, 40, 1, 1))
		for p := uint32(1); p <= 40; p++ {
			_ = w.WriteFrame(p, block(t, pages[p]), pages[p])
		}
		if err := w.Close(); !errors.Is(err, full) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
		w.Discard()
	}
}

type bounded struct {
	room int
	err  error
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.room {
		return 0, b.err
	}
	b.room -= len(p)
	return len(p), nil
}

func ExampleWriter() {
	page := make([]byte, 512)
	packed := make([]byte, lz4.CompressBlockBound(len(page)))
	n, _ := lz4.CompressBlock(page, packed, nil)

	var out bytes.Buffer
	w := NewWriter(&out, os.TempDir())
	defer w.Discard()
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 2, MinTXID: 1, MaxTXID: 1}
	for _, err := range []error{w.WriteHeader(h), w.WriteFrame(1, packed[:n], page), w.WriteSum(2, packed[:n], SumPage(page)), w.Close()} {
		if err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(readAllLibrary(out.Bytes()))
	// Output: <nil>
}
