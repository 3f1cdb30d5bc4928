package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"

	"github.com/walferry/walferry/internal/objstore"
)

// plan is what to apply, in order, and the object that proves the result.
type plan struct {
	files []objstore.Object

	// head is the newest transaction's own level-0 object, or the last of
	// files where compaction has removed that.
	head objstore.Object
}

func (p plan) txid() ltx.TXID { return p.files[len(p.files)-1].Max }

func (p plan) size() (n int64) {
	for _, o := range p.files {
		n += o.Size
	}
	return n
}

// Plan returns the objects that give the newest state of the database when they
// are applied in order: a snapshot, and then always the file that goes on
// from there and reaches furthest. The error wraps ErrNothing, ErrGap or the store's.
func Plan(ctx context.Context, store objstore.Store) ([]objstore.Object, error) {
	all, err := list(ctx, store)
	if err != nil {
		return nil, err
	}
	p, err := choose(all)
	if err != nil {
		return nil, fmt.Errorf("%w at %s", err, store)
	}
	return p.files, nil
}

// list returns all objects of all levels.
func list(ctx context.Context, store objstore.Store) ([]objstore.Object, error) {
	var levels [objstore.SnapshotLevel + 1][]objstore.Object
	g, ctx := errgroup.WithContext(ctx)
	for level := range levels {
		g.Go(func() error {
			return retry(ctx, func() (err error) {
				levels[level], err = store.List(ctx, level, 0)
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list %s: %w", store, err)
	}
	return slices.Concat(levels[:]...), nil
}

// choose plans over the objects of all levels, in any order.
func choose(all []objstore.Object) (plan, error) {
	if len(all) == 0 {
		return plan{}, ErrNothing
	}
	first, ok := base(all)
	if !ok {
		lowest := slices.MinFunc(all, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
		return plan{}, fmt.Errorf("%w: there is no snapshot, and TXIDs %s to %s are missing; nothing can be restored",
			ErrGap, ltx.TXID(1), lowest.Min-1)
	}
	p := plan{files: []objstore.Object{first}}

	// Objects that begin early enough stay candidates as the plan advances, so
	// one pass in the order of Min sees all of them.
	rest := slices.DeleteFunc(slices.Clone(all), func(o objstore.Object) bool { return o.Level == objstore.SnapshotLevel })
	slices.SortFunc(rest, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
	best, i := first, 0
	for {
		have := p.txid()
		for ; i < len(rest) && rest[i].Min <= have+1; i++ {
			if further(rest[i], best) {
				best = rest[i]
			}
		}
		if best.Max <= have {
			break
		}
		if best.Min == 1 {
			p.files = p.files[:0] // it holds every page
		}
		p.files = append(p.files, best)
	}
	if i < len(rest) {
		have := p.txid()
		return plan{}, fmt.Errorf("%w: TXIDs %s to %s are missing; the newest that can be restored is %s",
			ErrGap, have+1, rest[i].Min-1, have)
	}
	p.head = p.files[len(p.files)-1]
	for _, o := range rest {
		if o.Level == 0 && o.Min == p.txid() && o.Max == p.txid() {
			p.head = o
		}
	}
	return p, nil
}

// base is the newest snapshot or, where there is none, the furthest file that
// begins with the first transaction, which holds every page too.
func base(all []objstore.Object) (o objstore.Object, ok bool) {
	for _, c := range all {
		if c.Min != 1 {
			continue
		}
		snapshot, had := c.Level == objstore.SnapshotLevel, o.Level == objstore.SnapshotLevel
		if !ok || snapshot && !had || snapshot == had && c.Max > o.Max {
			o, ok = c, true
		}
	}
	return o, ok
}

// further reports whether a reaches further than b, or as far with less.
func further(a, b objstore.Object) bool {
	return cmp.Or(cmp.Compare(a.Max, b.Max), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Level, b.Level)) > 0
}
