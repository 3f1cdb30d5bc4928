package ltxfile

import (
	"bufio"
	"context"
	"io"
	"runtime"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"
)

// Sink takes a file's pages.
type Sink interface {
	// Begin is told the header, raw and parsed, before anything else.
	Begin(h ltx.Header, raw []byte) error
	// Admit is told each page number, ascending and at most the header's
	// Commit, before the page is decompressed.
	Admit(pgno uint32) error
	// Put writes pages that follow each other, in the file's order, from one
	// goroutine: several would only wait for the file's lock in the kernel.
	Put(first uint32, pages []byte) error
	// Summed is told each page's ledger sum, in the file's order. Of a file
	// that is more than one chunk, Admit, Put and Summed are each called by a goroutine
	// of their own.
	Summed(pgno uint32, sum uint64) error
}

// Decoder reads LTX files of format version 3 as the ltx package's Decoder does,
// and verifies what that verifies, on every core: one goroutine parses, several
// decompress and sum, one computes the file checksum and one writes, both in order.
//
// It refuses three things more, none of which an encoder writes: an LZ4 block that
// is longer than any page of the size can need or that is not exactly one page; page numbers out
// of order, before rather than after their pages; and frames of the older encoding
// among frames of the newer one.
//
// A file of one chunk, which is what a writer ships every second, is decoded by the
// caller's goroutine alone: ten thousand of them would spend their time on
// being handed around.
//
// Nothing is allocated in proportion to a number that a file claims. A Decoder is used by one
// goroutine at a time.
type Decoder struct {
	chunks  []*chunk
	workers int
	buf     *bufio.Reader
}

func NewDecoder() *Decoder {
	workers := min(runtime.GOMAXPROCS(0), 8)
	d := &Decoder{workers: workers, buf: bufio.NewReaderSize(nil, 64<<10)}
	for range 2*workers + 4 {
		d.chunks = append(d.chunks, new(chunk))
	}
	return d
}

// Decode reads one file to its end. Pages have reached the sink before the file
// is known to be whole; an error takes nothing back.
func (d *Decoder) Decode(ctx context.Context, src io.Reader, to Sink) error {
	d.buf.Reset(src)
	defer d.buf.Reset(nil)
	f := &file{r: d.buf, sink: to, seq: newCRC(), hash: newCRC()}
	raw, err := f.readHeader()
	if err != nil {
		return err
	}
	if err := to.Begin(f.header, raw); err != nil {
		return err
	}
	old, err := f.oldEncoding()
	if err != nil {
		return err
	}
	if old {
		err = f.decodeOld()
	} else {
		err = d.decodeNew(ctx, f)
	}
	if err != nil {
		return err
	}
	return f.finish()
}

// decodeNew takes the pages from the end of the header to the end of the page block.
func (d *Decoder) decodeNew(ctx context.Context, f *file) error {
	first := d.chunks[0]
	first.reset(f.size)
	more, err := f.fill(first)
	switch {
	case err != nil:
		return err
	case more:
		return d.pipeline(ctx, f, first)
	}
	if err := first.unpack(f.size, f.ltxSums()); err != nil {
		return err
	}
	if err := f.sum(first); err != nil {
		return err
	}
	return first.runs(f.size, f.sink.Put)
}

// pipeline takes the chunk that was read first and all that follow it.
func (d *Decoder) pipeline(ctx context.Context, f *file, first *chunk) error {
	// Each has room for every chunk: only to wait for a free one blocks.
	free := make(chan *chunk, len(d.chunks))
	work := make(chan *chunk, len(d.chunks))
	order := make(chan *chunk, len(d.chunks))
	write := make(chan *chunk, len(d.chunks))
	for _, c := range d.chunks[1:] {
		free <- c
	}
	work <- first
	order <- first
	g, ctx := group.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		defer close(order)
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case c := <-free:
				c.reset(f.size)
				more, err := f.fill(c)
				if err != nil {
					return err
				}
				if len(c.frames) > 0 {
					work <- c
					order <- c
				}
				if !more {
					return nil
				}
			}
		}
	})
	for range d.workers {
		g.Go(func() error {
			for c := range work {
				if err := c.unpack(f.size, f.ltxSums()); err != nil {
					return err
				}
				close(c.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(write)
		for c := range order {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-c.done:
			}
			if err := f.sum(c); err != nil {
				return err
			}
			write <- c
		}
		return nil
	})
	g.Go(func() error {
		for c := range write {
			if err := c.runs(f.size, f.sink.Put); err != nil {
				return err
			}
			free <- c
		}
		return nil
	})
	return g.Wait()
}

// ltxSums reports that the file says what its pages' LTX checksums come to.
func (f *file) ltxSums() bool { return f.header.IsSnapshot() && !f.header.NoChecksum() }

// sum goes over the chunks in the file's order.
func (f *file) sum(c *chunk) error {
	for i := range c.frames {
		fr := &c.frames[i]
		f.hash.write(fr.head[:])
		f.hash.write(c.page(i, f.size))
		if err := f.sink.Summed(fr.pgno, fr.sum); err != nil {
			return err
		}
	}
	f.ltxSum ^= c.ltxSum
	return nil
}
