package history

import (
	"context"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/objstore"
)

// lanes is how many headers Times reads at once.
const lanes = 16

// Times reads the times of restore points from the headers of files that end there, a
// request each. It is zero for a point where none can be read.
func (h *History) Times(ctx context.Context, points []ltx.TXID) ([]time.Time, error) {
	ends := map[ltx.TXID][]objstore.Object{}
	for _, p := range points {
		ends[p] = nil
	}
	for _, o := range h.Objects() { // lowest level first, whose time is the most exact
		if list, ok := ends[o.Max]; ok {
			ends[o.Max] = append(list, o)
		}
	}
	times := make([]time.Time, len(points))
	g, ctx := group.WithContext(ctx)
	g.SetLimit(lanes)
	for i, p := range points {
		g.Go(func() (err error) {
			times[i], err = h.timeOf(ctx, ends[p])
			return err
		})
	}
	return times, g.Wait()
}
