package shipper

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/internal/ledger"
)

// open maps the ledger and watches it.
func (s *Shipper) open() error {
	l, err := ledger.Open(s.cfg.Database)
	if err != nil {
		return err
	}
	s.ledger.Store(l)
	if s.stopWatch, err = s.cfg.watch(l.Path(), s.signal, s.panicked); err != nil {
		s.stopWatch = nil
		s.cfg.Log(true, fmt.Sprintf("%v: looking every %v instead", err, s.lookEvery()))
	}
	return nil
}

// tell records, and logs once, why the role cannot be taken; nil and ErrLocked end that.
func (s *Shipper) tell(err error) {
	if err == nil || errors.Is(err, ledger.ErrLocked) {
		s.trouble.Store(nil)
		return
	}
	text := "the ledger cannot be kept beside the database: " + err.Error()
	if was := s.trouble.Swap(&text); was == nil || *was != text {
		s.cfg.Log(true, "nothing ships: "+text)
	}
}

func (s *Shipper) closeLedger() {
	if s.stopWatch != nil {
		s.stopWatch()
		s.stopWatch = nil
	}
	s.unmap.Lock()
	defer s.unmap.Unlock()
	s.unmapped = true
	if l := s.ledger.Load(); l != nil {
		l.Close()
	}
}

// reopen follows a ledger that was removed or replaced. What others have mapped
// is told to be mapped again; the old mapping is left to the end of the process,
// since a Status may be reading it.
func (s *Shipper) reopen() {
	old := s.ledger.Load()
	old.Abandon()
	if s.trouble.Load() == nil {
		s.cfg.Log(true, "the ledger was removed or replaced: every page will be compared")
	}
	if s.stopWatch != nil {
		s.stopWatch()
		s.stopWatch = nil
	}
	if err := s.open(); err != nil {
		s.tell(err)
		select {
		case <-s.ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// elect takes the role if it is free, and makes the ledger fit to be used.
func (s *Shipper) elect() error {
	l := s.ledger.Load()
	lock, err := l.TryLock(s.cfg.Descriptors)
	if err != nil {
		return err
	}
	if err := s.adoptLedger(l); err != nil {
		lock.Unlock()
		return err
	}
	s.lock = lock
	s.retry, s.busy = backoff{}, 0
	s.before.Requests.Store(s.cfg.Traffic.Requests.Load())
	s.before.Bytes.Store(s.cfg.Traffic.Bytes.Load())
	s.beginTerm(l)
	return nil
}

// beginTerm makes this the ledger's shipper.
func (s *Shipper) beginTerm(l *ledger.Ledger) {
	h := l.Header()
	s.term = l.Elect(os.Getpid())
	s.claimed, s.proof, s.xorKnown, s.base = false, 0, false, nil
	s.chores.grown, s.chores.recent = false, nil
	s.dropSnapshot()
	h.SetReplica(s.cfg.Store.String())
	atomic.StoreUint64(&h.IntervalMs, uint64(s.cfg.Interval.Milliseconds()))
	atomic.StoreUint64(&h.Batches, 0)
	atomic.StoreUint64(&h.Failed, 0)
	s.answers = 0
	s.setState(StateStarting, "")
	s.beat()
}

// startOver forgets all that the ledger knew of a store.
func (s *Shipper) startOver() error {
	l := s.ledger.Load()
	if err := l.Reset(s.cfg.Database); err != nil {
		return err
	}
	s.beginTerm(l)
	return nil
}

// followed reports that the ledger is another file by now, or another shipper's: then it
// is not to be written to. With the lock held the second cannot be.
func (s *Shipper) followed() bool {
	l := s.ledger.Load()
	return l.Lost() || atomic.LoadUint64(&l.Header().ShipperEpoch) != s.term
}

func (s *Shipper) resign() {
	if lock := s.lock; lock != nil {
		s.lock = nil
		lock.Unlock()
	}
}

// adoptLedger looks at what was found: is it whole, ours, of this boot, of this
// database? What cannot be trusted is made new; what may have lost marks makes
// every page a candidate.
func (s *Shipper) adoptLedger(l *ledger.Ledger) error {
	h := l.Header()
	switch err := l.Check(); {
	case err == nil:
	case errors.Is(err, ledger.ErrNew):
		return l.Reset(s.cfg.Database)
	case errors.Is(err, ledger.ErrVersion), errors.Is(err, ledger.ErrGarbled), errors.Is(err, ledger.ErrCopied):
		s.cfg.Log(true, fmt.Sprintf("%v: it is made new, and every page will be compared", err))
		return l.Reset(s.cfg.Database)
	default:
		return err
	}
	unsure := false
	if boot := ledger.BootID(); boot != h.Boot {
		// Marks of another boot may not have reached the disk, unless the
		// last close was clean and the file is as it was left.
		wal, err := os.Stat(s.cfg.Database + "-wal")
		walEmpty := err != nil || wal.Size() == 0
		unsure = h.Stamp.Valid == 0 || !walEmpty || ledger.StampOf(s.cfg.Database) != h.Stamp
		// Nor may all of what an object under way has changed here.
		unsure = unsure || h.DBPages == ledger.None && h.TXID != 0
		h.Boot = boot
		l.NewEpoch()
	}
	if dev, ino := ledger.Inode(s.cfg.Database); dev != h.DBDev || ino != h.DBIno {
		unsure = unsure || h.DBIno != 0
		h.DBDev, h.DBIno = dev, ino
	}
	if h.DBPages != ledger.None && h.PageSize != 0 && l.Unknown(h.DBPages, ledger.LockPage(h.PageSize)) {
		unsure = true
	}
	if unsure {
		atomic.AddUint64(&h.All, 1)
	}
	return nil
}

// hasWork reports whether the store may lack something.
func (s *Shipper) hasWork() bool {
	h := s.header()
	return atomic.LoadUint32(&h.Poked) != 0 || atomic.LoadUint64(&h.All) != atomic.LoadUint64(&h.AllDone) ||
		atomic.LoadUint64(&h.TXID) == 1 || s.ledger.Load().Pending() > 0
}

// shipNow reports whether somebody waits for the window under way. Windows that
// did not begin yet are a wish of an epoch that has ended.
func (s *Shipper) shipNow() bool {
	h := s.header()
	wanted := atomic.LoadUint64(&h.SyncWanted)
	return wanted > atomic.LoadUint64(&h.Durable) && wanted <= atomic.LoadUint64(&h.Window)
}

func (s *Shipper) header() *ledger.Header { return s.ledger.Load().Header() }

// setState records and logs a change of state, once.
func (s *Shipper) setState(state State, cause string) {
	h := s.header()
	if h.Cause() != cause {
		h.SetCause(cause)
	}
	atomic.StoreUint32(&h.State, uint32(state))
	if state == s.state && cause == s.cause {
		return
	}
	was := s.state
	s.state, s.cause = state, cause
	switch {
	case state == StateShipping:
		s.cfg.Log(false, fmt.Sprintf("shipping to %s from TXID %016x", s.cfg.Store, atomic.LoadUint64(&h.TXID)))
	case state == StateStarting:
	case state == was && state != StateFailing:
		// The same trouble in other words.
	default:
		s.cfg.Log(state != StateNotWAL, fmt.Sprintf("%s: %s", state, cause))
	}
}

// attempt notes whose wishes what is begun now is for: theirs who have made them by now,
// and they are told if it fails. Who asks later is told of a later attempt only, since
// what has made this one fail may be over by then.
func (s *Shipper) attempt() { s.answers = atomic.LoadUint64(&s.header().Wishes) }

// asked reports that somebody waits for an attempt that has not begun yet.
func (s *Shipper) asked() bool { return atomic.LoadUint64(&s.header().Wishes) != s.answers }

// fail records why an attempt did not arrive and wakes who waits for it.
func (s *Shipper) fail(state State, err error) {
	h := s.header()
	if h.LastError() == "" {
		atomic.StoreUint64(&h.ErrorSinceMs, uint64(time.Now().UnixMilli()))
	}
	h.SetLastError(err.Error())
	s.setState(state, err.Error())
	atomic.StoreUint64(&h.Failed, s.answers)
	wakeWaiters(h)
}

func (s *Shipper) succeed() {
	h := s.header()
	if h.LastError() != "" {
		h.SetLastError("")
		atomic.StoreUint64(&h.ErrorSinceMs, 0)
	}
	s.retry = backoff{}
	s.setState(StateShipping, "")
}

// beat keeps the status fresh.
func (s *Shipper) beat() {
	h := s.header()
	atomic.StoreUint64(&h.HeartbeatMs, uint64(time.Now().UnixMilli()))
	atomic.StoreUint64(&h.Requests, s.cfg.Traffic.Requests.Load()-s.before.Requests.Load())
	atomic.StoreUint64(&h.Bytes, s.cfg.Traffic.Bytes.Load()-s.before.Bytes.Load())
}
