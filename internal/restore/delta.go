package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// A delta goes on from the database that is there. Its ledger has the sum of each page
// as the replica had it at the ledger's TXID. So a page need not be downloaded if
//
//   - its sum in the file is that entry: the file has what the replica had then, and
//   - no file between that TXID and the one that is restored holds it, whichever of them
//     is the later: the replica had the same at both.
//
// Which pages a file holds its index tells, and where: a few bytes per page. All others are
// looked for in the plan, the newest file first, and read frame by frame. A frame
// has no checksum of its own, so what proves the result is the checksum of the
// database, where an object carries one.
//
// "In the file" leaves the WAL aside, which is removed as by Force: pages that are
// newer there are in the file as they were before, or as a checkpoint has left
// them, and only what they are counts.

// wholeError says why a delta is not possible, or not worth it.
type wholeError struct{ why string }

func (e *wholeError) Error() string { return e.why }

func insteadBecause(format string, args ...any) error {
	return &wholeError{fmt.Sprintf(format, args...)}
}

// origin is what the ledger of the old database says of it.
type origin struct {
	txid     ltx.TXID
	tried    ltx.TXID // which a kill may have left the entries at, though txid is the one before
	headSum  uint64
	pageSize uint32
	epoch    uint64
	id       [16]byte
}

// origin is nil where the ledger says nothing that can be used, with the reason.
func (t *target) origin(replica string) (*origin, *ledger.Ledger, error) {
	l, err := ledger.OpenReadOnly(t.path)
	if err != nil {
		return nil, nil, insteadBecause("the database has no ledger that can be read (%v)", err)
	}
	h := l.Header()
	switch err := l.Check(); {
	case err != nil:
		err = insteadBecause("the database's ledger cannot be trusted: %v", err)
		l.Close()
		return nil, nil, err
	case h.Replica() != replica:
		err = insteadBecause("the database's ledger is that of %s", h.Replica())
		l.Close()
		return nil, nil, err
	case h.TXID == 0 || h.PageSize == 0:
		l.Close()
		return nil, nil, insteadBecause("the database's ledger knows nothing of the replica")
	}
	o := &origin{ltx.TXID(h.TXID), ltx.TXID(h.TXID), h.HeadSum, h.PageSize, h.Epoch, h.DatabaseID}
	for _, a := range h.Attempts {
		o.tried = max(o.tried, ltx.TXID(a.TXID))
	}
	return o, l, nil
}

// delta builds the database from the old one and the pages that differ, and returns how many
// pages of the old one it kept. proof tells that the result will be compared. An error that
// wraps wholeError leaves a part of the work behind.
func (a *attempt) delta(ctx context.Context, proof bool) (kept uint32, err error) {
	t := a.to.(*target)
	if !t.old.Mode().IsRegular() {
		return 0, insteadBecause("%s is not a file", t.path)
	}
	from, l, err := t.origin(a.store.String())
	if err != nil {
		return 0, err
	}
	l.Close()
	if !proof {
		if err := a.prove(ctx, from); err != nil {
			return 0, err
		}
	}
	to := a.Plan.TXID()
	cover, ok := between(a.History, min(from.txid, to), max(min(from.tried, a.Newest), from.txid, to))
	if !ok {
		return 0, insteadBecause("the files that tell what changed between TXID %s of the database and TXID %s are not there", from.txid, to)
	}
	d := &patch{attempt: a, tails: newTails(a.store)}
	if err := d.last(ctx, from); err != nil {
		return 0, d.mend(ctx, err)
	}
	if err := d.keep(ctx, t, from); err != nil {
		return 0, err
	}
	for _, step := range []func() error{
		func() error { return d.drop(ctx, cover) },
		func() error { return d.locate(ctx) },
		func() error { return d.download(ctx) },
	} {
		if err := step(); err != nil {
			return 0, d.mend(ctx, err)
		}
	}
	kept = d.pages - d.wanted
	if d.pages >= d.lockPage() {
		kept--
	}
	return kept, nil
}

// mend makes damage a reason to download everything, which finds out where it is.
func (d *patch) mend(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, ErrCorrupt) {
		return insteadBecause("%v", err)
	}
	return err
}

// prove finds out whether the ledger speaks of this history: whether the object that
// it calls its newest is there, by the sum of its header.
func (a *attempt) prove(ctx context.Context, from *origin) error {
	for _, level := range a.History.Levels {
		for _, o := range level {
			if o.Max != from.txid && o.Max != from.tried {
				continue
			}
			var raw [ltx.HeaderSize]byte
			err := retry.Do(ctx, func() (err error) {
				_, raw, err = objstore.ReadHeader(ctx, a.store, o)
				if errors.Is(err, ltx.ErrInvalidFile) {
					return nil // another may be whole
				}
				return err
			})
			if errors.Is(err, objstore.ErrNotExist) {
				continue
			}
			if err != nil {
				a.failed = &o
				return err
			}
			if ledger.HeadSum(raw[:]) == from.headSum {
				return nil
			}
		}
	}
	return insteadBecause("nothing in the replica proves that the database's ledger, of TXID %s, speaks of it", from.txid)
}
