package shipper

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"golang.org/x/sys/unix"
)

const (
	// slowPut is how long a PUT may take before the store is looked at again:
	// another machine may have taken over meanwhile.
	slowPut = 30 * time.Second

	// proofHolds is half the time for which Litestream keeps level 0 at the
	// least. Within it no compaction can have freed a name that was taken, so
	// that a name being free proves that nobody has written it.
	proofHolds = 150 * time.Second
)

// proofHolds is less where our own level 0 goes sooner.
func (k Keep) proofHolds() time.Duration {
	if k.on() {
		return min(proofHolds, k.Policy.L0/2)
	}
	return proofHolds
}

// backoff doubles from half a second to 30 s, with jitter so that many
// databases do not knock at a store together.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 500*time.Millisecond), 30*time.Second)
	return b.last/2 + rand.N(b.last/2)
}

// levelOf is where an object lies: the first holds the whole database and is
// stored once only, as a snapshot.
func levelOf(txid ltx.TXID) int {
	if txid == 1 {
		return objstore.SnapshotLevel
	}
	return 0
}

func objectOf(txid ltx.TXID) objstore.Object {
	return objstore.Object{Level: levelOf(txid), Min: txid, Max: txid}
}

// put brings an object into the store, trying again for as long as it takes: the
// same bytes under the same name, since an earlier try may have arrived. It
// returns early, with a pause after which a new batch is to be read, where a
// Drain's time is over or an earlier attempt turns out to be there.
func (s *Shipper) put(o *object, d *Drain) (again time.Duration, err error) {
	name := objectOf(o.txid)
	meta := objstore.Meta{Timestamp: o.time, Checksum: o.checksum, Window: o.window}
	for {
		s.attempt()
		began := bootTime()
		err := s.cfg.Store.Create(s.ctx, name, &s.body, meta, func(id string) { s.noteUpload(o, id) })
		if errors.Is(err, objstore.ErrExist) {
			switch whose, lookErr := s.whose(name, o); {
			case lookErr != nil:
				err = lookErr
			case whose == ours:
				err = nil
			case s.followed():
				return 0, errLost
			case whose == earlier:
				if err = s.acceptEarlier(name); err == nil {
					return time.Millisecond, nil
				}
			default:
				s.fenced(name)
				return 0, nil
			}
		}
		if err == nil {
			return s.believe(o, name, began)
		}
		if s.ctx.Err() != nil {
			return 0, s.ctx.Err()
		}
		s.failStore(err)
		if !s.pause(d) {
			return s.retry.last + time.Millisecond, nil
		}
		if s.followed() {
			return 0, errLost
		}
	}
}

// pause waits before the next try, unless somebody has asked for one since the last began.
// False when there is no time left for another.
func (s *Shipper) pause(d *Drain) bool {
	wait := s.retry.next()
	if d != nil {
		if left := time.Until(d.deadline); left < wait {
			return false
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !s.asked() {
		select {
		case <-s.ctx.Done():
			return true // the caller looks
		case <-timer.C:
			return true
		case <-s.wake:
		case late := <-s.drains:
			// Somebody wants to close while the store is away: this batch is
			// read, the rest stays in the ledger. One more try is made now.
			late.haveRead()
			s.late = append(s.late, late)
			return true
		}
	}
	return true
}

// failStore records what the store said.
func (s *Shipper) failStore(err error) {
	if errors.Is(err, objstore.ErrRefused) {
		s.fail(StateRefused, err)
	} else {
		s.fail(StateUnreachable, err)
	}
	s.beat()
}

// believe decides whether a successful PUT means what it says. A name can be
// free again after compaction, so a proof that is too old must be renewed: if
// something newer is there that is not ours, our object is taken back.
func (s *Shipper) believe(o *object, name objstore.Object, began time.Duration) (time.Duration, error) {
	now := bootTime()
	stale := s.proof == 0 || now-s.proof > s.cfg.Keep.proofHolds()
	for stale || now-began > slowPut {
		s.attempt()
		newer, err := s.cfg.Store.List(s.ctx, 0, o.txid+1)
		if err == nil && len(newer) == 0 {
			break
		}
		if err == nil {
			if stale {
				_ = s.cfg.Store.Remove(s.ctx, name)
			}
			s.fenced(newer[0])
			return 0, nil
		}
		if s.ctx.Err() != nil {
			return 0, s.ctx.Err()
		}
		s.failStore(err)
		s.pause(nil)
	}
	s.proof = now
	return 0, nil
}

type owner int

const (
	foreign owner = iota
	ours          // this attempt of ours
	earlier       // an attempt of ours whose outcome was not known
)

// whose reads the nonce of an object that is there. An answer that is no LTX header is an
// error, to be asked for again: it tells of a fault on the way and of no other writer.
func (s *Shipper) whose(name objstore.Object, o *object) (owner, error) {
	header, _, err := objstore.ReadHeader(s.ctx, s.cfg.Store, name)
	if err != nil {
		return foreign, err
	}
	if o != nil && header.NodeID == o.nonce {
		return ours, nil
	}
	if s.tried(name.Max, header.NodeID) {
		return earlier, nil
	}
	return foreign, nil
}

// tried reports that a nonce is one of ours for a TXID.
func (s *Shipper) tried(txid ltx.TXID, nonce uint64) bool {
	return slices.ContainsFunc(s.header().Attempts[:], func(a ledger.Attempt) bool {
		return a.TXID == uint64(txid) && a.Nonce == nonce
	})
}

// acceptEarlier goes on from an object of an attempt of before. Which pages it
// holds is not known any more; their entries were made unknown and their bits
// are still in flight.
func (s *Shipper) acceptEarlier(name objstore.Object) error {
	header, raw, err := objstore.ReadHeader(s.ctx, s.cfg.Store, name)
	if err != nil {
		return err
	}
	s.dropSnapshot()
	h := s.header()
	h.PageSize = header.PageSize
	h.HeadSum, h.HeadTimeMs = ledger.HeadSum(raw[:]), header.Timestamp
	atomic.StoreUint32(&h.DBPages, ledger.None)
	atomic.StoreUint64(&h.TXID, uint64(name.Max))
	settleAttempts(h)
	s.xorKnown = false
	return nil
}

func (s *Shipper) fenced(by objstore.Object) {
	s.fail(StateFenced, fmt.Errorf("another writer has put %s into %s: stop one of the two, then give this database another prefix, or open it with takeover=1 to go on with what is here", by, s.cfg.Store))
}

// noteAttempt remembers a try before it is made. A slot is freed when the object
// after its own is tried: not when its own is settled, since the slots and the
// TXID lie in several pages of the ledger, of which a power loss may leave one
// older than the other. Should all be taken, the oldest is given up.
func noteAttempt(h *ledger.Header, o *object) {
	slot := 0
	for i, a := range h.Attempts {
		if a.TXID+1 < uint64(o.txid) {
			h.Attempts[i] = ledger.Attempt{}
			a.TXID = 0
		}
		if a.TXID == 0 {
			slot = i
			break
		}
		if i == len(h.Attempts)-1 {
			copy(h.Attempts[:], h.Attempts[1:])
			slot = i
		}
	}
	h.Attempts[slot] = ledger.Attempt{TXID: uint64(o.txid), Nonce: o.nonce}
}

func (s *Shipper) noteUpload(o *object, id string) {
	h := s.header()
	for i := range h.Attempts {
		if h.Attempts[i].TXID == uint64(o.txid) && h.Attempts[i].Nonce == o.nonce {
			h.Attempts[i].Upload.Set(id)
		}
	}
}

// settleAttempts forgets the uploads of all objects up to the newest.
func settleAttempts(h *ledger.Header) {
	for i := range h.Attempts {
		if a := &h.Attempts[i]; a.TXID <= h.TXID && a.Upload.String() != "" {
			a.Upload.Set("")
		}
	}
}

// bootTime goes on while the machine is suspended, as another machine's time does.
func bootTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}
