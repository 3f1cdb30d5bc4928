package shipper

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/spool"
)

// pinMost is the longest that a look at many pages keeps a snapshot pinned: what is
// committed meanwhile stays in the WAL behind it.
const pinMost = 50 * time.Millisecond

// sliced reads pages of a database for as long as it takes, from one snapshot
// after the other, each pinned for pinMost at the most. So what it reads is no
// committed state; its user must know what changed since.
type sliced struct {
	s     *Shipper
	snap  Snapshot
	until time.Time
}

// read is a Snapshot's Read. Pages beyond the end of the database are zeros.
func (r *sliced) read(pages []uint32, buf []byte) error {
	for busy := busyPause; ; {
		if r.snap != nil && time.Now().After(r.until) {
			r.close()
			time.Sleep(slicePause)
		}
		err := r.pin()
		if err == nil {
			if err = r.once(pages, buf); err == nil {
				return nil
			}
			r.close()
		}
		if !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-r.s.ctx.Done():
			return r.s.ctx.Err()
		case <-time.After(busy):
			busy = min(2*busy, time.Second)
		}
	}
}

func (r *sliced) pin() (err error) {
	if r.snap == nil {
		r.snap, err = r.s.cfg.Source.Pin(false)
		r.until = time.Now().Add(pinMost)
	}
	return err
}

func (r *sliced) once(pages []uint32, buf []byte) error {
	size := int(r.snap.PageSize())
	if size == 0 || size*len(pages) != len(buf) {
		return errEverything // it is another database now: begin again
	}
	n := len(pages)
	for n > 0 && pages[n-1] > r.snap.Pages() {
		n--
	}
	clear(buf[n*size:])
	return r.snap.Read(pages[:n], buf[:n*size])
}

func (r *sliced) close() {
	if r.snap != nil {
		r.snap.Close()
		r.snap = nil
	}
}

// scan looks at every page and puts those in flight that differ from their
// entries. Others are marked as ever meanwhile.
func (s *Shipper) scan(l *ledger.Ledger) error {
	all := atomic.LoadUint64(&l.Header().All) // before the first pin: what is counted later is of a later state
	at, err := s.peek(l)
	if err != nil || at.pages == 0 {
		return err
	}
	r := &sliced{s: s}
	defer r.close()
	lock := ledger.LockPage(at.pageSize)
	batch, buf := make([]uint32, 0, chunkPages), s.buffer(at.pageSize)
	flush := func() error {
		if err := r.read(batch, buf[:len(batch)*int(at.pageSize)]); err != nil {
			return err
		}
		for i, p := range batch {
			if l.Sum(p) != ledger.PageSum(p, buf[i*int(at.pageSize):(i+1)*int(at.pageSize)]) {
				l.SetInflight(p)
			}
		}
		batch = batch[:0]
		return nil
	}
	for p := uint32(1); p <= at.pages && p != 0; p++ {
		if p != lock {
			batch = append(batch, p)
		}
		if len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	s.looked = looked{all, &at.position}
	return nil
}

// peek looks at the newest state for its size.
func (s *Shipper) peek(l *ledger.Ledger) (pinned, error) {
	snap, err := s.cfg.Source.Pin(false)
	if err != nil {
		return pinned{}, err
	}
	defer snap.Close()
	return s.look(l, snap)
}

// readFirst encodes the whole database, for the first object. It reads in
// slices, then once more what changed since a slice was read. Where nothing did,
// which is the rule, the file is finished by then; else it is written again with
// what did.
func (s *Shipper) readFirst(l *ledger.Ledger) (*object, error) {
	all := atomic.LoadUint64(&l.Header().All)
	// All pages are read, so from here on what is marked is what changed since.
	// Should the process end, every page is a candidate still: nothing was stored.
	l.TakeDirty(nil, nil)
	l.ClearInflight()
	first, err := s.peek(l)
	if err != nil || first.pages == 0 {
		return nil, err
	}
	s.looked = looked{all, &first.position}
	first.every, first.tail = true, nil
	l.ClearInflight()
	o, err := s.encodeSliced(l, first)
	if err != nil {
		return nil, err
	}
	at, err := s.collect(l)
	if err != nil {
		return nil, err
	}
	list := s.copies.list(at.pages)
	if at.pages == first.pages && len(list) == 0 {
		o.position = at.position
		return o, nil
	}
	return s.encodeAgain(l, at, first.pages, list)
}

func (s *Shipper) encodeSliced(l *ledger.Ledger, at pinned) (*object, error) {
	r := &sliced{s: s}
	defer r.close()
	return s.encode(l, at, l.Candidates(at.pages, 0, true), r.read)
}

// encodeAgain takes what is in s.body for the pages that are not in list.
func (s *Shipper) encodeAgain(l *ledger.Ledger, at pinned, had uint32, list []copied) (*object, error) {
	if err := s.copies.pages.Flush(); err != nil {
		return nil, err
	}
	old := s.body
	defer old.Reset()
	s.body = spool.Spool{Dir: old.Dir}
	s.sums.Reset()
	dec := ltx.NewDecoder(io.NewSectionReader(&old, 0, old.Size()))
	if err := dec.DecodeHeader(); err != nil {
		return nil, fmt.Errorf("read first snapshot back: %w", err)
	}
	size := int(at.pageSize)
	fresh := s.copies.reader(list)
	var head ltx.PageHeader
	read := func(pages []uint32, buf []byte) error {
		for i, p := range pages {
			page := buf[i*size : (i+1)*size]
			for p <= had && head.Pgno < p {
				if err := dec.DecodePage(&head, page); err != nil {
					return fmt.Errorf("read first snapshot back: %w", err)
				}
			}
			if len(list) > 0 && list[0].pgno == p {
				if err := fresh([]uint32{p}, page); err != nil {
					return err
				}
				list = list[1:]
			} else if p > had {
				return fmt.Errorf("page %d, by which the database grew, was not marked: %w", p, errEverything)
			}
		}
		return nil
	}
	at.every = true
	return s.encode(l, at, l.Candidates(at.pages, 0, true), read)
}
