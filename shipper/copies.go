package shipper

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/spool"
)

const (
	// slice is the longest that a batch keeps its snapshot pinned at a time. A
	// writer that would restart the WAL meanwhile makes it give way, but
	// what is committed meanwhile stays in the WAL behind the pin.
	slice = 5 * time.Millisecond

	// slicePause lets a checkpoint and a restart of the WAL through between
	// two slices.
	slicePause = 2 * time.Millisecond

	// maxSlices bounds how often a batch begins again where pages change
	// faster than they can be read. Then it takes as long as it takes.
	maxSlices = 50
)

// errEverything ends a batch that finds that it must look at all pages.
var errEverything = errors.New("every page is a candidate")

// copies are the raw pages of a batch, read in slices. After the last slice they
// are one committed state, its own: a page that was read before and has changed
// since was marked since, and is read again.
type copies struct {
	pages spool.Spool
	at    []copied
	done  pageSet // read, and not marked since
	size  int
}

// copied tells which slot of the spool holds a page; a later slot is newer.
type copied struct{ pgno, slot uint32 }

func (c *copies) reset() {
	c.pages.Reset()
	c.at, c.done = c.at[:0], c.done[:0]
	if cap(c.at) > 1<<16 {
		c.at, c.done = nil, nil
	}
}

// collect reads all candidates but for a slice at a time, until the rest fits
// into one. What it returns of the state is that of the last slice.
func (s *Shipper) collect(l *ledger.Ledger) (pinned, error) {
	c := &s.copies
	for n := 0; ; n++ {
		if n > 0 {
			l.TakeDirty(c.done.forget, c.done.forgetAbove)
		}
		at, whole, err := s.copySlice(l, n >= maxSlices)
		if err != nil || whole {
			return at, err
		}
		time.Sleep(slicePause)
	}
}

// copySlice pins a state and reads what is not copied of it, for as long as a
// slice may last. whole: nothing is missing.
func (s *Shipper) copySlice(l *ledger.Ledger, last bool) (at pinned, whole bool, err error) {
	snap, err := s.cfg.Source.Pin(last)
	if err != nil {
		return at, false, err
	}
	defer snap.Close()
	until := time.Now().Add(slice)
	if at, err = s.look(l, snap); err != nil {
		return at, false, err
	}
	s.reached = &at.position
	if at.every || at.pages == 0 {
		return at, false, errEverything
	}
	c, h := &s.copies, l.Header()
	c.size = int(at.pageSize)
	for _, p := range at.tail {
		c.done.forget(p)
	}
	c.done.forgetAbove(min(at.smallest, atomic.LoadUint32(&h.MinPages)))

	lock := ledger.LockPage(at.pageSize)
	batch, buf := make([]uint32, 0, chunkPages), s.buffer(at.pageSize)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		b := buf[:len(batch)*c.size]
		if err := snap.Read(batch, b); err != nil {
			return err
		}
		for _, p := range batch {
			c.at = append(c.at, copied{p, uint32(len(c.at))})
			c.done.set(p)
		}
		batch = batch[:0]
		_, err := c.pages.Write(b)
		return err
	}
	for p := range l.Candidates(at.pages, at.floor, false) {
		if p == lock || c.done.has(p) && !l.Dirty(p) {
			continue
		}
		if batch = append(batch, p); len(batch) < cap(batch) {
			continue
		}
		if err := flush(); err != nil {
			return at, false, yielded(err, last)
		}
		if !last && time.Now().After(until) {
			return at, false, nil
		}
	}
	if err := flush(); err != nil {
		return at, false, yielded(err, last)
	}
	return at, true, nil
}

// yielded makes a slice that gave way one that ended.
func yielded(err error, last bool) error {
	if errors.Is(err, ErrBusy) && !last {
		return nil
	}
	return err
}

// list returns the pages of the state, each with its newest slot, in order.
func (c *copies) list(n uint32) []copied {
	slices.SortFunc(c.at, func(a, b copied) int {
		return cmp.Or(cmp.Compare(a.pgno, b.pgno), cmp.Compare(b.slot, a.slot))
	})
	c.at = slices.CompactFunc(c.at, func(a, b copied) bool { return a.pgno == b.pgno })
	end, _ := slices.BinarySearchFunc(c.at, n, func(a copied, n uint32) int { return cmp.Compare(a.pgno, n+1) })
	return c.at[:end]
}

func copiedPages(list []copied) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, c := range list {
			if !yield(c.pgno) {
				return
			}
		}
	}
}

// reader reads copies as a Snapshot reads pages; they are asked for in order.
func (c *copies) reader(list []copied) func([]uint32, []byte) error {
	return func(pages []uint32, buf []byte) error {
		for i, p := range pages {
			for len(list) > 0 && list[0].pgno != p {
				list = list[1:]
			}
			if len(list) == 0 {
				return fmt.Errorf("page %d was not copied", p)
			}
			if _, err := c.pages.ReadAt(buf[i*c.size:(i+1)*c.size], int64(list[0].slot)*int64(c.size)); err != nil {
				return fmt.Errorf("read copy of page %d: %w", p, err)
			}
		}
		return nil
	}
}

// buffer is memory for chunkPages pages, kept from batch to batch.
func (s *Shipper) buffer(pageSize uint32) []byte {
	if need := chunkPages * int(pageSize); len(s.buf) < need {
		s.buf = make([]byte, need)
	}
	return s.buf
}
