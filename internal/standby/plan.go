package standby

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/objstore"
)

const (
	// fewObjects is how many objects of level 0 are applied as they are; with
	// more, the merged levels are asked for what does the same with less.
	fewObjects = 30

	// One transaction takes objects until they come to this.
	batchBytes   = 16 << 20
	batchObjects = 256
)

// after chooses, of objects in any order, those that carry a database from a TXID as
// far as they reach, always the one that goes on and reaches furthest. An object may
// begin before the TXID: its pages are those of its end. beyond is the first TXID that
// there is after a gap, 0 if there is none.
func after(objects []objstore.Object, have ltx.TXID) (chain []objstore.Object, beyond ltx.TXID) {
	rest := slices.DeleteFunc(slices.Clone(objects), func(o objstore.Object) bool { return o.Max <= have })
	slices.SortFunc(rest, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
	for i := 0; ; {
		var best objstore.Object
		for ; i < len(rest) && rest[i].Min <= have+1; i++ {
			if cmp.Or(cmp.Compare(rest[i].Max, best.Max), cmp.Compare(best.Size, rest[i].Size)) > 0 {
				best = rest[i]
			}
		}
		if best.Max <= have {
			if i < len(rest) {
				beyond = rest[i].Min
			}
			return chain, beyond
		}
		chain, have = append(chain, best), best.Max
	}
}

// newest is the highest TXID of objects.
func newest(objects []objstore.Object) (txid ltx.TXID) {
	for _, o := range objects {
		txid = max(txid, o.Max)
	}
	return txid
}

// batches cuts a chain into what is applied in one transaction each.
func batches(chain []objstore.Object) (all [][]objstore.Object) {
	for len(chain) > 0 {
		n, size := 1, chain[0].Size
		for n < len(chain) && n < batchObjects && size+chain[n].Size <= batchBytes {
			size += chain[n].Size
			n++
		}
		all, chain = append(all, chain[:n]), chain[n:]
	}
	return all
}

// changes lists the levels that hold changes, from a TXID on. Level 0 is listed
// before the others: what leaves it meanwhile is in another by then.
func changes(ctx context.Context, store objstore.Store) ([]objstore.Object, error) {
	var levels [objstore.SnapshotLevel][]objstore.Object
	list := func(ctx context.Context, level int) (err error) {
		levels[level], err = store.List(ctx, level, 0)
		if err != nil {
			return fmt.Errorf("list %s: %w", store, err)
		}
		return nil
	}
	if err := list(ctx, 0); err != nil {
		return nil, err
	}
	g, ctx := group.WithContext(ctx)
	for level := 1; level < len(levels); level++ {
		g.Go(func() error { return list(ctx, level) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(levels[:]...), nil
}
