package restore

import (
	"cmp"
	"slices"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// between returns objects that together hold every page which differs between the states
// at two TXIDs, of which have is the lower. They may hold more pages. Not ok where
// some of them are gone, or only such are left that hold all pages.
func between(h *history.History, have, end ltx.TXID) (cover []objstore.Object, ok bool) {
	var all []objstore.Object
	for _, level := range h.Levels[:objstore.SnapshotLevel] {
		for _, o := range level {
			if o.Min > 1 && o.Max > have && o.Min <= end {
				all = append(all, o)
			}
		}
	}
	slices.SortFunc(all, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
	for i, best := 0, (objstore.Object{}); have < end; have = best.Max {
		for ; i < len(all) && all[i].Min <= have+1; i++ {
			if c := all[i]; best.Max <= have || nearer(c, best, end) {
				best = c
			}
		}
		if best.Max <= have {
			return nil, false
		}
		cover = append(cover, best)
	}
	return cover, true
}

// nearer reports that a covers more than b does of what ends at end, or as much of
// it and less beyond.
func nearer(a, b objstore.Object, end ltx.TXID) bool {
	return cmp.Or(cmp.Compare(min(a.Max, end), min(b.Max, end)), cmp.Compare(b.Size, a.Size)) > 0
}
