package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// restore carries out a plan. Where it fails at an object it returns that too.
func (t *target) restore(ctx context.Context, store objstore.Store, p history.Plan, opts Options) (r Result, failed *objstore.Object, err error) {
	if err := t.create(); err != nil {
		t.discard()
		return r, nil, err
	}
	defer t.discard()

	total, done := p.Size(), int64(0)
	opts.Progress(0, total)
	count := func(n int64) { done += n; opts.Progress(done, total) }
	f := fetch(ctx, store, whole(p.Files))
	defer f.stop()
	b := &builder{db: t.db, ledger: t.ledger}
	d := ltxfile.NewDecoder()
	for i := range p.Files {
		b.object = p.Files[i]
		err := d.Decode(ctx, f.next(ctx, b.object, count), b)
		if err == nil {
			err = b.end()
		}
		if err != nil {
			if fetched := new(ltxfile.SourceError); !errors.Is(err, ErrCorrupt) && !errors.As(err, &fetched) {
				return r, nil, err // this machine's
			}
			return r, &p.Files[i], err
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
		return r, &p.Head, err
	}
	var h ltx.Header
	if err := h.UnmarshalBinary(head); err != nil {
		return r, &p.Head, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := b.account(store.String(), p.TXID(), head, h.Timestamp); err != nil {
		return r, nil, err
	}
	if ctx.Err() != nil {
		return r, nil, ctx.Err()
	}
	if err := t.commit(); err != nil {
		return r, nil, err
	}
	return Result{
		TXID: p.TXID(), Pages: b.pages, PageSize: b.pageSize,
		Objects: len(p.Files), Bytes: done, Time: time.UnixMilli(h.Timestamp),
	}, nil, nil
}

// compare holds the database against the checksum that the newest object
// carries, if one does.
func (b *builder) compare(ctx context.Context, store objstore.Store, p history.Plan) (*objstore.Object, error) {
	for _, o := range []objstore.Object{p.Head, p.Files[len(p.Files)-1]} {
		var m objstore.Meta
		err := retry.Do(ctx, func() (err error) {
			m, err = store.Meta(ctx, o)
			return err
		})
		if errors.Is(err, objstore.ErrNotExist) && o == p.Head && o != p.Files[len(p.Files)-1] {
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
func headOf(ctx context.Context, store objstore.Store, p history.Plan, b *builder) ([]byte, error) {
	if p.Head == b.object {
		return b.raw[:], nil
	}
	head := make([]byte, ltx.HeaderSize)
	err := retry.Do(ctx, func() error {
		r, err := store.Open(ctx, p.Head, 0, ltx.HeaderSize)
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
