package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// looks is how often Run lists anew because somebody else has removed what it was
// about to merge, or because a listing of two moments looks like a gap.
const looks = 4

// Options of a Run.
type Options struct {
	Dir string // of temporary files; see Merge

	Snapshot         bool          // make one now if something has changed since the last
	SnapshotInterval time.Duration // make one when the newest is as old; 0: never
	Policy           history.Policy

	DryRun bool // write and remove nothing, and tell what would be

	// Tell is told of each step when it is done, from Run's goroutine. May be nil.
	Tell func(Step)
	// Now is the time; nil: time.Now.
	Now func() time.Time
}

// Step is something that a Run has done, or would do: a merge, or a removal.
type Step struct {
	Output objstore.Object   // of a merge; Level 9 is a snapshot. Of a dry run its size is the most it may have
	Inputs []objstore.Object // of it; nil where something was removed

	Removed []objstore.Object
	Marks   []objstore.Mark // whose time is over, and which were removed
}

// Run does what is due for a replica from outside: it merges until nothing is due,
// makes a snapshot, and then removes what the policy does not keep. Nothing is
// removed unless all that was due before it has succeeded.
//
// It may run beside the application that writes the database, beside Litestream
// and beside other Runs, and may end anywhere.
func Run(ctx context.Context, store objstore.Store, o Options) error {
	if o.Tell == nil {
		o.Tell = func(Step) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &run{store: store, o: o, now: o.Now()}
	for n := 1; ; n++ {
		err := r.grow(ctx)
		if err == nil {
			break
		}
		// Somebody else is at work here: what there is to do is another thing now.
		if n == looks || !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, history.ErrGap) || retry.Pause(ctx, n) != nil {
			return err
		}
	}
	return r.shrink(ctx)
}

// run is one Run.
type run struct {
	store objstore.Store
	o     Options
	now   time.Time
	h     *history.History
}

// grow merges, and makes a snapshot.
func (r *run) grow(ctx context.Context) (err error) {
	if r.h, err = history.List(ctx, r.store); err != nil {
		return err
	}
	for jobs := Due(r.h.Levels, r.now); len(jobs) > 0; jobs = Due(r.h.Levels, r.now) {
		for _, j := range jobs {
			if j.Level != jobs[0].Level {
				break // it has something more to take now
			}
			if err := r.merge(ctx, j.Inputs, j.Level); err != nil {
				return err
			}
		}
	}
	p, err := r.h.Plan(0)
	if err != nil {
		return fmt.Errorf("%w at %s", err, r.store)
	}
	if !r.snapshotDue(p.TXID()) {
		return nil
	}
	return r.merge(ctx, p.Files, objstore.SnapshotLevel)
}

func (r *run) snapshotDue(newest ltx.TXID) bool {
	snapshots := r.h.Levels[objstore.SnapshotLevel]
	if len(snapshots) == 0 {
		return r.o.Snapshot || r.o.SnapshotInterval > 0
	}
	last := slices.MaxFunc(snapshots, func(a, b objstore.Object) int { return cmp.Compare(a.Max, b.Max) })
	if last.Max >= newest {
		return false
	}
	return r.o.Snapshot || r.o.SnapshotInterval > 0 && r.now.Sub(last.ModTime) >= r.o.SnapshotInterval
}

// merge makes one object, and takes it into the history without listing again.
func (r *run) merge(ctx context.Context, inputs []objstore.Object, level int) (err error) {
	last := inputs[len(inputs)-1]
	out := objstore.Object{Level: level, Min: inputs[0].Min, Max: last.Max, ModTime: last.ModTime}
	if r.o.DryRun {
		for _, o := range inputs {
			out.Size += o.Size
		}
	} else if out, err = Merge(ctx, r.store, inputs, level, r.o.Dir); err != nil {
		return err
	}
	all := append(slices.Clone(r.h.Levels[level]), out)
	slices.SortFunc(all, func(a, b objstore.Object) int { return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max)) })
	r.h.Levels[level] = all
	r.o.Tell(Step{Output: out, Inputs: inputs})
	return nil
}

// shrink applies the policy to what the store holds now. Marks go before what they
// name, so that none is left that nothing is behind.
func (r *run) shrink(ctx context.Context) (err error) {
	if !r.o.DryRun {
		if r.h, err = history.List(ctx, r.store); err != nil {
			return err
		}
	}
	size, err := r.databaseSize(ctx)
	if err != nil {
		return err
	}
	objects, marks := r.h.Expired(r.o.Policy, r.now, size)
	if len(objects)+len(marks) == 0 {
		return nil
	}
	if !r.o.DryRun {
		for _, m := range marks {
			if err := retry.Do(ctx, func() error { return r.store.RemoveMark(ctx, m) }); err != nil {
				return err
			}
		}
		if err := retry.Do(ctx, func() error { return r.store.RemoveAll(ctx, objects) }); err != nil {
			return err
		}
	}
	r.o.Tell(Step{Removed: objects, Marks: marks})
	return nil
}

// databaseSize is asked for only where a limit needs it; 0 where somebody else has
// just removed the object that tells.
func (r *run) databaseSize(ctx context.Context) (n int64, err error) {
	if r.o.Policy.Retention.Times == 0 {
		return 0, nil
	}
	all := r.h.Levels[0]
	for _, l := range r.h.Levels[1:] {
		all = append(slices.Clone(all), l...)
	}
	if len(all) == 0 {
		return 0, nil
	}
	// What a dry run would make is not there; what it would be made of is.
	newest := slices.MaxFunc(all, func(a, b objstore.Object) int {
		return cmp.Or(cmp.Compare(a.Max, b.Max), cmp.Compare(b.Level, a.Level))
	})
	err = retry.Do(ctx, func() error {
		h, _, err := objstore.ReadHeader(ctx, r.store, newest)
		n = int64(h.Commit) * int64(h.PageSize)
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		return 0, nil
	}
	return n, err
}
