package standby

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/superfly/ltx"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

const (
	// busyMs is how long a transaction waits for a lock that a checkpoint or the
	// recovery of another program holds.
	busyMs = 5000

	// A WAL of walPassive bytes is copied into the database as far as readers allow;
	// of walRestart, readers are waited for, for up to restartMs, so that it can begin anew.
	walPassive = 4 << 20
	walRestart = 32 << 20
	restartMs  = 500

	// slowest is the longest time between two tries while they fail.
	slowest = 15 * time.Second

	// blankPolls is how often a level 0 without the standby's own object is
	// believed before the other levels are listed too.
	blankPolls = 30
)

// States of a standby, as an Event has them.
const (
	Filled      = "filled"      // from a snapshot
	CatchingUp  = "catching up" // applying what it has missed
	Following   = "following"   // at the replica's end
	Unreachable = "unreachable" // the store does not answer
	Waiting     = "waiting"     // what comes next is missing, damaged, or cannot be written here
	Stopped     = "stopped"     // as it was asked to
)

// Event is a change of state.
type Event struct {
	Time  time.Time `json:"time"`
	State string    `json:"state"`
	TXID  ltx.TXID  `json:"txid"`
	Of    time.Time `json:"of"`     // when TXID was shipped
	LagMs int64     `json:"lag_ms"` // following: how old TXID was when it was applied here, 0 if nothing was; else how old it is
	Cause string    `json:"cause,omitempty"`
}

// Options of Follow.
type Options struct {
	Interval time.Duration // between two looks at the store; 0: 1 s
	Force    bool          // make the target what the replica holds, whatever it is now
	Progress func(done, total int64)
	Event    func(Event) // told each change of state; may be nil
}

// Follow keeps the database file out a copy of the newest state of a replica until
// ctx ends, which is no error. It fills out first if there is none. Errors that pass are
// waited for: Follow returns only those that somebody has to mend.
func Follow(ctx context.Context, store objstore.Store, out string, opts Options) error {
	if opts.Interval <= 0 {
		opts.Interval = time.Second
	}
	if opts.Event == nil {
		opts.Event = func(Event) {}
	}
	s, filled, err := open(ctx, store, out, opts)
	if ctx.Err() != nil {
		if s != nil && err == nil {
			s.close()
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	f := &follower{standby: s, opts: opts, unproven: true}
	if filled {
		f.tell(Filled, "")
	}
	return f.run(ctx)
}

// follower is the loop around a standby.
type follower struct {
	*standby
	opts Options

	state    string
	applied  time.Time // when the position was reached, zero for that of the start
	failed   int       // tries in a row
	gaps     int       // polls in a row that found one
	blank    int       // polls in a row that found nothing at level 0
	unproven bool      // the store has not shown the standby's own object since the start or an outage
}

func (f *follower) run(ctx context.Context) error {
	for {
		err := f.poll(ctx)
		if ctx.Err() != nil {
			f.tell(Stopped, "")
			return nil
		}
		wait := f.opts.Interval
		if err == nil {
			f.failed = 0
		} else {
			if fatal(err) {
				return err
			}
			if errors.Is(err, objstore.ErrNotExist) && f.failed < 3 {
				f.failed++ // merged meanwhile: it is elsewhere
				continue
			}
			f.failed++
			f.unproven = true
			f.tell(stateOf(err), err.Error())
			wait = max(wait, min(wait<<min(f.failed, 16), slowest))
			wait += rand.N(wait/4 + 1)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
}

// fatal reports an error that does not pass.
func fatal(err error) bool {
	if failed := new(sqlError); errors.As(err, &failed) {
		switch failed.code & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY:
			return true
		}
	}
	return errors.Is(err, ErrWritten) || errors.Is(err, ErrHistory)
}

func stateOf(err error) string {
	failed, local := new(ltxfile.SourceError), new(sqlError)
	switch {
	case errors.Is(err, ltxfile.ErrCorrupt), errors.Is(err, errGap), errors.As(err, &local):
		return Waiting
	case errors.As(err, &failed):
		return Unreachable
	}
	return Waiting
}

// tell passes on a change of state.
func (f *follower) tell(state, cause string) {
	if state == f.state {
		return
	}
	f.state = state
	now := time.Now()
	e := Event{Time: now.UTC(), State: state, TXID: f.pos.At.TXID, Of: time.UnixMilli(f.pos.At.TimeMs).UTC(), Cause: cause}
	switch {
	case state != Following:
		e.LagMs = max(0, now.Sub(e.Of).Milliseconds())
	case !f.applied.IsZero():
		e.LagMs = max(0, f.applied.Sub(e.Of).Milliseconds())
	}
	f.opts.Event(e)
}

// poll looks for what comes after the position, and applies it.
func (f *follower) poll(ctx context.Context) error {
	if f.anew {
		return f.refresh(ctx)
	}
	level0, err := f.store.List(ctx, 0, f.pos.At.TXID)
	if err != nil {
		return fmt.Errorf("list %s: %w", f.store, &ltxfile.SourceError{Err: err})
	}
	if err := f.prove(ctx, level0); err != nil {
		return err
	}
	if len(level0) == 0 {
		if f.blank++; f.blank%blankPolls != 1 {
			return nil
		}
	} else {
		f.blank = 0
	}
	chain, beyond := after(level0, f.pos.At.TXID)
	if len(level0) == 0 || beyond != 0 || len(chain) > fewObjects {
		all, err := changes(ctx, f.store)
		if err != nil {
			return &ltxfile.SourceError{Err: err}
		}
		if len(all) == 0 || newest(all) < f.pos.At.TXID {
			if len(all) > 0 || !f.snapshotReaches(ctx) {
				return fmt.Errorf("%w: %s ends at TXID %s, before the standby's %s", errGap, f.store, newest(all), f.pos.At.TXID)
			}
		}
		chain, beyond = after(all, f.pos.At.TXID)
	}
	if beyond != 0 && len(chain) == 0 {
		// Levels are listed one after the other: a merge under way looks like
		// a gap, once.
		if f.gaps++; f.gaps < 2 {
			return nil
		}
		return f.refresh(ctx)
	}
	f.gaps = 0
	if err := f.catchUp(ctx, chain); err != nil {
		if errors.Is(err, ltxfile.ErrCorrupt) && f.bypass(ctx) {
			return f.refresh(ctx)
		}
		return err
	}
	f.tell(Following, "")
	return nil
}

// bypass reports that a snapshot after the position makes it unnecessary to apply
// what comes next, which is damaged.
func (f *follower) bypass(ctx context.Context) bool {
	h, err := history.List(ctx, f.store)
	if err != nil {
		return false
	}
	p, err := h.Plan(0)
	return err == nil && p.Files[0].Max > f.pos.At.TXID
}

// snapshotReaches reports a snapshot at the position or after it.
func (f *follower) snapshotReaches(ctx context.Context) bool {
	all, err := f.store.List(ctx, objstore.SnapshotLevel, 0)
	return err == nil && newest(all) >= f.pos.At.TXID
}

func (f *follower) catchUp(ctx context.Context, chain []objstore.Object) error {
	todo := batches(chain)
	for i, batch := range todo {
		if len(todo)-i > 1 {
			f.tell(CatchingUp, "")
		}
		if err := f.apply(ctx, batch, false); err != nil {
			return err
		}
		f.applied = time.Now()
		if err := f.shorten(); err != nil {
			return err
		}
	}
	return nil
}

// refresh takes the differences between the standby and the replica's newest state,
// whatever the standby is at, in one transaction.
func (f *follower) refresh(ctx context.Context) error {
	h, err := history.List(ctx, f.store)
	if err != nil {
		return &ltxfile.SourceError{Err: err}
	}
	p, err := h.Plan(0)
	if err != nil {
		return fmt.Errorf("%w: %w at %s", errGap, err, f.store)
	}
	if p.TXID() <= f.pos.At.TXID && !f.anew {
		return fmt.Errorf("%w: %s can be restored up to TXID %s only", errGap, f.store, p.TXID())
	}
	f.tell(CatchingUp, "")
	if err := f.apply(ctx, p.Files, true); err != nil {
		return err
	}
	f.anew, f.gaps, f.applied = false, 0, time.Now()
	f.pos.Replica = f.store.String()
	if err := f.shorten(); err != nil {
		return err
	}
	f.tell(Following, "")
	return nil
}

// prove looks, where the store still has the object that the standby is at,
// whether it is that object, and not one of another history.
func (f *follower) prove(ctx context.Context, level0 []objstore.Object) error {
	at := f.pos.At
	if !f.unproven || at.Head == 0 {
		return nil
	}
	i := slices.IndexFunc(level0, func(o objstore.Object) bool { return o.Min == at.TXID && o.Max == at.TXID })
	if i < 0 {
		return nil
	}
	if name := fmt.Sprintf("0/%s", level0[i].Name()); at.Object != "" && at.Object != name {
		return nil // its header is not the one that was seen
	}
	// An answer that is no LTX header tells of a fault on the way, and of no other history.
	_, raw, err := objstore.ReadHeader(ctx, f.store, level0[i])
	if err != nil {
		return &ltxfile.SourceError{Err: err}
	}
	if ledger.HeadSum(raw[:]) != at.Head {
		return fmt.Errorf("%w: %s at %s is not the one that was applied here; -force takes the differences from the replica",
			ErrHistory, level0[i], f.store)
	}
	f.unproven = false
	return nil
}

// shorten keeps the WAL short.
func (s *standby) shorten() error {
	info, err := os.Stat(s.path + "-wal")
	if err != nil || info.Size() < walPassive {
		return nil
	}
	if info.Size() >= walRestart {
		s.c.busyTimeout(restartMs)
		defer s.c.busyTimeout(busyMs)
		_, err := s.c.checkpoint(sqlite3.SQLITE_CHECKPOINT_TRUNCATE)
		return err
	}
	_, err = s.c.checkpoint(sqlite3.SQLITE_CHECKPOINT_PASSIVE)
	return err
}
