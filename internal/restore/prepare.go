package restore

import (
	"context"
	"fmt"
	"slices"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// Prepared is a point of a replica's history, found, and what it takes to restore it.
type Prepared struct {
	History *history.History
	Plan    history.Plan
	Newest  ltx.TXID // that the replica holds
}

// Prepare finds a point in a replica and plans its restore. Nothing is downloaded but
// listings, and what tells the times of objects where the target is a time.
func Prepare(ctx context.Context, store objstore.Store, target history.Target) (Prepared, error) {
	h, err := history.List(ctx, store)
	if err != nil {
		return Prepared{}, err
	}
	p := Prepared{History: h}
	for _, level := range h.Levels {
		for _, o := range level {
			p.Newest = max(p.Newest, o.Max)
		}
	}
	txid := ltx.TXID(0)
	if target != (history.Target{}) {
		if txid, err = h.Resolve(ctx, target); err != nil {
			return Prepared{}, fmt.Errorf("%w at %s", err, store)
		}
	}
	if p.Plan, err = h.Plan(txid); err != nil {
		return Prepared{}, fmt.Errorf("%w at %s", err, store)
	}
	return p, nil
}

// Past reports that the replica holds newer transactions than the plan gives.
func (p Prepared) Past() bool { return p.Plan.TXID() < p.Newest }

// Requests is how many the downloads of the plan take if none fails.
func (p Prepared) Requests() int {
	n := 0
	for range whole(p.Plan.Files) {
		n++
	}
	return n
}

// without says what can be restored if an object is left out.
func (p Prepared) without(bad objstore.Object) string {
	rest := p.History.Without(bad)
	if !slices.ContainsFunc(rest.Objects(), func(o objstore.Object) bool { return o.Min == 1 }) {
		return "without it nothing can be restored"
	}
	if _, err := rest.Plan(p.Plan.TXID()); err == nil && p.Past() {
		return "without it TXID " + p.Plan.TXID().String() + " can be restored from other files"
	}
	plan, err := rest.Plan(0)
	if err == nil {
		return fmt.Sprintf("without it the database can be restored up to TXID %s", plan.TXID())
	}
	return "without it the " + err.Error()
}
