package shipper

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
)

// run is the goroutine. A panic of it, or of one that it has started, is an Abort, and
// what there is to do at the end is done all the same.
func (s *Shipper) run() {
	defer close(s.done)
	s.guard(s.shipOrFollow)
	if err := s.abortError(); err != nil && s.lock != nil {
		s.guard(func() { s.fail(StateBroken, err) })
	}
	for _, end := range []func(){s.isReady, s.endLate, s.resign, s.closeLedger} {
		s.guard(end)
	}
}

// guard calls f, on a goroutine of the Shipper's. A panic is an Abort.
func (s *Shipper) guard(f func()) {
	if s.cfg.Panicked == nil {
		f()
	} else if p := group.Catch(f); p != nil {
		s.panicked(p)
	}
}

// panicked is what becomes of a panic that was caught, from any goroutine.
func (s *Shipper) panicked(p *group.Panic) {
	if s.cfg.Panicked == nil {
		panic(p)
	}
	s.cfg.Panicked(p)
	s.Abort(fmt.Sprintf("internal error: %v", p.Value))
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
	// A ledger that has just been opened in the place of a lost one may be empty yet.
	for deadline != nil && s.state == StateShipping && s.ledger.Load().Ready() && s.hasWork() {
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
	case <-time.After(s.lookEvery()):
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
		again = time.After(s.lookEvery())
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

// lookEvery is how often is looked at what no event tells of: as often as a batch would be
// due, and once a second at the most.
func (s *Shipper) lookEvery() time.Duration { return max(s.cfg.Interval, time.Second) }

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
		ticker := time.NewTicker(s.lookEvery())
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
		if s.state == StateNotWAL || s.malformed || !time.Now().Add(again).Before(d.deadline) {
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
