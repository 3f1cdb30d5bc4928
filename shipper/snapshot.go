package shipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/compact"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/spool"
)

// A snapshot, the database as it is after some object, is made from two things: a
// copy of all pages, read while batches go on, and the objects that were put
// meanwhile.
//
// The copy is of no committed state. But a page whose sum is its entry's is the page
// as the store has it after the newest object, and whatever changes it later comes in
// a later object. So the copy, with the objects that followed its begin on top,
// is the state after the last of them. A page that does not match its entry is in
// doubt: it is to be in the next object whether it still differs by then or not. The
// snapshot ends at an object before which every doubt was settled.
type snapshot struct {
	due    <-chan time.Time  // when the next slice is read; nil: no copy is being made
	body   spool.Spool       // the copy: an LTX file
	enc    *encoder          // that writes it
	object *object           // what it says of itself
	next   uint32            // first page of the next slice; beyond the last when all are copied
	doubt  pageSet           // pages that must be in the next object
	since  []objstore.Object // put since the copy began
	raw    []byte            // of one slice
}

const (
	// copySlice is how many bytes a slice reads at most under one pin: some
	// milliseconds. They are compressed when it is over.
	copySlice = 4 << 20

	// closeCopy is the largest database, in bytes, of which a process that
	// closes it still makes a snapshot that is due: a fraction of a second.
	closeCopy = 64 << 20
)

// snapshotDue reports that the newest snapshot is old enough, and not of the
// newest state.
func (s *Shipper) snapshotDue() bool {
	h := s.header()
	now := s.cfg.now()
	return s.cfg.Keep.on() && s.chores.grown && !s.state.Stuck() && h.SnapshotMs != 0 && h.TXID > h.SnapshotTXID &&
		now.Sub(time.UnixMilli(h.SnapshotMs)) >= s.cfg.Keep.SnapshotInterval && !now.Before(s.chores.pause) &&
		h.DBPages != ledger.None && h.PageSize != 0 && atomic.LoadUint64(&h.All) == atomic.LoadUint64(&h.AllDone)
}

// startSnapshot begins a copy if a snapshot is due.
func (s *Shipper) startSnapshot() {
	c := &s.snapshot
	if c.enc != nil || c.object != nil || !s.snapshotDue() {
		return
	}
	h := s.header()
	// As of now it is named after the newest object. Its level decides about
	// nothing here.
	c.object = &object{
		txid: 1, last: ltx.TXID(h.TXID), nonce: nonce(), pageSize: h.PageSize, commit: h.DBPages, time: time.UnixMilli(h.HeadTimeMs),
	}
	c.body.Dir = s.body.Dir
	c.enc = newEncoder(&c.body, c.object, s.cfg.Database, newChunks())
	c.next = 1
	c.due = time.After(0)
}

// copyMore reads a slice of the copy.
func (s *Shipper) copyMore() {
	c := &s.snapshot
	c.due = nil
	if c.enc == nil {
		return
	}
	began := time.Now()
	err := s.copyPages()
	switch {
	case err == nil && c.next > c.object.commit:
		err = c.enc.close()
		if c.enc, c.raw = nil, nil; err == nil {
			err = c.body.Flush()
		}
	case errors.Is(err, ErrBusy), err == nil:
		// As much time for everybody else as it took itself.
		c.due = time.After(max(time.Since(began), slicePause))
		return
	}
	if err != nil {
		s.failSnapshot(err)
	}
}

// copyPages copies what one pin of a few milliseconds allows.
func (s *Shipper) copyPages() error {
	c, l := &s.snapshot, s.ledger.Load()
	size := c.object.pageSize
	if c.raw == nil {
		c.raw = make([]byte, copySlice)
	}
	pages, err := s.readSlice(c.raw)
	if len(pages) == 0 {
		return err
	}
	for at := 0; at < len(pages); {
		chunk := c.enc.chunk()
		for ; at < len(pages) && len(chunk.pages) < cap(chunk.pages); at++ {
			p, page := pages[at], c.raw[at*int(size):(at+1)*int(size)]
			if l.Sum(p) != ledger.PageSum(p, page) {
				c.doubt.set(p)
				l.SetInflight(p)
			}
			chunk.pages = append(chunk.pages, p)
			copy(chunk.page(len(chunk.pages)-1, size), page)
		}
		c.enc.put(chunk)
	}
	c.next = pages[len(pages)-1] + 1
	if c.next == ledger.LockPage(size) {
		c.next++
	}
	return nil
}

// readSlice reads the next pages of the copy into buf. Those beyond the end of a
// database that has become smaller are zeros, which are in doubt as they match no
// entry.
func (s *Shipper) readSlice(buf []byte) (pages []uint32, err error) {
	c := &s.snapshot
	size, lock := int(c.object.pageSize), ledger.LockPage(c.object.pageSize)
	snap, err := s.cfg.Source.Pin(false)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	if snap.PageSize() != c.object.pageSize {
		return nil, errors.New("the database's page size has changed")
	}
	until := time.Now().Add(pinMost)
	for p := c.next; p <= c.object.commit && (len(pages)+1)*size <= len(buf); {
		from, n := len(pages), 0
		for ; p <= c.object.commit && len(pages)-from < chunkPages && (len(pages)+1)*size <= len(buf); p++ {
			if p == lock {
				continue
			}
			if pages = append(pages, p); p <= snap.Pages() {
				n++
			}
		}
		clear(buf[(from+n)*size : len(pages)*size])
		if err := snap.Read(pages[from:from+n], buf[from*size:(from+n)*size]); err != nil {
			return pages[:from], err
		}
		if time.Now().After(until) {
			break
		}
	}
	return pages, nil
}

// note is told of each object that is put.
func (c *snapshot) note(o objstore.Object) {
	if c.object != nil {
		c.since = append(c.since, o)
	}
}

// settled is called when a batch has ended well.
func (c *snapshot) settled() { clear(c.doubt) }

// ready reports that all pages are copied and no doubt is left.
func (c *snapshot) ready() bool { return c.object != nil && c.enc == nil && c.doubt.empty() }

// copyAtClose reports that a process that closes the database has a snapshot to
// make, and that the database is small enough to be read first.
func (s *Shipper) copyAtClose() bool {
	h := s.header()
	return (s.snapshot.object != nil || s.snapshotDue()) && h.DBPages != ledger.None && int64(h.DBPages)*int64(h.PageSize) <= closeCopy
}

// finishCopy copies what is left before the database goes away.
func (s *Shipper) finishCopy(d *Drain) error {
	if !s.copyAtClose() {
		return nil
	}
	s.startSnapshot()
	for s.snapshot.enc != nil && time.Now().Before(d.deadline) && s.ctx.Err() == nil {
		if s.copyMore(); s.snapshot.due != nil {
			<-s.snapshot.due
		}
	}
	if s.snapshot.object != nil && !s.snapshot.doubt.empty() {
		_, err := s.batch(d)
		return err
	}
	return nil
}

func (s *Shipper) failSnapshot(err error) {
	s.dropSnapshot()
	s.keepFailed(fmt.Errorf("make snapshot: %w", err))
}

// dropSnapshot forgets a copy.
func (s *Shipper) dropSnapshot() {
	c := &s.snapshot
	if c.enc != nil {
		_ = c.enc.close()
	}
	c.body.Reset()
	*c = snapshot{}
}

// takeSnapshot hands a copy that is ready over to the chores.
func (s *Shipper) takeSnapshot() *finished {
	c := &s.snapshot
	f := &finished{body: c.body, since: c.since, first: objstore.Object{
		Level: objstore.SnapshotLevel, Min: 1, Max: c.object.last, Size: c.body.Size(), ModTime: c.object.time,
	}}
	if h := s.header(); len(c.since) == 0 {
		f.meta = objstore.Meta{Timestamp: c.object.time, Checksum: s.xorOf(s.ledger.Load(), ledger.LockPage(h.PageSize))}
	}
	*c = snapshot{}
	return f
}

// finished is a copy of which a snapshot can be made.
type finished struct {
	body  spool.Spool
	first objstore.Object // what the copy would be in the store
	since []objstore.Object
	meta  objstore.Meta // where nothing was put since
}

// put makes the snapshot.
func (f *finished) put(ctx context.Context, store objstore.Store, dir string) (objstore.Object, error) {
	defer f.body.Reset()
	if len(f.since) > 0 {
		return compact.Merge(ctx, beside{store, f.first, &f.body}, slices.Concat([]objstore.Object{f.first}, f.since), objstore.SnapshotLevel, dir)
	}
	err := store.Create(ctx, f.first, &f.body, f.meta, nil)
	if errors.Is(err, objstore.ErrExist) {
		err = nil
	}
	return f.first, err
}

// beside is a store that seems to hold one object more, which is here.
type beside struct {
	objstore.Store
	object objstore.Object
	body   *spool.Spool
}

func (b beside) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	if o.Level != b.object.Level || o.Min != b.object.Min || o.Max != b.object.Max {
		return b.Store.Open(ctx, o, off, n)
	}
	if left := b.body.Size() - off; n < 0 || n > left {
		n = left
	}
	return io.NopCloser(io.NewSectionReader(b.body, off, n)), nil
}
