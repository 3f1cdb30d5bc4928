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
	"github.com/walferry/walferry/internal/retry"
)

// attempt carries out a plan, once.
type attempt struct {
	Prepared
	store objstore.Store
	to    place
	opts  Options

	*builder
	failed *objstore.Object // at which run failed, if it was at one
}

// run leaves nothing behind where it fails.
func (a *attempt) run(ctx context.Context) (r Result, err error) {
	a.failed = nil
	defer a.to.discard()
	if a.builder, err = a.to.create(); err != nil {
		return r, err
	}
	want, from, err := a.carried(ctx)
	if err != nil {
		return r, err
	}
	if a.opts.Delta {
		r.Kept, err = a.delta(ctx, want != 0)
		r.Delta = true
	} else {
		err = a.apply(ctx)
	}
	if err != nil {
		return r, err
	}
	if err := a.finish(); err != nil {
		return r, err
	}
	if want != 0 {
		if sum := a.ledger.XOR(a.pages, a.lockPage()); sum != want {
			if a.opts.Delta {
				return r, &wholeError{"the database that is there, its ledger and the replica do not fit together"}
			}
			a.failed = &from
			return r, fmt.Errorf("%w: the restored pages sum to %016x, the object says %016x", ErrMismatch, sum, want)
		}
		r.Compared = true
	}
	head, err := a.head(ctx)
	if err != nil {
		return r, err
	}
	var h ltx.Header
	if err := h.UnmarshalBinary(head); err != nil {
		a.failed = &a.Plan.Head
		return r, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := a.account(a.store.String(), a.Plan.TXID(), head, h.Timestamp); err != nil {
		return r, err
	}
	if err := a.check(ctx); err != nil {
		return r, err
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err := a.to.commit(a.Past()); err != nil {
		return r, err
	}
	r.TXID, r.Newest, r.Past = a.Plan.TXID(), a.Newest, a.Past()
	r.Pages, r.PageSize = a.pages, a.pageSize
	r.Plan, r.PlanRequests, r.Time = a.Plan, a.Prepared.Requests(), time.UnixMilli(h.Timestamp)
	return r, nil
}

// apply downloads the plan's files and applies them in order.
func (a *attempt) apply(ctx context.Context) error {
	files, total, done := a.Plan.Files, a.Plan.Size(), int64(0)
	a.opts.Progress(0, total)
	count := func(n int64) { done += n; a.opts.Progress(done, total) }
	f := fetch(ctx, a.store, whole(files))
	defer f.stop()
	d := ltxfile.NewDecoder()
	for i := range files {
		a.object = files[i]
		err := d.Decode(ctx, f.next(ctx, a.object, count), a.builder)
		if err == nil {
			err = a.end()
		}
		if err != nil {
			if fetched := new(ltxfile.SourceError); errors.Is(err, ErrCorrupt) || errors.As(err, &fetched) {
				a.failed = &files[i]
			} // else it is this machine's
			return err
		}
	}
	return nil
}

// carried is the checksum of the database that the plan's newest object carries, 0 if
// none does.
func (a *attempt) carried(ctx context.Context) (sum uint64, from objstore.Object, err error) {
	last := a.Plan.Files[len(a.Plan.Files)-1]
	for _, o := range []objstore.Object{a.Plan.Head, last} {
		var m objstore.Meta
		err := retry.Do(ctx, func() (err error) {
			m, err = a.store.Meta(ctx, o)
			return err
		})
		if errors.Is(err, objstore.ErrNotExist) && o != last {
			continue // compacted meanwhile
		}
		if err != nil {
			a.failed = &o
			return 0, o, err
		}
		if m.Checksum != 0 {
			return m.Checksum, o, nil
		}
	}
	return 0, last, nil
}

// head returns the header of the plan's head.
func (a *attempt) head(ctx context.Context) ([]byte, error) {
	if a.Plan.Head == a.object {
		return a.raw[:], nil
	}
	head := make([]byte, ltx.HeaderSize)
	err := retry.Do(ctx, func() error {
		r, err := a.store.Open(ctx, a.Plan.Head, 0, ltx.HeaderSize)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.ReadFull(r, head)
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		return a.raw[:], nil // compacted meanwhile
	}
	if err != nil {
		a.failed = &a.Plan.Head
	}
	return head, err
}

// check lets the caller look at the database.
func (a *attempt) check(ctx context.Context) error {
	if a.opts.Check == nil {
		return nil
	}
	problems, err := a.opts.Check(ctx, a.db.Name())
	if err != nil {
		return fmt.Errorf("check restored database: %w", err)
	}
	if len(problems) == 0 {
		return nil
	}
	more := ""
	if len(problems) > 1 {
		more = fmt.Sprintf(" and %d more", len(problems)-1)
	}
	return fmt.Errorf("%w: TXID %s: %s%s; an older point may be sound, or -check none takes it as it is", ErrUnsound, a.Plan.TXID(), problems[0], more)
}
