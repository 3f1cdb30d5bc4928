package ltxfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// Entry tells where a page's frame lies in a file.
type Entry struct {
	Pgno   uint32
	Offset int64
	Size   int64 // of the frame: at most some 66 KB
}

// Opener reads n bytes of one file from an offset, as objstore's Open does.
type Opener func(off, n int64) (io.ReadCloser, error)

// frameSlack is what a frame may take beyond its block at its worst: the page header,
// and what the older encoding has around a block.
const frameSlack = 64

// tailSize is the length of the page index, and the trailer.
const tailSize = 8 + ltx.TrailerSize

// Index reads a file's page index: the file's last bytes, which tell its length, and
// then the index itself, as a stream, with a request each. h is the file's header
// and size its length.
//
// Pages ascend and are at most the file's Commit; frames ascend too, do not overlap
// and lie between the header and the index, whatever the file says. That the frames are
// there, and all that were written, only the file's checksum proves, which takes
// reading all of it. The sequence ends with the first error, which wraps ErrCorrupt or
// is the opener's.
func Index(h ltx.Header, size int64, open Opener) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := readIndex(h, size, open, func(e Entry) bool { return yield(e, nil) }); err != nil {
			yield(Entry{}, err)
		}
	}
}

func readIndex(h ltx.Header, size int64, open Opener, yield func(Entry) bool) error {
	const least = ltx.HeaderSize + ltx.PageHeaderSize + 1 + tailSize
	if size < least {
		return fmt.Errorf("%w: it has %d bytes", ErrCorrupt, size)
	}
	var tail [tailSize]byte
	if err := readAt(open, size-tailSize, tail[:]); err != nil {
		return short(err, "trailer")
	}
	length := binary.BigEndian.Uint64(tail[:])
	if length == 0 || length > uint64(size-least+1) {
		return fmt.Errorf("%w: its page index has %d bytes, it %d", ErrCorrupt, length, size)
	}

	// The empty page header before the index is read too: it must be there.
	start := size - tailSize - int64(length) - ltx.PageHeaderSize
	src, err := open(start, ltx.PageHeaderSize+int64(length))
	if err != nil {
		return fmt.Errorf("read page index: %w", err)
	}
	defer src.Close()
	r := bufio.NewReaderSize(io.LimitReader(src, ltx.PageHeaderSize+int64(length)), int(min(64<<10, length+1024)))
	var end [ltx.PageHeaderSize]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return short(err, "page index")
	} else if end != ([ltx.PageHeaderSize]byte{}) {
		return fmt.Errorf("%w: its page index does not begin behind its pages", ErrCorrupt)
	}
	x, most := newIndex(h.Commit), uint64(lz4.CompressBlockBound(int(h.PageSize))+frameSlack)
	for read := uint64(0); ; {
		v, raw, err := peekTuple(r)
		if err != nil {
			return err
		}
		if read += uint64(len(raw)); v[0] == 0 {
			if read != length {
				return fmt.Errorf("%w: its page index has %d bytes and says %d", ErrCorrupt, read, length)
			}
			return nil
		}
		_, _ = r.Discard(len(raw))
		if err := x.add(v[0], v[1], v[2]); err != nil {
			return err
		}
		if v[2] > most || v[1]+v[2] > uint64(start) {
			return fmt.Errorf("%w: the index gives page %d %d bytes at %d, of %d", ErrCorrupt, v[0], v[2], v[1], start)
		}
		if !yield(Entry{uint32(v[0]), int64(v[1]), int64(v[2])}) {
			return nil
		}
	}
}

func readAt(open Opener, off int64, b []byte) error {
	r, err := open(off, int64(len(b)))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, b)
	return err
}

// UnpackFrame decompresses the frame that an index's entry names, read from there,
// to a page. The error wraps ErrCorrupt where it is not that page's.
func UnpackFrame(e Entry, frame, page []byte) error {
	if len(frame) < frameHead || binary.BigEndian.Uint32(frame) != e.Pgno {
		return fmt.Errorf("%w: there is no page %d at %d", ErrCorrupt, e.Pgno, e.Offset)
	}
	block := frame[frameHead:]
	switch flags := binary.BigEndian.Uint16(frame[4:]); {
	case flags == 0:
		return unpackOld(e.Pgno, frame[ltx.PageHeaderSize:], page)
	case flags != ltx.PageHeaderFlagSize || uint64(binary.BigEndian.Uint32(frame[6:])) != uint64(len(block)):
		return fmt.Errorf("%w: page %d at %d is not %d bytes long", ErrCorrupt, e.Pgno, e.Offset, len(frame))
	}
	return unpack(e.Pgno, block, page)
}
