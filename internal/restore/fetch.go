package restore

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

const (
	// partSize is the most that one request asks for. Large objects come in
	// parts so that they too are downloaded several at a time, in bounded memory:
	// one stream of an object store is slower than the network.
	partSize = 2 << 20

	// window is how many parts are downloaded, or wait to be applied, at a time.
	window = 8

	// stall ends a request that has not delivered its part. What has come
	// is kept, and the next try goes on from there.
	stall = 60 * time.Second
)

// part is a range of one object.
type part struct {
	object objstore.Object
	off    int64
	buf    []byte // of the range's length; valid once done is closed
	err    error
	done   chan struct{}
}

// fetcher downloads the files of a plan ahead of who reads them.
type fetcher struct {
	store objstore.Store
	parts chan *part    // in the order of the plan
	free  chan []byte   // buffers of partSize
	count func(n int64) // told of what was consumed

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// fetch starts the downloads. The caller stops the fetcher.
func fetch(ctx context.Context, store objstore.Store, files []objstore.Object, count func(int64)) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetcher{
		store:  store,
		parts:  make(chan *part, window),
		free:   make(chan []byte, window),
		count:  count,
		cancel: cancel,
	}
	for range window {
		f.free <- nil // allocated when first used: most plans are small
	}
	f.wg.Go(func() { f.run(ctx, files) })
	return f
}

// stop ends the downloads and returns when the last has ended.
func (f *fetcher) stop() {
	f.cancel()
	f.wg.Wait()
}

// run hands out parts in order, each as soon as a buffer is free.
func (f *fetcher) run(ctx context.Context, files []objstore.Object) {
	for _, o := range files {
		for off := int64(0); off < o.Size; off += partSize {
			n := int(min(partSize, o.Size-off))
			var buf []byte
			select {
			case buf = <-f.free:
			case <-ctx.Done():
				return
			}
			if cap(buf) < n {
				buf = make([]byte, n)
			}
			p := &part{object: o, off: off, buf: buf[:n], done: make(chan struct{})}
			f.parts <- p // never blocks: there are no more parts than buffers
			f.wg.Go(func() {
				p.err = f.download(ctx, p)
				close(p.done)
			})
		}
	}
}

// download fills a part, going on where a try that failed left off.
func (f *fetcher) download(ctx context.Context, p *part) error {
	got := 0
	for try := 0; ; try++ {
		n, err := f.try(ctx, p.object, p.off+int64(got), p.buf[got:])
		if n > 0 {
			got, try = got+n, 0
		}
		switch {
		case got == len(p.buf):
			return nil
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			// A connection that was cut looks like an object that ends
			// early; only the latter gives nothing when asked again.
			if n == 0 && try > 0 {
				return fmt.Errorf("%w: it ends at byte %d of %d", ErrCorrupt, p.off+int64(got), p.object.Size)
			}
		case permanent(err) || try == tries-1:
			return &ltxfile.SourceError{Err: err}
		}
		if pause(ctx, try) != nil {
			return &ltxfile.SourceError{Err: ctx.Err()}
		}
	}
}

func (f *fetcher) try(ctx context.Context, o objstore.Object, off int64, buf []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	r, err := f.store.Open(ctx, o, off, int64(len(buf)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.ReadFull(r, buf)
}

// object reads one object of the plan. Objects are read in the plan's order,
// each to its end.
type object struct {
	ctx  context.Context
	f    *fetcher
	left int64
	part *part
	rest []byte // of part
}

func (f *fetcher) next(ctx context.Context, o objstore.Object) *object {
	return &object{ctx: ctx, f: f, left: o.Size}
}

// Read returns io.EOF at the object's end, and the download's error in place of
// the part that it hit.
func (r *object) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		if err := r.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	r.left -= int64(n)
	if len(r.rest) == 0 {
		r.f.count(int64(len(r.part.buf)))
		r.f.free <- r.part.buf
		r.part = nil
	}
	return n, nil
}

func (r *object) advance() error {
	select {
	case r.part = <-r.f.parts:
	case <-r.ctx.Done():
		return &ltxfile.SourceError{Err: r.ctx.Err()}
	}
	select {
	case <-r.part.done:
	case <-r.ctx.Done():
		return &ltxfile.SourceError{Err: r.ctx.Err()}
	}
	r.rest = r.part.buf
	return r.part.err
}
