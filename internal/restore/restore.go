package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// Options of a Restore; the zero value is usable.
type Options struct {
	// Target is the point to go back to. Zero: the newest state.
	Target history.Target

	// Force replaces an existing target and what belongs to it.
	Force bool

	// Fresh takes the place of a database that is gone: an empty file and what a lost one
	// has left beside it are replaced, a database is ErrExists. The target is
	// never opened, so a process that uses SQLite may do this.
	Fresh bool

	// Descriptors are for the ledger's lock, in a process that forks.
	Descriptors ledger.Descriptors

	// Delta goes on from the database that is there, as far as its ledger tells
	// that its pages are the replica's, and downloads the others. It replaces as Force
	// does. Where it is not possible or not worth it everything is downloaded, and
	// Result.Whole says why.
	Delta bool

	// Check, if not nil, is given the complete database before it takes the target's
	// name, and returns what is wrong with it.
	Check func(ctx context.Context, path string) (problems []string, err error)

	// Progress is told how many bytes of how many were downloaded and
	// applied. Called from one goroutine at a time; after a new start, from 0 again.
	Progress func(done, total int64)
}

// Result describes a restored database.
type Result struct {
	TXID         ltx.TXID
	Newest       ltx.TXID // that the replica holds
	Pages        uint32
	PageSize     uint32 // bytes
	Plan         history.Plan
	PlanRequests int           // that the plan takes
	Bytes        int64         // that were downloaded, of the plan's files or about them
	Requests     int64         // to the store
	Time         time.Time     // of the newest transaction's object
	Duration     time.Duration // of it all

	// Past tells that the replica holds newer transactions. The database then has no
	// ledger: it is not the one whose future they are, so nothing of it may ship there.
	Past bool

	// Compared tells that an object carried the checksum of the database, and it
	// is that of this one.
	Compared bool

	// Delta tells that pages of the old database were kept, so many.
	Delta bool
	Kept  uint32

	// Whole says why a Delta was none.
	Whole string
}

// Size is the database's, in bytes.
func (r Result) Size() int64 { return int64(r.Pages) * int64(r.PageSize) }

// plans is how often a Restore plans anew because compaction has removed an
// object of the plan while it was under way.
const plans = 3

// Restore writes the state that a database had at a point of the history that a store holds to out.
// With the newest state comes a ledger, so that it goes on from there without a comparison.
// On an error, and when ctx ends, the target and its directory are as they were.
//
// The error wraps one of this package's, of history's or of objstore's, and names the
// object at which it failed.
//
// It is not for a process that has out open with SQLite: to look whether others have
// drops the locks of this one. With Fresh alone it does not look.
func Restore(ctx context.Context, store objstore.Store, out string, opts Options) (Result, error) {
	t, err := newTarget(out, opts.Force || opts.Delta, opts.Fresh)
	if err != nil {
		return Result{}, err
	}
	t.descriptors = opts.Descriptors
	if n := len(store.String()); n >= len(ledger.Header{}.ReplicaText) {
		return Result{}, fmt.Errorf("%w: it has %d characters, which is too long", objstore.ErrURL, n)
	}
	if opts.Delta && t.old == nil {
		opts.Delta = false
	}
	return run(ctx, store, t, opts)
}

// Stream writes the database to w as Restore does to a file, once all of it is verified;
// until then it takes its size of the directory for temporary files. Force and Delta are of
// no meaning. An error before the first byte is written has written nothing.
func Stream(ctx context.Context, store objstore.Store, w io.Writer, opts Options) (Result, error) {
	opts.Delta = false
	return run(ctx, store, &stream{ctx: ctx, w: w, named: opts.Check != nil}, opts)
}

// place is where a database is built and where it goes.
type place interface {
	// create makes the temporary files. Whoever calls it calls discard in the end.
	create() (*builder, error)
	// commit makes what was built the result.
	commit(past bool) error
	// discard removes the temporary files that have not become the result.
	discard()
}

// run plans and tries until a plan holds.
func run(ctx context.Context, store objstore.Store, to place, opts Options) (Result, error) {
	start := time.Now()
	if opts.Progress == nil {
		opts.Progress = func(int64, int64) {}
	}
	m := &meter{Store: store}
	whole := ""
	for n := 1; ; n++ {
		p, err := Prepare(ctx, m, opts.Target)
		if err != nil {
			return Result{}, ended(ctx, err)
		}
		a := &attempt{store: m, to: to, Prepared: p, opts: opts}
		r, err := a.run(ctx)
		if not := new(wholeError); errors.As(err, &not) && ctx.Err() == nil {
			whole, a.opts.Delta = not.Error(), false
			r, err = a.run(ctx)
		}
		if err == nil {
			r.Whole, r.Duration = whole, time.Since(start)
			r.Bytes, r.Requests = m.bytes.Load(), m.requests.Load()
			return r, nil
		}
		if ctx.Err() != nil || a.failed == nil {
			return Result{}, ended(ctx, err)
		}
		if errors.Is(err, objstore.ErrNotExist) && n < plans && superseded(ctx, m, *a.failed) {
			continue
		}
		err = fmt.Errorf("restore %s: %s: %w", store, a.failed, err)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, objstore.ErrNotExist) {
			err = fmt.Errorf("%w; %s", err, p.without(*a.failed))
		}
		return Result{}, err
	}
}

// ended is err, or why ctx has ended if it has.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
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
