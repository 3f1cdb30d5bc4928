package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
)

// Drain is a request to ship what is there before the database goes away. Who
// waits for it bounds the wait himself.
type Drain struct {
	deadline time.Time
	read     chan struct{} // closed: nothing more is read from the database
	done     chan struct{} // closed: it is in the store, or will not be
	readOnce sync.Once
}

// Read is closed once the last batch has been read from the database.
func (d *Drain) Read() <-chan struct{} { return d.read }

// Done is closed once it is in the store, or will not be any more by this Drain.
func (d *Drain) Done() <-chan struct{} { return d.done }

func (d *Drain) haveRead() { d.readOnce.Do(func() { close(d.read) }) }

// Ready is closed once it is known whether the prefix is ours, or that another
// process ships.
func (s *Shipper) Ready() <-chan struct{} { return s.ready }

// errEnded is returned once the Shipper is closed.
var errEnded = errors.New("replication of the database has ended")

// errTrouble is returned while the ledger cannot be opened, made or locked.
var errTrouble = errors.New("nothing ships")

// withLedger calls f with the ledger, unless it is unmapped already or cannot be had.
func (s *Shipper) withLedger(f func(*ledger.Ledger)) error {
	s.unmap.RLock()
	defer s.unmap.RUnlock()
	if s.unmapped {
		return cmp.Or(s.abortError(), errEnded)
	}
	if why := s.trouble.Load(); why != nil {
		return fmt.Errorf("%w: %s", errTrouble, *why)
	}
	f(s.ledger.Load())
	return nil
}

// Status reads the ledger.
func (s *Shipper) Status() (status Status) {
	if err := s.abortError(); err != nil {
		return Status{State: StateBroken.String(), Cause: err.Error(), Replica: s.cfg.Store.String()}
	}
	err := s.withLedger(func(l *ledger.Ledger) {
		status = Status{State: StateStarting.String(), Replica: s.cfg.Store.String()}
		if l.Ready() { // else it is being made, and may be too short to look at
			status = ReadStatus(l)
		}
	})
	if errors.Is(err, errTrouble) {
		return Status{State: StateFailing.String(), Cause: err.Error(), LastError: err.Error(), Replica: s.cfg.Store.String()}
	}
	if err != nil {
		return Status{State: "off", Cause: err.Error()}
	}
	return status
}

// Err is the reason why nothing ships, nil while something does.
func (s *Shipper) Err() (reason error) {
	if err := s.abortError(); err != nil {
		return err
	}
	err := s.withLedger(func(l *ledger.Ledger) {
		if !l.Ready() {
			reason = errors.New(StateStarting.String())
			return
		}
		h := l.Header()
		state := State(atomic.LoadUint32(&h.State))
		switch cause := h.Cause(); {
		case state == StateShipping || state == StateNotWAL:
		case cause != "":
			reason = fmt.Errorf("%s: %s", state, cause)
		default:
			reason = errors.New(state.String())
		}
	})
	return cmp.Or(err, reason)
}

// Sync has everything shipped that is committed, by whichever process ships,
// and returns the newest object's TXID. The error is the context's or the cause
// why the first attempt that has begun since the call has failed.
func (s *Shipper) Sync(ctx context.Context) (txid ltx.TXID, err error) {
	var w wish
	look, again := time.NewTicker(syncLook), time.NewTicker(syncAgain)
	defer look.Stop()
	defer again.Stop()
	for done := false; err == nil; {
		if gone := s.withLedger(func(l *ledger.Ledger) {
			if !l.Ready() {
				return // it is being made
			}
			if w.ledger != l || w.epoch != atomic.LoadUint64(&l.Header().Epoch) {
				w.make(l) // the first time, or its window is of an epoch that has ended
			}
			txid, done, err = w.granted()
		}); gone != nil {
			err = gone
		}
		if done || err != nil {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-look.C:
		case <-again.C:
			_ = s.withLedger(func(l *ledger.Ledger) { l.Poke() })
		}
	}
	return txid, err
}

// wish is for a window to be shipped at once.
type wish struct {
	ledger                *ledger.Ledger
	epoch, window, number uint64
}

func (w *wish) make(l *ledger.Ledger) {
	h := l.Header()
	*w = wish{ledger: l, epoch: atomic.LoadUint64(&h.Epoch), window: atomic.LoadUint64(&h.Window)}
	for {
		wanted := atomic.LoadUint64(&h.SyncWanted)
		if wanted >= w.window || atomic.CompareAndSwapUint64(&h.SyncWanted, wanted, w.window) {
			break
		}
	}
	w.number = atomic.AddUint64(&h.Wishes, 1)
	l.Poke()
}

// granted reports whether the window is in the store, or why it will not be.
func (w *wish) granted() (txid ltx.TXID, done bool, err error) {
	h := w.ledger.Header()
	if atomic.LoadUint64(&h.Durable) >= w.window {
		return ltx.TXID(atomic.LoadUint64(&h.TXID)), true, nil
	}
	if State(atomic.LoadUint32(&h.State)).Stuck() {
		return 0, false, errors.New(h.Cause())
	}
	if atomic.LoadUint64(&h.Failed) >= w.number {
		if text := h.LastError(); text != "" { // else it went well since
			return 0, false, errors.New(text)
		}
	}
	return 0, false, nil
}

// syncLook is how often Sync looks at the ledger, where another process may be
// the one that ships.
const syncLook = 2 * time.Millisecond

// syncAgain is how often Sync wakes who ships once more: whoever was woken may have
// died of it.
const syncAgain = time.Second

// Drain asks for all that is committed to be shipped at once. It returns at
// once; the deadline bounds what it waits for.
func (s *Shipper) Drain(deadline time.Time) *Drain {
	d := &Drain{deadline: deadline, read: make(chan struct{}), done: make(chan struct{})}
	go s.guard(func() {
		taken := false
		defer func() {
			if !taken {
				d.end()
			}
		}()
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case s.drains <- d:
			taken = true
		case <-timer.C:
		case <-s.done:
		}
	})
	return d
}

func (d *Drain) end() {
	d.haveRead()
	close(d.done)
}
