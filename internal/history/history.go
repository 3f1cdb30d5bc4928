// Package history knows what of a database's past a replica holds: which states can
// be restored, from which files, and which files no restore needs any more.
//
// A file with the TXIDs [a..b] takes a database that is anywhere from a-1 to b-1 to
// b; one whose a is 1 holds every page and needs nothing before it. So files are edges
// between positions, every question is one about paths, and more files never
// make less reachable.
package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// Levels is how many levels a replica has: 0 to 3 and the snapshots' are in use.
const Levels = objstore.SnapshotLevel + 1

// Errors of the plan.
var (
	// ErrNothing is returned when the store holds no LTX file at all.
	ErrNothing = errors.New("no database")
	// ErrGap is returned when files that later ones build on are missing.
	ErrGap = errors.New("replica has a gap")
	// ErrNoPoint is returned when what is asked for is no restore point: no
	// state of that TXID, time or mark can be restored, though nothing is missing.
	ErrNoPoint = errors.New("no such restore point")
)

// History is what a replica holds. It is a listing: methods that take no context do
// not talk to the store. Not to be changed while it is used by several goroutines.
type History struct {
	Levels [Levels][]objstore.Object // each in the order of Min and then Max
	Marks  []objstore.Mark           // in the order of TXID and then Time

	store objstore.Store // of List; nil otherwise
}

// List asks the store for all levels and marks. Requests that fail are made again for
// some seconds.
func List(ctx context.Context, store objstore.Store) (*History, error) {
	h := &History{store: store}
	if ok, err := h.listAll(ctx); ok || err != nil {
		return h, err
	}
	g, ctx := group.WithContext(ctx)
	for level := range h.Levels {
		g.Go(func() error {
			return retry.Do(ctx, func() (err error) {
				h.Levels[level], err = store.List(ctx, level, 0)
				return err
			})
		})
	}
	g.Go(func() error {
		return retry.Do(ctx, func() (err error) {
			h.Marks, err = store.Marks(ctx)
			return err
		})
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list %s: %w", store, err)
	}
	return h, nil
}

// listAll takes one request where a store can answer so, and does. Most replicas are that small.
func (h *History) listAll(ctx context.Context) (ok bool, err error) {
	lister, is := h.store.(objstore.Lister)
	if !is {
		return false, nil
	}
	var objs []objstore.Object
	err = retry.Do(ctx, func() (err error) {
		objs, h.Marks, ok, err = lister.ListAll(ctx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("list %s: %w", h.store, err)
	}
	for _, o := range objs {
		h.Levels[o.Level] = append(h.Levels[o.Level], o)
	}
	return ok, nil
}

// Objects returns the objects of all levels, in the order of level, Min and Max.
func (h *History) Objects() []objstore.Object { return slices.Concat(h.Levels[:]...) }

// Size is that of all objects, in bytes.
func (h *History) Size() (n int64) {
	for _, level := range h.Levels {
		for _, o := range level {
			n += o.Size
		}
	}
	return n
}

// Without returns the history as it would be without some objects.
func (h *History) Without(gone ...objstore.Object) *History {
	is := make(map[key]bool, len(gone))
	for _, o := range gone {
		is[keyOf(o)] = true
	}
	rest := &History{Marks: h.Marks, store: h.store}
	for level, objects := range h.Levels {
		rest.Levels[level] = slices.DeleteFunc(slices.Clone(objects), func(o objstore.Object) bool { return is[keyOf(o)] })
	}
	return rest
}

// key tells an object from all others of its replica.
type key struct {
	level    int
	min, max ltx.TXID
}

func keyOf(o objstore.Object) key { return key{o.Level, o.Min, o.Max} }

// highest is the greatest TXID of any object.
func (h *History) highest() (t ltx.TXID) {
	for _, level := range h.Levels {
		for _, o := range level {
			t = max(t, o.Max)
		}
	}
	return t
}

// lowest is the object that begins first.
func lowest(objects []objstore.Object) objstore.Object {
	return slices.MinFunc(objects, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
}
