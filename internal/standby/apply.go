package standby

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/superfly/ltx"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objread"
	"github.com/walferry/walferry/internal/objstore"
)

// transaction writes the result of some objects into the database. It is the sink
// of a decoder, to which the objects are given the newest first: so the first
// content that a page gets is its last, and every page is written at most once.
type transaction struct {
	c           *conn
	read, write *stmt

	pageSize uint32
	from     Point // before it
	to       Point // what it comes to so far
	whole    bool  // the objects hold every page of the database

	object objstore.Object // being decoded
	first  bool            // no object has been
	seen   pageSet
	low    uint32 // smallest size that the database had on the way
	one    []byte // the source's page 1, nil if no object has it
}

func (t *transaction) lockPage() uint32 { return ledger.LockPage(t.pageSize) }

// Begin is part of ltxfile.Sink.
func (t *transaction) Begin(h ltx.Header, raw []byte) error {
	o := t.object
	if h.MinTXID != o.Min || h.MaxTXID != o.Max {
		return fmt.Errorf("%w: its header says that it is %s", ltxfile.ErrCorrupt, ltx.FormatFilename(h.MinTXID, h.MaxTXID))
	}
	if h.PageSize != t.pageSize {
		return fmt.Errorf("%w: its pages have %d bytes, the standby's %d; -force fills it anew", ErrHistory, h.PageSize, t.pageSize)
	}
	if t.first {
		t.first = false
		t.to.TXID, t.to.TimeMs, t.to.Pages = h.MaxTXID, h.Timestamp, h.Commit
		t.to.Object, t.to.Head = fmt.Sprintf("%d/%s", o.Level, o.Name()), ledger.HeadSum(raw)
	} else {
		t.low = min(t.low, h.Commit)
	}
	return nil
}

// Admit is part of ltxfile.Sink.
func (t *transaction) Admit(pgno uint32) error {
	if pgno == t.lockPage() {
		return fmt.Errorf("%w: it holds the lock page, %d", ltxfile.ErrCorrupt, pgno)
	}
	return nil
}

// Put is part of ltxfile.Sink.
func (t *transaction) Put(first uint32, pages []byte) error {
	for p := first; len(pages) > 0; p++ {
		page := pages[:t.pageSize]
		pages = pages[t.pageSize:]
		if p > t.to.Pages || !t.seen.add(p) {
			continue // cut off, or replaced, by a later object
		}
		if p == 1 {
			t.one = bytes.Clone(page)
			continue
		}
		if err := t.put(p, page); err != nil {
			return fmt.Errorf("write page %d: %w", p, err)
		}
	}
	return nil
}

// Summed is part of ltxfile.Sink.
func (t *transaction) Summed(uint32, uint64) error { return nil }

func (t *transaction) put(pgno uint32, page []byte) error {
	if pgno <= t.from.Pages {
		old, err := t.page(pgno)
		if err != nil {
			return err
		}
		if bytes.Equal(old, page) {
			return nil
		}
		t.to.Rest ^= ledger.PageSum(pgno, old)
	}
	t.to.Rest ^= ledger.PageSum(pgno, page)
	return t.write.run(int64(pgno), page)
}

// page returns a page of the database, which is valid until the next call.
func (t *transaction) page(pgno uint32) ([]byte, error) {
	t.read.reset()
	row, err := t.read.step(int64(pgno))
	if err != nil {
		return nil, err
	}
	page := t.read.blob(0)
	if !row || len(page) != int(t.pageSize) {
		return nil, fmt.Errorf("%w: it has no page %d", ErrWritten, pgno)
	}
	return page, nil
}

// complete looks whether the objects held what makes the database whole: every
// page of it, or by which it has grown since it was smallest.
func (t *transaction) complete() error {
	p := t.low + 1
	if t.whole {
		p = 1
	}
	for ; p <= t.to.Pages && p != 0; p++ {
		if p != t.lockPage() && !t.seen.has(p) {
			return fmt.Errorf("%w: page %d is missing, of %d", ltxfile.ErrCorrupt, p, t.to.Pages)
		}
	}
	return nil
}

// finish writes page 1 and the size, which belong together: after it no
// statement but the end of the transaction may follow.
func (t *transaction) finish() error {
	for p := t.to.Pages + 1; p <= t.from.Pages && p != 0; p++ {
		if p == t.lockPage() {
			continue
		}
		old, err := t.page(p)
		if err != nil {
			return err
		}
		t.to.Rest ^= ledger.PageSum(p, old)
	}
	one := t.one
	if one == nil {
		old, err := t.page(1)
		if err != nil {
			return err
		}
		one = bytes.Clone(old)
	} else {
		t.to.One = ledger.PageSum(1, one)
	}
	fit(one, t.to.Pages)
	t.to.Own = ownSum(one)
	t.read.reset()
	// One statement, as the second row is seen by the statement that has checked
	// the old schema cookie. A NULL cuts the database off before its page.
	last, err := t.c.prepare("INSERT INTO sqlite_dbpage(pgno, data) VALUES(1, ?2), (?1, NULL)")
	if err != nil {
		return err
	}
	defer last.finalize()
	return last.run(int64(t.to.Pages)+1, one)
}

// apply carries the standby from its position through objects, which follow each
// other, in one transaction. With whole they are a plan that begins with a snapshot.
func (s *standby) apply(ctx context.Context, objects []objstore.Object, whole bool) (err error) {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer func() {
		if s.c.inTransaction() {
			err = errors.Join(err, s.c.exec("ROLLBACK"))
		}
		s.c.shrink()
	}()
	t := &transaction{
		c: s.c, pageSize: s.pos.PageSize, from: s.pos.At, to: s.pos.At,
		whole: whole, first: true, low: s.pos.At.Pages,
	}
	if t.read, err = s.c.prepare("SELECT data FROM sqlite_dbpage WHERE pgno=?1"); err != nil {
		return err
	}
	defer t.read.finalize()
	if t.write, err = s.c.prepare("INSERT INTO sqlite_dbpage(pgno, data) VALUES(?1, ?2)"); err != nil {
		return err
	}
	defer t.write.finalize()
	for i := len(objects) - 1; i >= 0; i-- {
		t.object = objects[i]
		r := objread.New(ctx, s.store, t.object)
		err := s.decoder.Decode(ctx, r, t)
		r.Close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("apply %s: %w", t.object, err)
		}
	}
	newest := objects[len(objects)-1]
	if err := t.complete(); err != nil {
		return fmt.Errorf("apply %s to %s: %w", objects[0], newest, err)
	}
	if err := t.finish(); err != nil {
		return fmt.Errorf("apply %s: %w", newest, err)
	}
	if err := s.compare(ctx, newest, t.to); err != nil {
		return err
	}
	return s.commit(t.to)
}

// compare holds what the database is about to be against the checksum that an
// object carries.
func (s *standby) compare(ctx context.Context, o objstore.Object, to Point) error {
	if to.One == 0 {
		return nil
	}
	m, err := s.store.Meta(ctx, o)
	if err != nil {
		return fmt.Errorf("read checksum of %s: %w", o, &ltxfile.SourceError{Err: err})
	}
	if sum := to.One ^ to.Rest; m.Checksum != 0 && m.Checksum != sum {
		return fmt.Errorf("%w: after %s the pages sum to %016x, the object says %016x; -force takes the differences from the replica",
			ErrHistory, o, sum, m.Checksum)
	}
	return nil
}

// begin begins a write transaction and looks whether the database is still what
// was left.
func (s *standby) begin(ctx context.Context) error {
	if err := s.c.exec("BEGIN IMMEDIATE"); err != nil {
		if failed := new(sqlError); errors.As(err, &failed) && failed.code&0xff == sqlite3.SQLITE_BUSY {
			return errBusy
		}
		return fmt.Errorf("begin transaction: %w", err)
	}
	if s.anew {
		return s.takeAsItIs(ctx)
	}
	version, err := s.c.number("PRAGMA data_version")
	if err == nil && version != s.version {
		s.scans++
		err = s.verify(ctx) // a checkpoint by another program counts it too
		if err == nil {
			version, err = s.c.number("PRAGMA data_version")
			s.version = version
		}
	}
	if err != nil {
		return errors.Join(err, s.c.exec("ROLLBACK"))
	}
	return nil
}

// takeAsItIs makes the position say what the database holds.
func (s *standby) takeAsItIs(ctx context.Context) error {
	got, err := sumPages(ctx, s.c)
	if err == nil {
		s.version, err = s.c.number("PRAGMA data_version")
	}
	if err != nil {
		return errors.Join(err, s.c.exec("ROLLBACK"))
	}
	at := &s.pos.At
	at.Pages, at.Rest, at.Own, at.One = got.pages, got.rest, got.own, 0
	return nil
}

// verify sums the pages and holds them against the position.
func (s *standby) verify(ctx context.Context) error {
	got, err := sumPages(ctx, s.c)
	if err != nil {
		return err
	}
	switch {
	case s.pos.At.at(got):
	case s.pos.Next != nil && s.pos.Next.at(got):
		s.pos.At = *s.pos.Next
	default:
		return fmt.Errorf("%w: its pages are not those of TXID %s; -force takes them from the replica again", ErrWritten, s.pos.At.TXID)
	}
	s.pos.Next = nil
	return nil
}

// commit ends the transaction. The position says that it may have been before it is,
// and that it has been afterwards.
func (s *standby) commit(to Point) error {
	next := s.pos
	next.Next = &to
	if err := s.file.write(next, true); err != nil {
		return err
	}
	s.pos = next
	if err := s.c.exec("COMMIT"); err != nil {
		if s.c.inTransaction() {
			return fmt.Errorf("commit: %w", err)
		}
		// Whether it was is seen when the pages are summed.
		s.version = -1
		return fmt.Errorf("commit: %w", err)
	}
	s.pos.At, s.pos.Next = to, nil
	return s.file.write(s.pos, false)
}
