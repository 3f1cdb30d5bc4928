package compact

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objread"
	"github.com/walferry/walferry/internal/objstore"
)

// readAhead is how many bytes of each input are read at a time. With as much again
// for a page of the largest size, fanIn inputs take some 12 MiB.
const readAhead = 128 << 10

// input is one file to be merged.
type input struct {
	name     string // for errors
	min, max ltx.TXID
	open     func(ctx context.Context) io.ReadCloser
}

// section is a file that an earlier stage has written.
func section(r io.ReaderAt, off, size int64, minTXID, maxTXID ltx.TXID) input {
	return input{
		name: "temporary file of " + ltx.FormatFilename(minTXID, maxTXID),
		min:  minTXID, max: maxTXID,
		open: func(context.Context) io.ReadCloser { return io.NopCloser(io.NewSectionReader(r, off, size)) },
	}
}

func stored(store objstore.Store, o objstore.Object) input {
	return input{
		name: o.String(), min: o.Min, max: o.Max,
		open: func(ctx context.Context) io.ReadCloser { return source{objread.New(ctx, store, o)} },
	}
}

// source reads an object. It fills the buffer that it is given as far as the object
// goes, so that the request for a small one ends with the first Read: a merge may have
// many inputs open.
type source struct{ *objread.Reader }

// Read is part of io.Reader.
func (s source) Read(b []byte) (int, error) {
	n, err := io.ReadFull(s.Reader, b)
	switch err {
	case io.ErrUnexpectedEOF:
		err = nil
	case io.EOF:
	default:
		return n, err
	}
	_ = s.Close() // all of it was read
	return n, err
}

// cursor is at one page of an input.
type cursor struct {
	input
	src    io.ReadCloser
	reader *ltxfile.Reader
	header ltx.Header
	frame  ltxfile.Frame
	ended  bool // and the file was whole

	// grown is the last page of the database with what this input has added so
	// far, or more than any where it is not known: those by which it grows must be there.
	grown uint32
}

// start reads an input's header.
func (in input) start(ctx context.Context) (*cursor, error) {
	c := &cursor{input: in, src: in.open(ctx)}
	var err error
	if c.reader, err = ltxfile.NewReader(c.src, readAhead); err == nil {
		c.header = c.reader.Header()
		if c.header.MinTXID != in.min || c.header.MaxTXID != in.max {
			err = fmt.Errorf("%w: its header says that it is %s", ltxfile.ErrCorrupt, ltx.FormatFilename(c.header.MinTXID, c.header.MaxTXID))
		}
	}
	if err != nil {
		c.src.Close()
		return nil, c.failed(err)
	}
	return c, nil
}

func (c *cursor) failed(err error) error { return fmt.Errorf("%s: %w", c.name, err) }

// next moves to the next page; plain is a page's room to work in. A file is closed
// as soon as it has ended, and its buffers let go.
func (c *cursor) next(plain []byte) error {
	lock := ltx.LockPgno(c.header.PageSize)
	f, err := c.reader.Next(plain)
	if errors.Is(err, io.EOF) {
		if want := ltxfile.After(c.grown, lock); c.grown < c.header.Commit && want <= c.header.Commit {
			return c.failed(fmt.Errorf("%w: page %d is missing, of %d", ltxfile.ErrCorrupt, want, c.header.Commit))
		}
		c.ended, c.reader, c.frame = true, nil, ltxfile.Frame{}
		_ = c.src.Close() // all of it is here
		return nil
	}
	if err != nil {
		return c.failed(err)
	}
	if f.Pgno == lock {
		return c.failed(fmt.Errorf("%w: it holds the lock page, %d", ltxfile.ErrCorrupt, lock))
	}
	if f.Pgno > c.grown {
		if want := ltxfile.After(c.grown, lock); f.Pgno != want {
			return c.failed(fmt.Errorf("%w: page %d is missing before page %d", ltxfile.ErrCorrupt, want, f.Pgno))
		}
		c.grown = f.Pgno
	}
	c.frame = f
	return nil
}
