package ltxfile

import (
	"bufio"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// Frame is one page of a file as it lies there.
type Frame struct {
	Pgno  uint32
	Block []byte // LZ4, valid until the Reader's next method
	Sum   PageSum
}

// Reader reads one file page by page, in the file's order, and verifies what a
// Decoder verifies, on one core. It holds one compressed page and a read buffer.
type Reader struct {
	f     file
	old   *oldPages // nil where there is nothing old about the file
	shift *shift
	block []byte
	end   error // what Next returns from here on
}

// NewReader reads a file's header, and afterwards buffer bytes of src at a time.
func NewReader(src io.Reader, buffer int) (*Reader, error) {
	r := &Reader{f: file{r: bufio.NewReaderSize(src, buffer), seq: newCRC(), hash: newCRC()}}
	if _, err := r.f.readHeader(); err != nil {
		return nil, err
	}
	old, err := r.f.oldEncoding()
	if err != nil {
		return nil, err
	}
	if old {
		r.old = newOldPages(&r.f)
	}
	r.shift = shiftOf(r.f.header.PageSize)
	r.block = make([]byte, lz4.CompressBlockBound(r.f.size))
	return r, nil
}

// Header is the file's.
func (r *Reader) Header() ltx.Header { return r.f.header }

// Next returns the next page, and decompresses it to plain, which has a page's
// size and which several Readers may share. It ends with io.EOF where the file is whole;
// where it is not the error wraps ErrCorrupt, or is the source's, and the pages
// before it may be wrong.
func (r *Reader) Next(plain []byte) (Frame, error) {
	if r.end != nil {
		return Frame{}, r.end
	}
	fr, more, err := r.next(plain[:r.f.size])
	if err == nil && !more {
		if err = r.f.finish(); err == nil {
			err = io.EOF
		}
	}
	r.end = err
	return fr, err
}

func (r *Reader) next(plain []byte) (Frame, bool, error) {
	if r.old != nil {
		return r.nextOld(plain)
	}
	fr, more, err := r.f.frame()
	if err != nil || !more {
		return Frame{}, false, err
	}
	block := r.block[:fr.size]
	if _, err := io.ReadFull(r.f.r, block); err != nil {
		return Frame{}, false, short(err, "pages")
	}
	if err := unpack(fr.pgno, block, plain); err != nil {
		return Frame{}, false, err
	}
	if r.f.ltxSums() {
		r.f.ltxSum ^= ltx.ChecksumPage(fr.pgno, plain)
	}
	sum := SumPage(plain)
	r.f.hash.write(fr.head[:])
	r.f.hash = r.shift.add(r.f.hash, sum)
	return Frame{fr.pgno, block, sum}, true, nil
}

// nextOld compresses a page again: the older encoding has no block that could be
// copied.
func (r *Reader) nextOld(plain []byte) (Frame, bool, error) {
	pgno, more, err := r.old.next(plain, func(uint32) error { return nil })
	if err != nil || !more {
		return Frame{}, false, err
	}
	n, err := lz4.CompressBlock(plain, r.block, nil)
	if err != nil {
		return Frame{}, false, fmt.Errorf("compress page %d: %w", pgno, err)
	}
	return Frame{pgno, r.block[:n], SumPage(plain)}, true, nil
}

// unpack decompresses a block, which must give a page exactly.
func unpack(pgno uint32, block, page []byte) error {
	if n, err := lz4.UncompressBlock(block, page); err != nil || n != len(page) {
		return fmt.Errorf("%w: page %d does not decompress to %d bytes", ErrCorrupt, pgno, len(page))
	}
	return nil
}
