// Package objread reads an object of a store from its beginning to its end,
// across connections that break.
package objread

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// stall ends a request that gives nothing more.
const stall = 60 * time.Second

// Reader reads one object, as large as its listing says at most. A read that fails is tried again from where it was; an
// error that stays comes as a *ltxfile.SourceError. Belongs to one goroutine.
type Reader struct {
	ctx   context.Context
	store objstore.Store
	o     objstore.Object

	off    int64
	end    int64
	body   io.ReadCloser
	cancel context.CancelFunc
	watch  *time.Timer // cancels a request that stalls
}

// New returns a Reader of o, which asks the store for nothing before its first Read.
// The caller closes it.
func New(ctx context.Context, store objstore.Store, o objstore.Object) *Reader {
	return &Reader{ctx: ctx, store: store, o: o, end: o.Size}
}

// NewRange returns a Reader of n bytes of o from an offset.
func NewRange(ctx context.Context, store objstore.Store, o objstore.Object, off, n int64) *Reader {
	return &Reader{ctx: ctx, store: store, o: o, off: off, end: off + n}
}

// Read is part of io.Reader.
func (r *Reader) Read(b []byte) (int, error) {
	for try := 0; ; try++ {
		n, err := r.try(b)
		r.off += int64(n)
		if n > 0 {
			return n, nil // an error comes again with the next Read
		}
		if err == nil || err == io.EOF {
			return 0, err
		}
		r.Close()
		if retry.Permanent(err) || try == retry.Tries-1 || retry.Pause(r.ctx, try) != nil {
			return 0, &ltxfile.SourceError{Err: err}
		}
	}
}

func (r *Reader) try(b []byte) (int, error) {
	if r.body == nil {
		if r.off >= r.end {
			return 0, io.EOF // a store refuses a range behind the end
		}
		n := int64(-1)
		if r.end < r.o.Size {
			n = r.end - r.off
		}
		ctx, cancel := context.WithCancel(r.ctx)
		r.watch = time.AfterFunc(stall, cancel)
		body, err := r.store.Open(ctx, r.o, r.off, n)
		if err != nil {
			r.watch.Stop()
			cancel()
			if errors.Is(err, objstore.ErrRange) {
				err = io.EOF // it is shorter than it was listed
			}
			return 0, err
		}
		r.body, r.cancel = body, cancel
	}
	r.watch.Reset(stall)
	n, err := r.body.Read(b)
	r.watch.Stop() // the caller may take its time
	return n, err
}

// Close ends the request under way. A Read after it begins a new one.
func (r *Reader) Close() error {
	if r.body == nil {
		return nil
	}
	r.watch.Stop()
	err := r.body.Close()
	r.cancel()
	r.body = nil
	return err
}
