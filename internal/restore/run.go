package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// restore carries out a plan. Where it fails at an object it returns that too.
func (t *target) restore(ctx context.Context, store objstore.Store, p plan, opts Options) (r Result, failed *objstore.Object, err error) {
	if err := t.create(); err != nil {
		t.discard()
		return r, nil, err
	}
	defer t.discard()

	total, done := p.size(), int64(0)
	opts.Progress(0, total)
	count := func(n int64) { done += n; opts.Progress(done, total) }
	f := fetch(ctx, store, whole(p.files))
	defer f.stop()
	b := &builder{db: t.db, ledger: t.ledger}
	d := ltxfile.NewDecoder()
	for i := range p.files {
		b.object = p.files[i]
		err := d.Decode(ctx, f.next(ctx, b.object, count), b)
		if err == nil {
			err = b.end()
		}
		if err != nil {
			if fetched := new(ltxfile.SourceError); !errors.Is(err, ErrCorrupt) && !errors.As(err, &fetched) {
				return r, nil, err // this machine's
			}
			return r, &p.files[i], err
		}
	}
	if err := b.finish(); err != nil {
		return r, nil, err
	}
	if failed, err := b.compare(ctx, store, p); err != nil {
		return r, failed, err
	}
	head, err := headOf(ctx, store, p, b)
	if err != nil {
		return r, &p.head, err
	}
	var h ltx.Header
	if err := h.UnmarshalBinary(head); err != nil {
		return r, &p.head, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := b.account(store.String(), p.txid(), head, h.Timestamp); err != nil {
		return r, nil, err
	}
	if ctx.Err() != nil {
		return r, nil, ctx.Err()
	}
	if err := t.commit(); err != nil {
		return r, nil, err
	}
	return Result{
		TXID: p.txid(), Pages: b.pages, PageSize: b.pageSize,
		Objects: len(p.files), Bytes: done, Time: time.UnixMilli(h.Timestamp),
	}, nil, nil
}

// compare holds the database against the checksum that the newest object
// carries, if one does.
func (b *builder) compare(ctx context.Context, store objstore.Store, p plan) (*objstore.Object, error) {
	for _, o := range []objstore.Object{p.head, p.files[len(p.files)-1]} {
		var m objstore.Meta
		err := retry(ctx, func() (err error) {
			m, err = store.Meta(ctx, o)
			return err
		})
		if errors.Is(err, objstore.ErrNotExist) && o == p.head && o != p.files[len(p.files)-1] {
			continue // compacted meanwhile
		}
		if err != nil {
			return &o, err
		}
		if m.Checksum == 0 {
			continue
		}
		if sum := b.ledger.XOR(b.pages, b.lockPage()); sum != m.Checksum {
			return &o, fmt.Errorf("%w: the restored pages sum to %016x, the object says %016x", ErrMismatch, sum, m.Checksum)
		}
		break
	}
	return nil, nil
}

// headOf returns the header of the plan's head.
func headOf(ctx context.Context, store objstore.Store, p plan, b *builder) ([]byte, error) {
	if p.head == b.object {
		return b.raw[:], nil
	}
	head := make([]byte, ltx.HeaderSize)
	err := retry(ctx, func() error {
		r, err := store.Open(ctx, p.head, 0, ltx.HeaderSize)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.ReadFull(r, head)
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		return b.raw[:], nil // compacted meanwhile
	}
	return head, err
}
