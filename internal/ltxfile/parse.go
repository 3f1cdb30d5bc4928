package ltxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// file is the state of one file's decoding.
type file struct {
	r      *bufio.Reader
	sink   Sink
	header ltx.Header
	size   int // of a page

	pages int
	last  uint32 // page number
	seq   crc    // of the page numbers

	// Of the goroutine that goes last, until it has ended.
	hash   crc
	ltxSum ltx.Checksum
}

func (f *file) readHeader() ([]byte, error) {
	raw := make([]byte, ltx.HeaderSize)
	if _, err := io.ReadFull(f.r, raw); err != nil {
		return nil, short(err, "header")
	}
	if err := f.header.UnmarshalBinary(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := f.header.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !ValidTime(f.header.Timestamp) {
		return nil, fmt.Errorf("%w: its time is %d", ErrCorrupt, f.header.Timestamp)
	}
	f.size = int(f.header.PageSize)
	f.hash.write(raw)
	return raw, nil
}

// ValidTime reports whether a header's timestamp, in milliseconds since 1970, is of a year
// that can be written in four digits; later ones have no place in JSON or in a time axis.
func ValidTime(ms int64) bool {
	const end = 253402300800000 // of the year 9999
	return ms >= 0 && ms < end
}

// short makes the end of a file where there should be more an ErrCorrupt, and
// leaves errors of the download as they are.
func short(err error, what string) error {
	if failed := new(SourceError); errors.As(err, &failed) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends in the middle of the %s", ErrCorrupt, what)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// fill parses frames until c is full or the page block ends.
func (f *file) fill(c *chunk) (more bool, err error) {
	for !c.full(f.size) {
		fr, more, err := f.frame()
		if err != nil || !more {
			return false, err
		}
		if err := f.sink.Admit(fr.pgno); err != nil {
			return false, err
		}
		at := len(c.packed)
		c.packed = c.packed[:at+fr.size]
		if _, err := io.ReadFull(f.r, c.packed[at:]); err != nil {
			return false, short(err, "pages")
		}
		c.frames = append(c.frames, fr)
	}
	return true, nil
}

// frame reads a page's header, after which its block follows. more is false where
// the page block ends, which finish reads.
func (f *file) frame() (fr frame, more bool, err error) {
	head, err := f.r.Peek(ltx.PageHeaderSize)
	if err != nil {
		return fr, false, short(err, "pages")
	}
	if [ltx.PageHeaderSize]byte(head) == ([ltx.PageHeaderSize]byte{}) {
		return fr, false, nil
	}
	if head, err = f.r.Peek(frameHead); err != nil {
		return fr, false, short(err, "pages")
	}
	fr = frame{head: [frameHead]byte(head), pgno: binary.BigEndian.Uint32(head)}
	flags, size := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint32(head[6:])
	if err := f.inOrder(fr.pgno); err != nil {
		return fr, false, err
	}
	switch {
	case flags != ltx.PageHeaderFlagSize:
		return fr, false, fmt.Errorf("%w: page %d has flags %#x", ErrCorrupt, fr.pgno, flags)
	case uint64(size) > uint64(lz4.CompressBlockBound(f.size)):
		return fr, false, fmt.Errorf("%w: page %d takes %d bytes", ErrCorrupt, fr.pgno, size)
	}
	fr.size = int(size)
	_, _ = f.r.Discard(frameHead)
	return fr, true, nil
}

// inOrder takes the number of the file's next page.
func (f *file) inOrder(pgno uint32) error {
	if pgno <= f.last || pgno > f.header.Commit {
		return fmt.Errorf("%w: page %d after page %d, of %d", ErrCorrupt, pgno, f.last, f.header.Commit)
	}
	f.last = pgno
	f.pages++
	follow(&f.seq, pgno)
	return nil
}
