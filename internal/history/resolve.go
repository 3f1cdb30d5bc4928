package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

// probes is how many headers are read at a time: with each round trip the search
// narrows to a ninth, so that 100,000 restore points take six.
const probes = 8

// Target names a state. At most one field is set; with none it is the newest.
type Target struct {
	TXID ltx.TXID
	Time time.Time
	Mark string
}

// Resolve returns a target's TXID, for Plan. A time's is the newest restore point that
// is not younger; a time behind all of them gives the newest. Of marks with one name the
// last counts. The error wraps ErrNothing, ErrGap, ErrNoPoint or the store's.
func (h *History) Resolve(ctx context.Context, t Target) (ltx.TXID, error) {
	named := 0
	for _, is := range []bool{t.TXID != 0, !t.Time.IsZero(), t.Mark != ""} {
		if is {
			named++
		}
	}
	switch {
	case named > 1:
		return 0, errors.New("more than one of TXID, time and mark is given: choose one")
	case t.TXID != 0:
		return t.TXID, nil
	case t.Mark != "":
		return h.marked(t.Mark)
	case !t.Time.IsZero():
		return h.at(ctx, t.Time)
	}
	p, err := h.Plan(0)
	if err != nil {
		return 0, err
	}
	return p.TXID(), nil
}

// marked finds a mark by its name.
func (h *History) marked(name string) (ltx.TXID, error) {
	for _, m := range slices.Backward(h.Marks) {
		if m.Name == name {
			if _, err := h.Plan(m.TXID); err != nil {
				return 0, fmt.Errorf("mark %q: %w", name, err)
			}
			return m.TXID, nil
		}
	}
	if len(h.Marks) == 0 {
		return 0, fmt.Errorf("%w: there is no mark %q, nor any other", ErrNoPoint, name)
	}
	const most = 5
	var names []string
	for _, m := range slices.Backward(h.Marks) {
		if s := fmt.Sprintf("%q", m.Name); !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return 0, fmt.Errorf("%w: there is no mark %q; the marks are, newest first, %s", ErrNoPoint, name, strings.Join(names, ", "))
}

// at finds the newest restore point that is not younger than a time. What a listing
// says of times is not the data's: a bucket tells when an object was written, which may be an hour
// or an outage later. So the headers decide, and since times rise with TXIDs a few
// of them will do.
func (h *History) at(ctx context.Context, t time.Time) (ltx.TXID, error) {
	all := h.Objects()
	if len(all) == 0 {
		return 0, ErrNothing
	}
	ways := findPaths(all, download)
	if len(ways.stops) == 0 {
		return 0, h.unreachable(ways, all, 0)
	}
	found, oldest, err := h.search(ctx, ways.points(), all, t)
	switch {
	case err != nil:
		return 0, err
	case found != 0:
		return found, h.behindGap(ctx, ways, all, found, t)
	case oldest.IsZero():
		return 0, fmt.Errorf("%w: no object can be read that tells its time", ErrNoPoint)
	}
	return 0, fmt.Errorf("%w: the history that is kept begins at %s, which is after %s",
		ErrNoPoint, oldest.In(t.Location()).Format(time.RFC3339), t.Format(time.RFC3339))
}

// search returns the last of points that is not younger than t and the time of the first that
// is. Points whose time cannot be read any more are passed over.
func (h *History) search(ctx context.Context, points []ltx.TXID, all []objstore.Object, t time.Time) (found ltx.TXID, younger time.Time, err error) {
	ends := map[ltx.TXID][]objstore.Object{} // lowest level first, whose time is the most exact
	for _, o := range all {
		ends[o.Max] = append(ends[o.Max], o)
	}
	for len(points) > 0 {
		n := min(probes, len(points))
		at, times := make([]int, n), make([]time.Time, n)
		g, ctx := group.WithContext(ctx)
		for i := range n {
			at[i] = (2*i + 1) * len(points) / (2 * n)
			g.Go(func() (err error) {
				times[i], err = h.timeOf(ctx, ends[points[at[i]]])
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return 0, younger, err
		}
		from, to, gone := 0, len(points), map[ltx.TXID]bool{}
		for i := 0; i < n && to == len(points); i++ {
			switch {
			case times[i].IsZero():
				gone[points[at[i]]] = true
			case times[i].After(t):
				younger, to = times[i], at[i]
			default:
				found, from = points[at[i]], at[i]+1
			}
		}
		points = slices.DeleteFunc(points[from:to], func(p ltx.TXID) bool { return gone[p] })
	}
	return found, younger, nil
}

// behindGap is an error where the state at t was one behind a gap, that cannot be
// restored, and what was found is older.
func (h *History) behindGap(ctx context.Context, ways paths, all []objstore.Object, found ltx.TXID, t time.Time) error {
	i, _ := ways.find(found)
	for _, g := range ways.gaps(all) {
		if g.From <= found || i+1 < len(ways.stops) && g.From > ways.stops[i+1].txid {
			continue
		}
		var first []objstore.Object
		for _, o := range all {
			if o.Min == g.To+1 {
				first = append(first, o)
			}
		}
		at, err := h.timeOf(ctx, first)
		if err != nil {
			return err
		}
		if !at.IsZero() && !at.After(t) {
			return fmt.Errorf("%w: TXIDs %s to %s are missing, and later ones are older than %s; the newest before them that can be restored is TXID %s",
				ErrGap, g.From, g.To, t.Format(time.RFC3339), found)
		}
		break
	}
	return nil
}

// timeOf reads the time from the first object that can be read. It is zero where none can,
// as when compaction has removed them since the listing.
func (h *History) timeOf(ctx context.Context, objects []objstore.Object) (time.Time, error) {
	if h.store == nil {
		return time.Time{}, errors.New("this history has no store to read times from")
	}
	for _, o := range objects {
		var head ltx.Header
		var passed bool
		err := retry.Do(ctx, func() (err error) {
			head, _, err = objstore.ReadHeader(ctx, h.store, o)
			if passed = errors.Is(err, ltx.ErrInvalidFile) || errors.Is(err, objstore.ErrNotExist); passed {
				return nil
			}
			return err
		})
		if err != nil {
			return time.Time{}, err
		}
		if !passed {
			return time.UnixMilli(head.Timestamp), nil
		}
	}
	return time.Time{}, nil
}
