package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// Options of a Restore; the zero value is usable.
type Options struct {
	// Force replaces an existing target and what belongs to it.
	Force bool

	// Progress is told how many bytes of how many were downloaded and
	// applied. Called from one goroutine at a time; after a new start, from 0 again.
	Progress func(done, total int64)
}

// Result describes a restored database.
type Result struct {
	TXID     ltx.TXID
	Pages    uint32
	PageSize uint32        // bytes
	Objects  int           // files that were applied
	Bytes    int64         // that were downloaded of them
	Time     time.Time     // of the newest transaction's object
	Duration time.Duration // of it all
}

// Size is the database's, in bytes.
func (r Result) Size() int64 { return int64(r.Pages) * int64(r.PageSize) }

// plans is how often a Restore plans anew because compaction has removed an
// object of the plan while it was under way.
const plans = 3

// Restore writes the newest state of the database that a store holds to out, with
// a ledger beside it, so that it goes on from there without a comparison.
// On an error, and when ctx ends, the target and its directory are as they were.
//
// The error wraps one of this package's or of objstore's, and names the object at
// which it failed.
func Restore(ctx context.Context, store objstore.Store, out string, opts Options) (Result, error) {
	start := time.Now()
	t, err := newTarget(out, opts.Force)
	if err != nil {
		return Result{}, err
	}
	if opts.Progress == nil {
		opts.Progress = func(int64, int64) {}
	}
	if n := len(store.String()); n >= len(ledger.Header{}.ReplicaText) {
		return Result{}, fmt.Errorf("%w: it has %d characters, which is too long", objstore.ErrURL, n)
	}
	for n := 1; ; n++ {
		all, err := history.List(ctx, store)
		if err != nil {
			return Result{}, err
		}
		p, err := all.Plan(0)
		if err != nil {
			return Result{}, fmt.Errorf("%w at %s", err, store)
		}
		r, failed, err := t.restore(ctx, store, p, opts)
		if err == nil {
			r.Duration = time.Since(start)
			return r, nil
		}
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		if failed == nil {
			return Result{}, err
		}
		if errors.Is(err, objstore.ErrNotExist) && n < plans && superseded(ctx, store, *failed) {
			continue
		}
		err = fmt.Errorf("restore %s: %s: %w", store, failed, err)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, objstore.ErrNotExist) {
			err = fmt.Errorf("%w; %s", err, without(all, *failed))
		}
		return Result{}, err
	}
}

// superseded reports that an object has left the listing since: a writer is at work and has
// replaced it.
func superseded(ctx context.Context, store objstore.Store, o objstore.Object) bool {
	there, err := store.List(ctx, o.Level, o.Min)
	if err != nil {
		return false
	}
	for _, c := range there {
		if c.Min == o.Min && c.Max == o.Max {
			return false
		}
	}
	return true
}

// without says what can be restored if an object is left out.
func without(all *history.History, bad objstore.Object) string {
	rest := all.Without(bad)
	p, err := rest.Plan(0)
	switch {
	case err == nil:
		return fmt.Sprintf("without it the database can be restored up to TXID %s", p.TXID())
	case len(rest.Points()) > 0:
		return "without it the " + err.Error()
	}
	return "without it nothing can be restored"
}
