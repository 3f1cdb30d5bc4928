package restore

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

const (
	// partSize is the most that one request asks for. Large objects come in
	// parts so that they too are downloaded several at a time, in bounded memory:
	// one stream of an object store is slower than the network.
	partSize = 2 << 20

	// windowBytes is how much is downloaded, or waits to be applied, at a time.
	windowBytes = 8 * partSize

	// windowParts is how many parts that may be: of small objects every one
	// takes a round trip, and what a part needs beside its bytes is bounded by this. It
	// is how many connections objstore keeps: enough for two cores to be busy with a
	// server 20 ms away; more were measured to gain nothing.
	windowParts = 192

	// stall ends a request that has not delivered its part. What has come
	// is kept, and the next try goes on from there.
	stall = 60 * time.Second
)

// span is a range of an object, at most partSize long.
type span struct {
	object objstore.Object
	off    int64
	n      int
}

// part is a span on its way.
type part struct {
	span
	buf   []byte // of the span's length; valid once done is closed
	err   error
	panic *group.Panic
	done  chan struct{}
}

// fetcher downloads spans ahead of who takes them.
type fetcher struct {
	store objstore.Store
	parts chan *part // in the order of the spans
	bytes *semaphore.Weighted
	free  chan []byte // buffers of partSize

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// fetch starts the downloads. The caller stops the fetcher.
func fetch(ctx context.Context, store objstore.Store, spans iter.Seq[span]) *fetcher {
	ctx, cancel := context.WithCancel(ctx)
	f := &fetcher{
		store:  store,
		parts:  make(chan *part, windowParts-1), // and the one that take waits for
		bytes:  semaphore.NewWeighted(windowBytes),
		free:   make(chan []byte, windowBytes/partSize),
		cancel: cancel,
	}
	f.wg.Go(func() {
		if p := group.Catch(func() { f.run(ctx, spans) }); p != nil {
			f.hand(ctx, &part{panic: p, done: closed})
		}
	})
	return f
}

// stop ends the downloads and returns when the last has ended.
func (f *fetcher) stop() {
	f.cancel()
	f.wg.Wait()
}

// run hands out parts in order, each as soon as there is room for it.
func (f *fetcher) run(ctx context.Context, spans iter.Seq[span]) {
	for s := range spans {
		if f.bytes.Acquire(ctx, int64(s.n)) != nil {
			return
		}
		p := &part{span: s, buf: f.buffer(s.n), done: make(chan struct{})}
		if !f.hand(ctx, p) {
			return
		}
		f.wg.Go(func() {
			defer close(p.done)
			p.panic = group.Catch(func() { p.err = download(ctx, f.store, s, p.buf) })
		})
	}
}

// hand puts a part in line for take.
func (f *fetcher) hand(ctx context.Context, p *part) bool {
	select {
	case f.parts <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

// closed is the channel of a part that there is nothing to wait for.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// buffer is one that was used before for a large part, and a new one for a small.
func (f *fetcher) buffer(n int) []byte {
	if n <= partSize/8 {
		return make([]byte, n)
	}
	select {
	case b := <-f.free:
		return b[:n]
	default:
		return make([]byte, n, partSize)
	}
}

// take waits for the next part, which release gives back.
func (f *fetcher) take(ctx context.Context) (p *part, err error) {
	select {
	case p = <-f.parts:
	case <-ctx.Done():
		return nil, &ltxfile.SourceError{Err: ctx.Err()}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, &ltxfile.SourceError{Err: ctx.Err()}
	}
	if p.panic != nil {
		panic(p.panic) // for whoever restores to recover
	}
	return p, p.err
}

func (f *fetcher) release(p *part) {
	f.bytes.Release(int64(p.n))
	if cap(p.buf) == partSize {
		select {
		case f.free <- p.buf:
		default:
		}
	}
	p.buf = nil
}

// download fills buf with a span, going on where a try that failed left off.
func download(ctx context.Context, store objstore.Store, s span, buf []byte) error {
	got := 0
	for try := 0; ; try++ {
		n, err := read(ctx, store, s.object, s.off+int64(got), buf[got:])
		if n > 0 {
			got, try = got+n, 0
		}
		switch {
		case got == len(buf):
			return nil
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			// A connection that was cut looks like an object that ends
			// early; only the latter gives nothing when asked again.
			if n == 0 && try > 0 {
				return fmt.Errorf("%w: it ends at byte %d of %d", ErrCorrupt, s.off+int64(got), s.object.Size)
			}
		case retry.Permanent(err) || try == retry.Tries-1:
			return &ltxfile.SourceError{Err: err}
		}
		if retry.Pause(ctx, try) != nil {
			return &ltxfile.SourceError{Err: ctx.Err()}
		}
	}
}

func read(ctx context.Context, store objstore.Store, o objstore.Object, off int64, buf []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	r, err := store.Open(ctx, o, off, int64(len(buf)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.ReadFull(r, buf)
}

// whole are the spans of objects from beginning to end, one object after the other.
func whole(objects []objstore.Object) iter.Seq[span] {
	return func(yield func(span) bool) {
		for _, o := range objects {
			for s := range stretch(o, 0, o.Size) {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// stretch are the spans of n bytes of an object.
func stretch(o objstore.Object, off, n int64) iter.Seq[span] {
	return func(yield func(span) bool) {
		for ; n > 0; off, n = off+partSize, n-partSize {
			if !yield(span{o, off, int(min(partSize, n))}) {
				return
			}
		}
	}
}

// reader reads an object whose spans are the next that the fetcher gives, to
// its end.
type reader struct {
	ctx   context.Context
	f     *fetcher
	left  int64
	count func(n int64) // told of what was read
	part  *part
	rest  []byte // of part
}

func (f *fetcher) next(ctx context.Context, o objstore.Object, count func(int64)) *reader {
	return &reader{ctx: ctx, f: f, left: o.Size, count: count}
}

// Read returns io.EOF at the object's end, and the download's error in place of
// the part that it hit.
func (r *reader) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		p, err := r.f.take(r.ctx)
		if err != nil {
			return 0, err
		}
		r.part, r.rest = p, p.buf
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	r.left -= int64(n)
	if len(r.rest) == 0 {
		r.count(int64(r.part.n))
		r.f.release(r.part)
		r.part = nil
	}
	return n, nil
}
