package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

const (
	// maxMore is how many new objects are followed one by one; of more there may be a shorter
	// way, which a listing of everything tells.
	maxMore = 64

	// plans is how often a state is looked for anew because compaction has removed a file
	// of its plan meanwhile.
	plans = 5
)

// newest finds the newest state. With a head there is mostly one request, and one more for each
// object that is new.
func (s *Source) newest(ctx context.Context, head *View) (*View, error) {
	if head != nil && head.head.Level == 0 {
		more, ok, err := s.since(ctx, head)
		switch {
		case err != nil:
			return nil, err
		case ok && len(more) == 0:
			return head, nil
		case ok:
			v, err := s.build(ctx, head, more)
			if err == nil {
				v.head = more[len(more)-1]
				s.keep(v)
				return v, nil
			}
			if !errors.Is(err, objstore.ErrNotExist) {
				return nil, err
			}
		}
	}
	return s.find(ctx, history.Target{}, head, head)
}

// since lists the objects that continue from a state's own. Not ok where they do not tell all: that
// one has gone or is another's, or there are too many.
func (s *Source) since(ctx context.Context, head *View) (more []objstore.Object, ok bool, err error) {
	var all []objstore.Object
	err = persist(ctx, func() (err error) {
		all, err = s.store.List(ctx, 0, head.TXID)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if len(all) == 0 || all[0] != head.head || len(all) > maxMore {
		return nil, false, nil
	}
	for i, o := range all[1:] {
		if o.Min != all[i].Max+1 {
			return nil, false, nil
		}
	}
	return all[1:], true, nil
}

// find finds a state in a listing of the whole replica. What base has, and what it was made from, is not looked for
// again. What is found is of kin's history if the listing is; both may be nil.
func (s *Source) find(ctx context.Context, target history.Target, kin, base *View) (*View, error) {
	for try := 1; ; try++ {
		v, err := s.findOnce(ctx, target, kin, base)
		if !errors.Is(err, objstore.ErrNotExist) || try == plans {
			return v, err
		}
	}
}

func (s *Source) findOnce(ctx context.Context, target history.Target, kin, base *View) (*View, error) {
	var h *history.History
	err := persist(ctx, func() (err error) {
		h, err = history.List(ctx, s.store)
		return err
	})
	if err != nil {
		return nil, err
	}
	txid := ltx.TXID(0)
	if target != (history.Target{}) {
		if txid, err = h.Resolve(ctx, target); err != nil {
			return nil, fmt.Errorf("%w at %s", err, s.store)
		}
	}
	// A state that is known already is as good as a snapshot of it, and costs nothing.
	with := *h
	top := slices.Clip(h.Levels[objstore.SnapshotLevel])
	known := map[ltx.TXID]*View{}
	for b := base; b != nil; b = b.root {
		if known[b.TXID] == nil && proven(h, b) {
			known[b.TXID] = b
			top = append(top, objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: b.TXID, Size: knownSize})
		}
	}
	preferred, ok := s.preferred(h)
	if ok {
		top = append(top, objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: preferred.Max, Size: preferredSize})
	}
	with.Levels[objstore.SnapshotLevel] = top
	p, err := with.Plan(txid)
	if err != nil {
		return nil, fmt.Errorf("%w at %s", err, s.store)
	}
	base = nil
	if p.Files[0].Size == preferredSize {
		p.Files[0] = preferred
	}
	if p.Head.Size == preferredSize {
		p.Head = preferred
	}
	if p.Files[0].Size == knownSize {
		base, p.Files = known[p.Files[0].Max], p.Files[1:]
		if len(p.Files) == 0 {
			return s.timed(ctx, base)
		}
	}
	if v := s.inUse(h, p.TXID(), kin); v != nil && target != (history.Target{}) {
		return v, nil
	}
	v, err := s.build(ctx, base, p.Files)
	if err != nil {
		return nil, err
	}
	v.head = p.Head
	if kin != nil && proven(h, kin) {
		v.line = kin.line
	}
	s.keep(v)
	return v, nil
}

// inUse returns a view that somebody reads, if a listing is of its history; nil: there is none, or it
// lacks what kin does.
func (s *Source) inUse(h *history.History, txid ltx.TXID, kin *View) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.views {
		v := p.Value()
		if v != nil && v.TXID == txid && !(kin != nil && v.is(kin) && v.made <= kin.made) && proven(h, v) {
			return v
		}
	}
	return nil
}

// timed returns a view that knows its time. Of one that others only began from no header was read.
func (s *Source) timed(ctx context.Context, v *View) (*View, error) {
	if !v.Time.IsZero() {
		return v, nil
	}
	raw := make([]byte, ltx.HeaderSize)
	if err := s.get(ctx, v.head, 0, raw); err != nil {
		return nil, err
	}
	h, err := parseHeader(v.head, raw)
	if err != nil {
		return nil, err
	}
	with := &View{TXID: v.TXID, Time: timeOf(h), PageSize: v.PageSize, Pages: v.Pages,
		head: v.head, files: v.files, made: lastView.Add(1), line: v.line, table: v.table}
	s.keep(with)
	return with, nil
}

// knownSize marks what stands for a known state among a replica's objects.
const knownSize = -1

// preferredSize marks the file that a hydration began with.
const preferredSize = -2

// preferred is the file that a hydration began with, if it is there. To begin a plan with it costs
// nothing: one that begins with another knows the same pages by other names.
func (s *Source) preferred(h *history.History) (objstore.Object, bool) {
	if s.hydrate == nil {
		return objstore.Object{}, false
	}
	o, ok := s.hydrate.base()
	if !ok || o.Min != 1 || o.Level < 0 || o.Level >= history.Levels {
		return o, false
	}
	for _, is := range h.Levels[o.Level] {
		if is.Min == o.Min && is.Max == o.Max && is.Size == o.Size && is.ModTime.Equal(o.ModTime) {
			return is, true
		}
	}
	return o, false
}

// proven reports whether a listing is of the history that a state is from: whether one of the
// files that it was made of is there as it was. Somebody may have emptied the place since, and
// shipped another database there.
func proven(h *history.History, v *View) bool {
	for _, f := range slices.Backward(v.files) {
		if slices.Contains(h.Levels[f.Level], f) {
			return true
		}
	}
	return false
}

var errAnother = errors.New("what is there now under this TXID is another database")

// replan finds a state in files that are there.
func (s *Source) replan(ctx context.Context, gone *View) (*View, error) {
	v, err := s.find(ctx, history.Target{TXID: gone.TXID}, gone, gone.root)
	if err != nil {
		return nil, fmt.Errorf("a file of TXID %s has gone, and %w", gone.TXID, err)
	}
	if !v.is(gone) {
		return nil, fmt.Errorf("a file of TXID %s has gone, and %w", gone.TXID, errAnother)
	}
	return v, nil
}

// persist makes a request again until ctx ends where that may help.
func persist(ctx context.Context, f func() error) error {
	var last error
	for try := 0; ; try++ {
		err := f()
		if err == nil || retry.Permanent(err) {
			return err
		}
		if retry.Pause(ctx, min(try, 3)) != nil {
			return retry.Cause(ctx, last, err)
		}
		last = err
	}
}
