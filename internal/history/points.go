package history

import (
	"cmp"
	"slices"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// Points returns the TXIDs that Plan leads to, in ascending order.
func (h *History) Points() []ltx.TXID {
	return findPaths(h.Objects(), download).points()
}

func (p paths) points() []ltx.TXID {
	points := make([]ltx.TXID, len(p.stops))
	for i, s := range p.stops {
		points[i] = s.txid
	}
	return points
}

// Gap is a run of TXIDs that no file brings though files behind it build on it.
type Gap struct{ From, To ltx.TXID }

// Gaps returns what is missing behind the oldest state that can be restored, and in a
// history of which nothing can be restored what is missing before its first file. A snapshot
// behind a gap makes up for it, but the states between stay lost.
func (h *History) Gaps() []Gap {
	all := h.Objects()
	return findPaths(all, download).gaps(all)
}

func (p paths) gaps(all []objstore.Object) (found []Gap) {
	if len(all) == 0 {
		return nil
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
	if len(p.stops) == 0 {
		return []Gap{{1, all[0].Min - 1}}
	}
	var covered ltx.TXID // by files that hold changes; all that cover a file's Min-1 come before it
	for _, o := range all {
		if o.Min == 1 {
			continue
		}
		i, _ := p.find(o.Max)
		if !p.leads(o) && !p.reaches(o.Max) && i > 0 { // with i = 0 it is older than all that can be restored
			if from := max(p.stops[i-1].txid, covered) + 1; from < o.Min {
				found = append(found, Gap{from, o.Min - 1})
			}
		}
		covered = max(covered, o.Max)
	}
	return found
}

// gapBefore returns the gap that is in the way to a TXID which no stop has.
func (p paths) gapBefore(all []objstore.Object, txid ltx.TXID) (Gap, bool) {
	i, _ := p.find(txid)
	if i == 0 {
		return Gap{}, false
	}
	for _, g := range p.gaps(all) {
		if p.stops[i-1].txid < g.From && g.From <= txid {
			return g, true
		}
	}
	return Gap{}, false
}
