package ltxfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/superfly/ltx"
)

// finish reads what follows the pages: the empty page header that ends them,
// the page index, and the trailer with the file checksum.
func (f *file) finish() error {
	var end [ltx.PageHeaderSize]byte
	if _, err := io.ReadFull(f.r, end[:]); err != nil {
		return short(err, "pages")
	}
	f.hash.write(end[:])
	if err := f.finishIndex(); err != nil {
		return err
	}
	var raw [ltx.TrailerSize]byte
	if _, err := io.ReadFull(f.r, raw[:]); err != nil {
		return short(err, "trailer")
	}
	f.hash.write(raw[:ltx.TrailerChecksumOffset])
	var t ltx.Trailer
	if err := t.UnmarshalBinary(raw[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, err := f.r.ReadByte(); err == nil {
		return fmt.Errorf("%w: there is more after its trailer", ErrCorrupt)
	} else if err != io.EOF {
		return fmt.Errorf("read trailer: %w", err)
	}
	if sum := ltx.ChecksumFlag | ltx.Checksum(f.hash.sum()); sum != t.FileChecksum {
		return fmt.Errorf("%w: its content sums to %s, not to %s", ErrCorrupt, sum, t.FileChecksum)
	}
	if f.ltxSums() && t.PostApplyChecksum != ltx.ChecksumFlag|f.ltxSum {
		return fmt.Errorf("%w: its pages sum to %s, not to %s", ErrCorrupt, ltx.ChecksumFlag|f.ltxSum, t.PostApplyChecksum)
	}
	return nil
}

// finishIndex reads the page index, which must name the pages that were read.
func (f *file) finishIndex() error {
	x := newIndex(f.header.Commit)
	length := uint64(0)
	for {
		v, raw, err := peekTuple(f.r)
		if err != nil {
			return err
		}
		f.hash.write(raw)
		length += uint64(len(raw))
		_, _ = f.r.Discard(len(raw))
		if v[0] == 0 {
			break
		}
		if err := x.add(v[0], v[1], v[2]); err != nil {
			return err
		}
	}
	var b [8]byte
	if _, err := io.ReadFull(f.r, b[:]); err != nil {
		return short(err, "page index")
	}
	f.hash.write(b[:])
	if n := binary.BigEndian.Uint64(b[:]); n != length {
		return fmt.Errorf("%w: its page index has %d bytes and says %d", ErrCorrupt, length, n)
	}
	if x.n != f.pages || x.seq != f.seq {
		return fmt.Errorf("%w: its page index is not that of its pages", ErrCorrupt)
	}
	return nil
}

// peekTuple returns the next three numbers of a page index, or the 0 that ends it,
// and the bytes that they take.
func peekTuple(r *bufio.Reader) (v [3]uint64, raw []byte, err error) {
	// Three varints and what lies behind the last of them; where the file is
	// shorter than that, all that there is.
	b, err := r.Peek(3 * binary.MaxVarintLen64)
	if err != nil && err != io.EOF {
		return v, nil, fmt.Errorf("read page index: %w", err)
	}
	used := 0
	for i := range v {
		n := 0
		if v[i], n = binary.Uvarint(b[used:]); n < 0 {
			return v, nil, fmt.Errorf("%w: a number in its page index is too large", ErrCorrupt)
		} else if n == 0 {
			return v, nil, short(io.EOF, "page index")
		}
		if used += n; v[0] == 0 {
			break
		}
	}
	return v, b[:used], nil
}
