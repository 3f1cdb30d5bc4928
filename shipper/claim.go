package shipper

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// claim finds out whether the prefix is ours: it is if nothing is there and the
// ledger is new, or if the ledger's newest object is there, header for header,
// and everything after it bears a nonce of ours. Otherwise the database stays
// unclaimed, and nothing is put. It returns a pause after which to try again
// where the store did not answer, 0 otherwise.
func (s *Shipper) claim() time.Duration {
	var unclaimed *notOurs
	s.attempt()
	began := bootTime()
	err := s.tryClaim()
	if err == nil {
		err = s.probe()
	}
	switch {
	case err == nil:
		s.claimed = true
		s.proof = began
		s.succeed()
		return 0
	case s.ctx.Err() != nil:
		return 0
	case errors.As(err, &unclaimed):
		s.fail(unclaimed.state, err)
		return 0
	default:
		s.failStore(err)
		return s.retry.next()
	}
}

// notOurs is the error of a prefix that cannot be claimed.
type notOurs struct {
	state State
	text  string
}

func (e *notOurs) Error() string { return e.text }

func (s *Shipper) tryClaim() error {
	h := s.header()
	known := h.TXID != 0 || slices.ContainsFunc(h.Attempts[:], func(a ledger.Attempt) bool { return a.TXID != 0 })
	if known {
		switch proven, err := s.proven(ltx.TXID(h.TXID)); {
		case err != nil:
			return err
		case proven:
			return s.catchUp()
		}
	}
	newest, err := s.newest()
	if err != nil {
		return err
	}
	switch {
	case newest == nil && h.TXID == 0:
		// A first attempt may still arrive, so its nonce is kept.
		return s.abortUploads()
	case newest == nil:
		s.cfg.Log(true, fmt.Sprintf("%s holds nothing any more, or is another replica than before: a new history begins there", s.cfg.Store))
		return s.startOver()
	case s.cfg.Takeover:
		return s.takeOver(*newest)
	}
	return &notOurs{StateUnclaimed, fmt.Sprintf("%s holds a database already (up to TXID %s) and this ledger cannot prove that it is this one, so nothing ships: give the database a prefix of its own, or restore the replica and go on from that, or open it with takeover=1 to go on there with what is here", s.cfg.Store, newest.Max)}
}

// proven reports whether the store has the object that the ledger calls its
// newest: the very one, by the sum of its header. An attempt of ours at the one after it
// proves the same, since it was made when the prefix was ours; the newest itself may
// have been merged and removed since, and a power loss have taken the ledger back to it.
// Nothing proves TXID 0 but that nothing else is there than attempts of ours.
func (s *Shipper) proven(head ltx.TXID) (bool, error) {
	if head == 0 {
		newest, err := s.newest()
		if err != nil || newest == nil {
			return false, err
		}
		whose, err := s.whose(*newest, nil)
		return newest.Max == 1 && whose == earlier, err
	}
	// The one after it too: a kill may have parted the sum from the TXID.
	places := []objstore.Object{objectOf(head), objectOf(head + 1)}
	const guessed = 2 // those, which nobody has listed
	for level := 0; level <= objstore.SnapshotLevel; level++ {
		objects, err := s.cfg.Store.List(s.ctx, level, s.listFrom(level, head))
		if err != nil {
			return false, err
		}
		for _, o := range objects {
			if o.Max == head {
				places = append(places, o)
			}
		}
		if level == 0 && len(places) > guessed {
			break
		}
	}
	for i, o := range places {
		header, raw, err := objstore.ReadHeader(s.ctx, s.cfg.Store, o)
		if errors.Is(err, objstore.ErrNotExist) && i < guessed {
			continue
		}
		// One that is listed and not there, or no LTX file, proves nothing either way.
		if err != nil {
			return false, err
		}
		if ledger.HeadSum(raw[:]) == s.header().HeadSum || o.Max > head && s.tried(o.Max, header.NodeID) {
			return true, nil
		}
	}
	return false, nil
}

// listFrom is where a level's list must begin to hold all objects that end at
// head: at level 0 an object is one TXID.
func (s *Shipper) listFrom(level int, head ltx.TXID) ltx.TXID {
	if level == 0 {
		return head
	}
	return 1
}

// catchUp walks over what is newer than the ledger knows: attempts of ours whose
// replies were lost, and nothing else.
func (s *Shipper) catchUp() error {
	h := s.header()
	for {
		next := objectOf(ltx.TXID(h.TXID + 1))
		whose, err := s.whose(next, nil)
		if errors.Is(err, objstore.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if whose != earlier {
			return s.overtaken(next)
		}
		if err := s.acceptEarlier(next); err != nil {
			return err
		}
	}
	newer, err := s.cfg.Store.List(s.ctx, 0, ltx.TXID(h.TXID+1))
	if err != nil {
		return err
	}
	if len(newer) > 0 {
		return s.overtaken(newer[0])
	}
	return s.abortUploads()
}

func (s *Shipper) overtaken(by objstore.Object) error {
	if s.cfg.Takeover {
		newest, err := s.newest()
		if err != nil {
			return err
		}
		return s.takeOver(*newest)
	}
	return &notOurs{StateFenced, fmt.Sprintf("another writer has put %s into %s: stop one of the two, then give this database another prefix, or open it with takeover=1 to go on with what is here", by, s.cfg.Store)}
}

// abortUploads ends multipart uploads that a crash left behind.
func (s *Shipper) abortUploads() error {
	h := s.header()
	for i := range h.Attempts {
		a := &h.Attempts[i]
		if id := a.Upload.String(); a.TXID != 0 && id != "" {
			switch err := s.cfg.Store.AbortUpload(s.ctx, objectOf(ltx.TXID(a.TXID)), id); {
			case errors.Is(err, objstore.ErrRefused):
				// Nothing that shipping depends on.
				s.cfg.Log(true, fmt.Sprintf("an unfinished upload stays in the bucket until its lifecycle rules remove it: %v", err))
			case err != nil:
				return err
			}
			a.Upload.Set("")
		}
	}
	return s.abortKept()
}

// abortKept ends the upload of a merge or a snapshot that was under way.
func (s *Shipper) abortKept() error {
	u := &s.header().KeepUpload
	if id := u.Upload.String(); u.Max != 0 && id != "" {
		o := objstore.Object{Level: int(u.Level), Min: ltx.TXID(u.Min), Max: ltx.TXID(u.Max)}
		if err := s.cfg.Store.AbortUpload(s.ctx, o, id); err != nil && !errors.Is(err, objstore.ErrRefused) {
			return err
		}
	}
	u.Max = 0
	return nil
}

// newest returns the object that reaches furthest, nil if there is none.
func (s *Shipper) newest() (*objstore.Object, error) {
	var newest *objstore.Object
	for level := 0; level <= objstore.SnapshotLevel; level++ {
		objects, err := s.cfg.Store.List(s.ctx, level, 1)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if newest == nil || o.Max > newest.Max {
				newest = &o
			}
		}
	}
	return newest, nil
}

// takeOver goes on after an object of somebody else's with all that is here.
func (s *Shipper) takeOver(newest objstore.Object) error {
	header, raw, err := objstore.ReadHeader(s.ctx, s.cfg.Store, newest)
	if err != nil {
		return err
	}
	if err := s.startOver(); err != nil {
		return err
	}
	l := s.ledger.Load()
	h := l.Header()
	h.PageSize = header.PageSize
	h.HeadSum, h.HeadTimeMs = ledger.HeadSum(raw[:]), header.Timestamp
	atomic.StoreUint64(&h.TXID, uint64(newest.Max))
	s.cfg.Log(true, fmt.Sprintf("takeover: the history of %s goes on after TXID %s with this database", s.cfg.Store, newest.Max))
	return l.Sync()
}

// probe finds out once per ledger whether the store keeps two writers apart. The
// error is the store's refusal of what a PUT would need.
func (s *Shipper) probe() error {
	h := s.header()
	if atomic.LoadUint32(&h.Conditional) != 0 {
		return nil
	}
	switch ok, err := s.cfg.Store.Conditional(s.ctx); {
	case errors.Is(err, objstore.ErrRefused):
		return err
	case err != nil: // not known; asked again with the next claim
	case ok:
		atomic.StoreUint32(&h.Conditional, conditionalYes)
	default:
		atomic.StoreUint32(&h.Conditional, conditionalNo)
		s.cfg.Log(true, fmt.Sprintf("%s ignores If-None-Match: it cannot keep two writers apart, so see to it that only one machine ships there", s.cfg.Store))
	}
	return nil
}
