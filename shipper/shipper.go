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
// # A history
//
// Objects of level 0 are merged into levels 1 to 3, snapshots are made of the
// database itself, and what retention lets go is removed (keep.go, snapshot.go).
// What is due is found in the ledger when a batch has ended: no timer runs, and a
// process that lives for a second does its part. Merging and removing are a
// goroutine's beside the batches, which touches only the store, and nothing is removed
// before what replaces it is there.
//
// The role of shipper belongs to one process at a time, by a lock on the ledger.
// The others wait for the end of that lock.
package shipper

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/spool"
)

// Config is what a Shipper needs. Database, Store and Source are required.
type Config struct {
	Database string // path
	Store    objstore.Store
	Source   Source
	Interval time.Duration // the window

	// Takeover goes on with the history of a prefix that is not provably ours.
	Takeover bool

	// Sync is called when a batch was read, before it is put: it makes what was
	// read safe from a power cut. While it fails nothing is put. May be nil.
	Sync func() error

	// Keep says how the history is kept.
	Keep Keep

	// Traffic counts what the store's client sends; may be nil.
	Traffic *Traffic

	// Descriptors opens the lock's descriptor so that no forked child keeps it.
	Descriptors ledger.Descriptors

	// Log takes one line about this database. An error is a thing that
	// somebody must look at; may be nil.
	Log func(isError bool, line string)

	// Panicked is told what ended the Shipper before Close did, should that
	// happen; nil lets it end the program.
	Panicked func(*group.Panic)

	// watch is watchFile, save in tests.
	watch func(path string, wake func()) (stop func(), err error)

	// now is time.Now, save in tests.
	now func() time.Time
}

// Traffic is counted by a store's client from any goroutine.
type Traffic struct {
	Requests, Bytes atomic.Uint64
}

// Shipper ships one database from one process, or waits until it may. It has
// one goroutine, started by New and ended by Close, which now and then starts
// another that merges and removes objects (keep.go) and ends before it does.
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

	trouble atomic.Pointer[string] // why the role cannot be taken; nil: it can, or another process has it

	last    atomic.Pointer[time.Time] // of Close: until when something may still be shipped
	aborted atomic.Pointer[string]    // the cause, of Abort

	unmap    sync.RWMutex // held by those outside the goroutine who look at the ledger
	unmapped bool

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
	looked    looked      // of the batch under way
	reached   *Position   // up to which it has read
	base      *Position   // up to which everything is in the store or marked; nil: not known
	body      spool.Spool // the batch under way
	sums      spool.Spool
	copies    copies
	buf       []byte // of the pages that are read at a time
	chunks    chan *chunk
	retry     backoff
	busy      time.Duration // last pause for somebody else's lock
	late      []*Drain      // to be served; some of them came while a PUT was being tried
	before    Traffic       // at the begin of the term
	chores    chores
	snapshot  snapshot
}

// New opens the ledger of a database, making one where there is none, and
// starts to ship or to wait. It does not wait for the store. Where the ledger
// cannot be opened or made, for the want of space or descriptors say, the status
// tells so, and that is tried again: the fault may end before the program does.
func New(cfg Config) *Shipper {
	s := newShipper(cfg)
	err := s.open()
	if err == nil {
		err = s.elect()
	}
	s.tell(err)
	// Another process may be making the ledger just now. Who writes before it is
	// there marks nothing.
	for until := time.Now().Add(ledgerWait); errors.Is(err, ledger.ErrLocked) && !s.ledger.Load().Ready() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	go s.run()
	return s
}

// ledgerWait bounds how long an open waits for another process to make the ledger: it
// takes some milliseconds and a few fsyncs.
const ledgerWait = time.Second

// newShipper is a Shipper without a ledger and without its goroutine.
func newShipper(cfg Config) *Shipper {
	if cfg.Log == nil {
		cfg.Log = func(bool, string) {}
	}
	if cfg.Sync == nil {
		cfg.Sync = func() error { return nil }
	}
	if cfg.Traffic == nil {
		cfg.Traffic = new(Traffic)
	}
	if cfg.watch == nil {
		cfg.watch = watchFile
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	s := &Shipper{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		drains: make(chan *Drain),
		chunks: newChunks(),
		done:   make(chan struct{}),
		ready:  make(chan struct{}),
		body:   spool.Spool{Dir: filepath.Dir(cfg.Database)},
		sums:   spool.Spool{Dir: filepath.Dir(cfg.Database)},
		copies: copies{pages: spool.Spool{Dir: filepath.Dir(cfg.Database)}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends the goroutine and gives the role up. What is not in the store stays
// in the ledger; Drain first for it to be shipped. Should another process have
// committed after that and have ended in the belief that this one ships, it is shipped
// too, at most until the deadline.
func (s *Shipper) Close(deadline time.Time) {
	s.last.CompareAndSwap(nil, &deadline)
	s.cancel()
	<-s.done
}

// Abort has the Shipper end for a cause that is a fault of this process: nothing more
// is shipped, and who waits is told the cause, unless another process goes on. It
// waits for nothing and may be called from anywhere. Close is still to be called.
func (s *Shipper) Abort(cause string) {
	s.aborted.CompareAndSwap(nil, &cause)
	s.cancel()
}

// run is the goroutine. A panic of it, or of one that it has started, is an Abort.
func (s *Shipper) run() {
	defer close(s.done)
	defer s.closeLedger()
	defer s.resign()
	defer s.endLate()
	defer s.isReady()
	if s.cfg.Panicked == nil {
		s.shipOrFollow()
	} else if p := group.Catch(s.shipOrFollow); p != nil {
		s.cfg.Panicked(p)
		s.Abort(fmt.Sprintf("internal error: %v", p.Value))
	}
	if err := s.abortError(); err != nil && s.lock != nil {
		group.Catch(func() { s.fail(StateBroken, err) }) // if even that is broken, there is nobody to tell
	}
}

// isReady closes ready.
func (s *Shipper) isReady() { s.readyOnce.Do(func() { close(s.ready) }) }

// abortError is the cause of an Abort, nil without one.
func (s *Shipper) abortError() error {
	if cause := s.aborted.Load(); cause != nil {
		return errors.New(*cause)
	}
	return nil
}

// shipOrFollow ships while this process has the role, and waits for the role
// otherwise.
func (s *Shipper) shipOrFollow() {
	for s.ctx.Err() == nil {
		if s.ledger.Load() == nil {
			s.begin()
			continue
		}
		if s.lock == nil {
			s.follow()
			continue
		}
		err := s.lead()
		if s.abortError() != nil {
			return // with the role, under which the ledger is told
		}
		s.resign()
		if errors.Is(err, errLost) {
			s.reopen()
		}
	}
	if s.abortError() == nil {
		s.resign()
		s.lookBack()
	}
}

// lookBack ships what was marked between the last batch and the end of the role. Who
// marks looks afterwards whether somebody ships, and this one looks for marks when he
// has stopped: so one of the two sees the other.
func (s *Shipper) lookBack() {
	deadline := s.last.Load()
	for deadline != nil && s.state == StateShipping && s.hasWork() {
		if !time.Now().Add(afterClose).Before(*deadline) {
			return
		}
		time.Sleep(afterClose) // who waits for the role goes first
		if s.elect() != nil {
			return
		}
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithDeadline(context.Background(), *deadline)
		d := &Drain{deadline: *deadline, read: make(chan struct{}), done: make(chan struct{})}
		err := s.drain(d)
		cancel()
		s.resign()
		if err != nil {
			return
		}
	}
}

// begin waits a moment, and tries again to open the ledger that could not be opened.
func (s *Shipper) begin() {
	s.isReady()
	select {
	case <-s.ctx.Done():
	case d := <-s.drains:
		d.end()
	case <-time.After(max(s.cfg.Interval, time.Second)):
		if err := s.open(); err != nil {
			s.tell(err)
		} // else who takes the role tells
	}
}

// follow waits until the role is free, or a Drain asks.
func (s *Shipper) follow() {
	l := s.ledger.Load()
	// Looked at before it is tried: a try opens and closes the file, which wakes
	// all who watch it, and this one too.
	err := ledger.ErrLocked
	if !l.Locked() {
		if err = s.elect(); err == nil {
			s.tell(nil)
			return
		}
	}
	s.tell(err)
	// Without a watch, or where no event will tell that it is worth a try, look
	// again as often as a batch would be due.
	look := s.stopWatch == nil || l.Lost() || !errors.Is(err, ledger.ErrLocked)
	s.isReady()
	var again <-chan time.Time
	if look {
		again = time.After(max(s.cfg.Interval, time.Second))
	}
	wake := s.wake
	if !errors.Is(err, ledger.ErrLocked) {
		wake = nil // the try itself has woken this one
	}
	select {
	case <-s.ctx.Done():
	case <-wake:
		// The kernel tells of a close before it drops the lock, and of the
		// last close of a process that was killed nothing may follow.
		if l.Locked() {
			select {
			case <-s.ctx.Done():
			case <-time.After(afterClose):
			}
		}
	case <-again:
		if l.Lost() {
			s.reopen()
		}
	case d := <-s.drains:
		if s.elect() != nil {
			d.end()
			return
		}
		s.late = append(s.late, d)
		_ = s.drainLate() // lead meets the error too
	}
}

// afterClose is how long after a wake a lock that was still held is looked at again.
const afterClose = 20 * time.Millisecond

// lead ships until the role is lost or the Shipper is closed.
func (s *Shipper) lead() error {
	again := s.claim()
	s.isReady()
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
		s.stopChores()
		s.dropSnapshot()
	}()
	if s.hasWork() && !s.state.Stuck() {
		schedule(again)
	}
	var look <-chan time.Time
	if s.stopWatch == nil {
		ticker := time.NewTicker(max(s.cfg.Interval, time.Second))
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case d := <-s.drains:
			s.late = append(s.late, d)
			if err := s.drainLate(); err != nil {
				return err
			}
			if due == nil && !s.state.Stuck() && s.state != StateNotWAL && s.hasWork() {
				schedule(s.cfg.Interval)
			}
			continue
		case <-look:
			s.signal()
			continue
		case r := <-s.chores.result:
			s.endChores(r)
			continue
		case <-s.chores.again:
			s.chores.again = nil
			s.startSnapshot()
			s.startChores()
			continue
		case <-s.snapshot.due:
			s.copyMore()
			s.startChores()
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
		if err == nil {
			err = s.drainLate()
		}
		if err != nil {
			return err
		}
		switch {
		case s.state.Stuck():
		case again > 0:
			schedule(again)
		case s.state == StateNotWAL: // until somebody writes
		case s.shipNow():
			schedule(0)
		case s.hasWork():
			schedule(s.cfg.Interval)
		}
		s.startSnapshot()
		s.startChores()
	}
}

func (s *Shipper) endLate() {
	for _, d := range s.late {
		d.end()
	}
	s.late = nil
}

// drainLate serves the Drains that came so far.
func (s *Shipper) drainLate() error {
	for len(s.late) > 0 {
		d := s.late[0]
		s.late = s.late[1:]
		if err := s.serve(d); err != nil {
			s.endLate()
			return err
		}
	}
	return nil
}

// serve ends a Drain whatever happens.
func (s *Shipper) serve(d *Drain) error {
	defer d.end()
	return s.drain(d)
}

// drain ships what was committed when it began, at most until the deadline. What
// other processes commit meanwhile has time.
func (s *Shipper) drain(d *Drain) error {
	h := s.header()
	window := atomic.LoadUint64(&h.Window)
	for !s.state.Stuck() && s.ctx.Err() == nil && time.Now().Before(d.deadline) &&
		atomic.LoadUint64(&h.Durable) < window && (s.hasWork() || s.shipNow()) {
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
	if err := s.finishCopy(d); err != nil {
		return err
	}
	d.haveRead()
	s.finishChores(d.deadline)
	return nil
}

func (s *Shipper) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
