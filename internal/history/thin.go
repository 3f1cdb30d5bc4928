package history

import (
	"cmp"
	"maps"
	"slices"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// thin takes files from a set that a file of the next level holds too, all that it
// holds at once since those after the first lean on it, until the set is within
// the limits. The history stays as long as it is and becomes coarser, from its old end on.
// It reports whether there was anything to take.
func (k *keeper) thin(kept set, over func(set) bool) bool {
	needed := k.needed(kept)
	var groups [][]objstore.Object
	for level := 1; level <= 2; level++ {
		groups = append(groups, k.groups(kept, needed, level)...)
	}
	// Whether it is enough after n groups is found by halves: each trial looks at all objects.
	without := func(n int) set {
		rest := maps.Clone(kept)
		for _, g := range groups[:n] {
			for _, o := range g {
				delete(rest, keyOf(o))
			}
		}
		return rest
	}
	n, enough := 0, len(groups)
	for n < enough {
		if mid := (n + enough) / 2; over(without(mid)) {
			n = mid + 1
		} else {
			enough = mid
		}
	}
	for _, g := range groups[:n] {
		for _, o := range g {
			delete(kept, keyOf(o))
		}
	}
	return n > 0
}

// needed are the files of the shortest plans to what must be restorable, and the newest
// of each level.
func (k *keeper) needed(kept set) set {
	needed := maps.Clone(k.newest)
	ways := findPaths(k.only(kept), func(objstore.Object) int64 { return 1 })
	for _, t := range k.musts {
		if i, ok := ways.find(t); ok {
			for _, o := range ways.to(i) {
				needed[keyOf(o)] = true
			}
		}
	}
	return needed
}

// groups returns, for each file of the level above that is older than level-0 files are
// kept, so that none of those lean on its group, the files of a level that lie within it.
func (k *keeper) groups(kept, needed set, level int) (groups [][]objstore.Object) {
	ways := findPaths(k.only(kept), download)
	var above, below []objstore.Object
	for _, o := range k.all {
		switch {
		case !kept[keyOf(o)]:
		case o.Level == level+1 && ways.leads(o) && (k.policy.L0 == 0 || k.older(o, k.policy.L0)):
			above = append(above, o)
		case o.Level == level && !needed[keyOf(o)]:
			below = append(below, o)
		}
	}
	byMin := func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) }
	slices.SortFunc(above, byMin)
	slices.SortFunc(below, byMin)
	taken := set{}
	for _, a := range above {
		var g []objstore.Object
		from, _ := slices.BinarySearchFunc(below, a.Min, func(o objstore.Object, t ltx.TXID) int { return cmp.Compare(o.Min, t) })
		for _, o := range below[from:] {
			if o.Min > a.Max {
				break
			}
			if o.Max <= a.Max && !taken[keyOf(o)] {
				taken[keyOf(o)] = true
				g = append(g, o)
			}
		}
		if g != nil {
			groups = append(groups, g)
		}
	}
	return groups
}
