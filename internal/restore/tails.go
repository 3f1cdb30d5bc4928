package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

const (
	// tailBytes is what is read of the end of a file at once: the whole of what a
	// writer ships in a second, mostly, and the index of some 6,000 pages.
	tailBytes = 64 << 10

	// keptBytes of tails are kept for the next time that they are wanted.
	keptBytes = 8 << 20
)

// tails reads what lies at the end of files. It may be used by several goroutines.
type tails struct {
	store objstore.Store

	mu   sync.Mutex
	kept map[objstore.Object][]byte
	left int

	long sync.Mutex // held while a long index is read, which takes a whole window
}

func newTails(store objstore.Store) *tails {
	return &tails{store: store, kept: map[objstore.Object][]byte{}, left: keptBytes}
}

// whole returns an object that was kept from beginning to end, or nil.
func (t *tails) whole(o objstore.Object) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.kept[o]; int64(len(b)) == o.Size {
		return b
	}
	return nil
}

func (t *tails) tail(ctx context.Context, o objstore.Object) ([]byte, error) {
	t.mu.Lock()
	b := t.kept[o]
	t.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b = make([]byte, min(o.Size, tailBytes))
	if err := download(ctx, t.store, span{o, o.Size - int64(len(b)), len(b)}, b); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(b) <= t.left && t.kept[o] == nil {
		t.left -= len(b)
		t.kept[o] = b
	}
	return b, nil
}

// index yields the entries of an object's page index, after head was told its header.
func (t *tails) index(ctx context.Context, o objstore.Object, head func(h ltx.Header, raw []byte) error) iter.Seq2[ltxfile.Entry, error] {
	return func(yield func(ltxfile.Entry, error) bool) {
		tail, err := t.tail(ctx, o)
		if err != nil {
			yield(ltxfile.Entry{}, err)
			return
		}
		open := t.opener(ctx, o, tail)
		h, raw, err := header(o, open)
		if err == nil {
			err = head(h, raw)
		}
		if err != nil {
			yield(ltxfile.Entry{}, err)
			return
		}
		for e, err := range ltxfile.Index(h, o.Size, open) {
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// opener serves from the tail what it holds.
func (t *tails) opener(ctx context.Context, o objstore.Object, tail []byte) ltxfile.Opener {
	start := o.Size - int64(len(tail))
	return func(off, n int64) (io.ReadCloser, error) {
		if off >= start {
			b := tail[off-start:]
			return io.NopCloser(bytes.NewReader(b[:min(n, int64(len(b)))])), nil
		}
		if n <= tailBytes {
			b := make([]byte, n)
			if err := download(ctx, t.store, span{o, off, int(n)}, b); err != nil {
				return nil, err
			}
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		t.long.Lock()
		f := fetch(ctx, t.store, stretch(o, off, n))
		return &longReader{&reader{ctx: ctx, f: f, left: n, count: func(int64) {}}, t}, nil
	}
}

// longReader is a download of its own.
type longReader struct {
	*reader
	t *tails
}

// Close is part of io.Closer.
func (r *longReader) Close() error {
	r.f.stop()
	r.t.long.Unlock()
	return nil
}

// header reads and checks the header of an object.
func header(o objstore.Object, open ltxfile.Opener) (h ltx.Header, raw []byte, err error) {
	raw = make([]byte, ltx.HeaderSize)
	if o.Size < ltx.HeaderSize {
		return h, nil, fmt.Errorf("%w: it ends in the middle of the header", ErrCorrupt)
	}
	r, err := open(0, ltx.HeaderSize)
	if err != nil {
		return h, nil, err
	}
	defer r.Close()
	if _, err := io.ReadFull(r, raw); err != nil {
		return h, nil, err
	}
	if h, err = objstore.ParseHeader(o, raw); err != nil {
		return h, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return h, raw, nil
}
