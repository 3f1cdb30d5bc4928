package history

import (
	"cmp"
	"slices"
	"sort"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// perRequest is what one more request weighs, in bytes that could be downloaded
// meanwhile: so thousands of tiny files lose against one that is a little larger.
const perRequest = 64 << 10

// paths are the cheapest ways to every position that objects reach.
type paths struct {
	stops []stop // in the order of their TXIDs, each once
}

// stop is a position that can be reached.
type stop struct {
	txid ltx.TXID
	cost int64
	last objstore.Object // the file that ends there
	from int             // the stop to which last is applied; -1: none
}

// download is what an object costs a restore.
func download(o objstore.Object) int64 { return o.Size + perRequest }

// findPaths takes O(n log n) for n objects in any order. A file [a..b] continues
// from the cheapest stop in a-1..b-1. Stops are found in ascending order, so that is always
// the minimum of a tail of those found so far: the stack of tail minima answers
// with one binary search.
func findPaths(objects []objstore.Object, weight func(objstore.Object) int64) paths {
	sorted := slices.Clone(objects)
	slices.SortFunc(sorted, func(a, b objstore.Object) int {
		// Of files that cost the same the narrower and then the lower wins: it is the
		// more likely to be needed by other plans as well, and to be in a cache.
		return cmp.Or(cmp.Compare(a.Max, b.Max), cmp.Compare(b.Min, a.Min), cmp.Compare(a.Level, b.Level))
	})
	var p paths
	var tail []int // of stops; costs rise towards the end
	for i := 0; i < len(sorted); {
		end := sorted[i].Max
		best := stop{txid: end, from: -2}
		for ; i < len(sorted) && sorted[i].Max == end; i++ {
			o := sorted[i]
			c := stop{txid: end, cost: weight(o), last: o, from: -1}
			if o.Min > 1 {
				at := sort.Search(len(tail), func(k int) bool { return p.stops[tail[k]].txid >= o.Min-1 })
				if at == len(tail) {
					continue
				}
				c.from = tail[at]
				c.cost += p.stops[c.from].cost
			}
			if best.from == -2 || c.cost < best.cost {
				best = c
			}
		}
		if best.from == -2 {
			continue
		}
		for len(tail) > 0 && p.stops[tail[len(tail)-1]].cost >= best.cost {
			tail = tail[:len(tail)-1]
		}
		tail = append(tail, len(p.stops))
		p.stops = append(p.stops, best)
	}
	return p
}

// find returns the index of the first stop at or behind a TXID, and whether it is there.
func (p paths) find(t ltx.TXID) (int, bool) {
	return slices.BinarySearchFunc(p.stops, t, func(s stop, t ltx.TXID) int { return cmp.Compare(s.txid, t) })
}

func (p paths) reaches(t ltx.TXID) bool {
	_, ok := p.find(t)
	return ok
}

// to returns the files that lead to a stop, in order.
func (p paths) to(i int) (files []objstore.Object) {
	for ; i >= 0; i = p.stops[i].from {
		files = append(files, p.stops[i].last)
	}
	slices.Reverse(files)
	return files
}

// leads reports whether o continues from any stop.
func (p paths) leads(o objstore.Object) bool {
	if o.Min == 1 {
		return true
	}
	i, _ := p.find(o.Min - 1)
	return i < len(p.stops) && p.stops[i].txid < o.Max
}
