package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objread"
	"github.com/walferry/walferry/internal/objstore"
)

const (
	// wholeBytes is the largest file that is read whole to learn what is in it: what a writer
	// ships in a second, mostly. Its pages are likely to be wanted soon.
	wholeBytes = 128 << 10

	// tailBytes is what is read of the end of a larger one at once: the index of some
	// 6,000 pages.
	tailBytes = 64 << 10
)

// file is an object that was looked into.
type file struct {
	id     uint32
	object objstore.Object
	tail   []byte // its last bytes, until its index was read
}

// look reads the end of a file.
func (s *Source) look(ctx context.Context, o objstore.Object) (*file, error) {
	n := o.Size
	if n > wholeBytes {
		n = tailBytes
	}
	if o.Size < ltx.HeaderSize {
		return nil, fmt.Errorf("%w: %v ends in the middle of the header", ltxfile.ErrCorrupt, o)
	}
	tail := make([]byte, n)
	if err := s.get(ctx, o, o.Size-n, tail); err != nil {
		return nil, err
	}
	return &file{id: s.idOf(o), object: o, tail: tail}, nil
}

// parseHeader checks an object's header.
func parseHeader(o objstore.Object, raw []byte) (ltx.Header, error) {
	h, err := objstore.ParseHeader(o, raw)
	if err != nil {
		return h, fmt.Errorf("%w: %w", ltxfile.ErrCorrupt, err)
	}
	if h.Commit == 0 {
		return h, fmt.Errorf("%w: the header of %v says that the database has no pages", ltxfile.ErrCorrupt, o)
	}
	return h, nil
}

// index calls each with where the file's pages lie, in their order. h needs to have a page
// size, and a Commit that no page number is above.
func (s *Source) index(ctx context.Context, f *file, h ltx.Header, each func(ltxfile.Entry) error) error {
	start := f.object.Size - int64(len(f.tail))
	open := func(off, n int64) (io.ReadCloser, error) {
		if off >= start {
			b := f.tail[off-start:]
			return io.NopCloser(bytes.NewReader(b[:min(n, int64(len(b)))])), nil
		}
		return &counted{objread.NewRange(ctx, s.store, f.object, off, n), s}, nil
	}
	for e, err := range ltxfile.Index(h, f.object.Size, open) {
		if err == nil && e.Offset >= maxOffset {
			err = fmt.Errorf("%w: it has a page at %d", ltxfile.ErrCorrupt, e.Offset)
		}
		if err == nil {
			err = each(e)
		}
		if err != nil {
			return fmt.Errorf("read index of %v: %w", f.object, err)
		}
	}
	return nil
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	s *Source
}

// Read is part of io.Reader.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.s.bytes.Add(int64(n))
	return n, err
}
