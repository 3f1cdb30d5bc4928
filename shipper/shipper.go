// Package shipper carries what changed in a database to a store.
//
// There is one path, for the first snapshot, for every second's batch and for
// a repair after a crash (batch.go, put.go):
//
//	candidate pages -> read at one snapshot -> compare with the ledger -> LTX -> PUT -> ledger
//
// Candidates are the pages that markers have made dirty in the ledger, or all
// pages where what changed is not known. A page whose sum the ledger has is not
// sent. The package knows neither SQLite nor S3: pages come from a Source,
// objects go to an objstore.Store.
//
// # Rules
//
// A batch moves dirty bits in flight before it pins its snapshot, and clears only
// those, and only when the store has the object and the ledger the new sums.
// Before an object is put, the sums of its pages are made unknown, the attempt
// and its nonce are noted, and the ledger is synced; so an entry is exact or
// unknown, whatever moment the process or the machine ends at.
//
// An object is created only if none of its name exists. Who finds one there
// looks for a nonce of his own in its header: then it is his; otherwise another
// writer is at the prefix and the shipper is fenced.
//
// The role of shipper belongs to one process at a time, by a lock on the ledger.
// The others wait for the end of that lock.
package shipper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// Config is what a Shipper needs. Database, Store and Source are required.
type Config struct {
	Database string // path
	Store    objstore.Store
	Source   Source
	Interval time.Duration // the window

	// Takeover goes on with the history of a prefix that is not provably ours.
	Takeover bool

	// Traffic counts what the store's client sends; may be nil.
	Traffic *Traffic

	// Descriptors opens the lock's descriptor so that no forked child keeps it.
	Descriptors ledger.Descriptors

	// Log takes one line about this database. An error is a thing that
	// somebody must look at; may be nil.
	Log func(isError bool, line string)

	// Panicked is told what stopped the goroutine, should that happen; nil
	// lets it stop the program.
	Panicked func(value any, stack []byte)
}

// Traffic is counted by a store's client from any goroutine.
type Traffic struct {
	Requests, Bytes atomic.Uint64
}

// Shipper ships one database from one process, or waits until it may. It has
// one goroutine, started by New and ended by Close.
type Shipper struct {
	cfg    Config
	ledger atomic.Pointer[ledger.Ledger]

	wake   chan struct{} // the ledger's file was written to, or somebody ended
	drains chan *Drain
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{}
	ready  chan struct{} // closed when the first claim was decided, or another process ships

	readyOnce sync.Once

	// Of the goroutine alone.
	lock      *ledger.Lock
	stopWatch func()
	term      uint64 // the ledger's shipper epoch while this one is elected
	claimed   bool
	proof     time.Duration // boot time at which the prefix was last seen to be ours
	xor       uint64        // of all entries
	xorKnown  bool
	state     State
	cause     string
	body      spool // the batch under way
	sums      spool
	copies    copies
	buf       []byte // of the pages that are read at a time
	chunks    chan *chunk
	retry     backoff
	busy      time.Duration // last pause for somebody else's lock
	late      []*Drain      // came while a PUT was being tried
	base      Traffic       // at the begin of the term
}

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

// New opens the ledger of a database, making one where there is none, and
// starts to ship or to wait. It does not wait for the store. The error is of the
// file system: the ledger cannot be made there.
func New(cfg Config) (*Shipper, error) {
	if cfg.Log == nil {
		cfg.Log = func(bool, string) {}
	}
	if cfg.Traffic == nil {
		cfg.Traffic = new(Traffic)
	}
	s := &Shipper{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		drains: make(chan *Drain),
		chunks: newChunks(),
		done:   make(chan struct{}),
		ready:  make(chan struct{}),
		body:   spool{dir: filepath.Dir(cfg.Database)},
		sums:   spool{dir: filepath.Dir(cfg.Database)},
		copies: copies{pages: spool{dir: filepath.Dir(cfg.Database)}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		s.cancel()
		return nil, err
	}
	if err := s.elect(); err != nil && !errors.Is(err, ledger.ErrLocked) {
		s.closeLedger()
		s.cancel()
		return nil, err
	}
	go s.run()
	return s, nil
}

// Close ends the goroutine and gives the role up. What is not in the store stays
// in the ledger; Drain first for it to be shipped.
func (s *Shipper) Close() {
	s.cancel()
	<-s.done
}

// Ready is closed once it is known whether the prefix is ours, or that another
// process ships.
func (s *Shipper) Ready() <-chan struct{} { return s.ready }

// Status reads the ledger.
func (s *Shipper) Status() Status { return ReadStatus(s.ledger.Load()) }

// Err is the reason why nothing ships, nil while something does.
func (s *Shipper) Err() error {
	h := s.ledger.Load().Header()
	switch state := State(atomic.LoadUint32(&h.State)); state {
	case StateShipping, StateNotWAL:
		return nil
	default:
		if cause := h.Cause(); cause != "" {
			return fmt.Errorf("%s: %s", state, cause)
		}
		return errors.New(state.String())
	}
}

// Sync has everything shipped that is committed, by whichever process ships,
// and returns the newest object's TXID. The error is the context's or the cause
// of the next failure.
func (s *Shipper) Sync(ctx context.Context) (ltx.TXID, error) {
	l := s.ledger.Load()
	h := l.Header()
	window, failures := atomic.LoadUint64(&h.Window), atomic.LoadUint64(&h.Failures)
	for {
		wanted := atomic.LoadUint64(&h.SyncWanted)
		if wanted >= window || atomic.CompareAndSwapUint64(&h.SyncWanted, wanted, window) {
			break
		}
	}
	l.Poke()
	look := time.NewTicker(syncLook)
	defer look.Stop()
	for {
		if atomic.LoadUint64(&h.Durable) >= window {
			return ltx.TXID(atomic.LoadUint64(&h.TXID)), nil
		}
		if State(atomic.LoadUint32(&h.State)).Stuck() {
			return 0, errors.New(h.Cause())
		}
		if atomic.LoadUint64(&h.Failures) != failures {
			return 0, errors.New(h.LastError())
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.done:
			return 0, errors.New("replication of the database has ended")
		case <-look.C:
		}
	}
}

// syncLook is how often Sync looks at the ledger, where another process may be
// the one that ships.
const syncLook = 2 * time.Millisecond

// Drain asks for all that is committed to be shipped at once. It returns at
// once; the deadline bounds what it waits for.
func (s *Shipper) Drain(deadline time.Time) *Drain {
	d := &Drain{deadline: deadline, read: make(chan struct{}), done: make(chan struct{})}
	go func() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case s.drains <- d:
		case <-timer.C:
			d.end()
		case <-s.done:
			d.end()
		}
	}()
	return d
}

func (d *Drain) end() {
	d.haveRead()
	close(d.done)
}

// run is the goroutine: it ships while it has the role, and waits for the role
// otherwise.
func (s *Shipper) run() {
	defer close(s.done)
	defer func() {
		if s.cfg.Panicked == nil {
			return
		}
		if v := recover(); v != nil {
			s.resign()
			s.cfg.Panicked(v, debug.Stack())
		}
	}()
	defer s.closeLedger()
	defer s.endLate()
	for s.ctx.Err() == nil {
		if s.lock == nil {
			s.follow()
			continue
		}
		err := s.lead()
		s.resign()
		if errors.Is(err, errLost) {
			s.reopen()
		}
	}
	s.resign()
}

// follow waits until the role is free, or a Drain asks.
func (s *Shipper) follow() {
	switch err := s.elect(); {
	case err == nil:
		return
	case !errors.Is(err, ledger.ErrLocked):
		s.cfg.Log(true, err.Error())
	}
	s.readyOnce.Do(func() { close(s.ready) })
	var again <-chan time.Time
	if s.stopWatch == nil || s.ledger.Load().Lost() {
		// Without a watch, look again as often as a batch would be due.
		again = time.After(max(s.cfg.Interval, time.Second))
	}
	select {
	case <-s.ctx.Done():
	case <-s.wake:
	case <-again:
		if s.ledger.Load().Lost() {
			s.reopen()
		}
	case d := <-s.drains:
		if s.elect() == nil {
			s.drain(d)
		}
		d.end()
	}
}

// lead ships until the role is lost or the Shipper is closed.
func (s *Shipper) lead() error {
	s.claim()
	s.readyOnce.Do(func() { close(s.ready) })
	var timer *time.Timer
	var due <-chan time.Time
	schedule := func(d time.Duration) {
		if timer != nil {
			timer.Stop()
		}
		timer = time.NewTimer(d)
		due = timer.C
	}
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	if s.hasWork() {
		schedule(0)
	}
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case d := <-s.drains:
			err := s.drain(d)
			d.end()
			if err != nil {
				return err
			}
			if due == nil && s.state != StateNotWAL && s.hasWork() {
				schedule(s.cfg.Interval)
			}
			continue
		case <-s.wake:
			switch {
			case s.state.Stuck():
			case s.shipNow():
				schedule(0)
			case due == nil && atomic.LoadUint32(&s.header().Poked) != 0:
				schedule(s.cfg.Interval)
			}
			continue
		case <-due:
			due = nil
		}
		again, err := s.batch(nil)
		if err != nil {
			return err
		}
		switch {
		case s.state.Stuck():
		case again > 0:
			schedule(again)
		case s.state == StateNotWAL: // until somebody writes
		case s.shipNow() || len(s.late) > 0 && s.hasWork():
			schedule(0)
			continue
		case s.hasWork():
			schedule(s.cfg.Interval)
		}
		s.endLate()
	}
}

func (s *Shipper) endLate() {
	for _, d := range s.late {
		d.end()
	}
	s.late = nil
}

// drain ships until nothing is left, at most until the deadline.
func (s *Shipper) drain(d *Drain) error {
	for !s.state.Stuck() && s.ctx.Err() == nil && (s.hasWork() || s.shipNow()) {
		again, err := s.batch(d)
		if err != nil {
			return err
		}
		if s.state == StateNotWAL || !time.Now().Add(again).Before(d.deadline) {
			return nil
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(again):
		}
	}
	return nil
}

// hasWork reports whether the store may lack something.
func (s *Shipper) hasWork() bool {
	h := s.header()
	return atomic.LoadUint32(&h.Poked) != 0 || atomic.LoadUint64(&h.All) != atomic.LoadUint64(&h.AllDone) ||
		s.ledger.Load().Pending() > 0
}

// shipNow reports whether somebody waits for the window under way.
func (s *Shipper) shipNow() bool {
	h := s.header()
	return atomic.LoadUint64(&h.SyncWanted) > atomic.LoadUint64(&h.Durable)
}

func (s *Shipper) header() *ledger.Header { return s.ledger.Load().Header() }

func (s *Shipper) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// open maps the ledger and watches it.
func (s *Shipper) open() error {
	l, err := ledger.Open(s.cfg.Database)
	if err != nil {
		return err
	}
	s.ledger.Store(l)
	if s.stopWatch, err = watchFile(l.Path(), s.signal); err != nil {
		s.stopWatch = nil
		s.cfg.Log(true, fmt.Sprintf("%v: looking every %v instead", err, s.cfg.Interval))
	}
	return nil
}

func (s *Shipper) closeLedger() {
	if s.stopWatch != nil {
		s.stopWatch()
		s.stopWatch = nil
	}
	s.ledger.Load().Close()
}

// reopen follows a ledger that was removed or replaced. What others have mapped
// is told to be mapped again; the old mapping is left to the end of the process,
// since a Status may be reading it.
func (s *Shipper) reopen() {
	old := s.ledger.Load()
	old.Abandon()
	s.cfg.Log(true, "the ledger was removed or replaced: every page will be compared")
	if s.stopWatch != nil {
		s.stopWatch()
		s.stopWatch = nil
	}
	if err := s.open(); err != nil {
		s.cfg.Log(true, err.Error())
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
	s.base.Requests.Store(s.cfg.Traffic.Requests.Load())
	s.base.Bytes.Store(s.cfg.Traffic.Bytes.Load())
	s.beginTerm(l)
	return nil
}

// beginTerm makes this the ledger's shipper.
func (s *Shipper) beginTerm(l *ledger.Ledger) {
	h := l.Header()
	s.term = l.Elect(os.Getpid())
	s.claimed, s.proof, s.xorKnown = false, 0, false
	atomic.StoreUint64(&h.IntervalMs, uint64(s.cfg.Interval.Milliseconds()))
	atomic.StoreUint64(&h.Batches, 0)
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

func (s *Shipper) resign() {
	if s.lock != nil {
		s.lock.Unlock()
		s.lock = nil
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

// fail counts a batch that did not arrive and wakes who waits for it.
func (s *Shipper) fail(state State, err error) {
	h := s.header()
	if h.LastError() == "" {
		atomic.StoreUint64(&h.ErrorSinceMs, uint64(time.Now().UnixMilli()))
	}
	h.SetLastError(err.Error())
	s.setState(state, err.Error())
	atomic.AddUint64(&h.Failures, 1)
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
	atomic.StoreUint64(&h.Requests, s.cfg.Traffic.Requests.Load()-s.base.Requests.Load())
	atomic.StoreUint64(&h.Bytes, s.cfg.Traffic.Bytes.Load()-s.base.Bytes.Load())
}
