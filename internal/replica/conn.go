package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/zeebo/xxh3"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// interruptEvery is how often whoever waits for the store looks whether to go on.
const interruptEvery = 50 * time.Millisecond

// Errors of a connection.
var (
	// ErrInterrupted is returned where the caller wants a wait to end.
	ErrInterrupted = errors.New("interrupted")
	// ErrTransaction is returned when a state is to be chosen while one is being read.
	ErrTransaction = errors.New("a transaction is open: end it first, it reads one state to its end")
	// ErrPinned is returned when a state of the past is asked to become newer.
	ErrPinned = errors.New("this connection reads a state of the past: PRAGMA walferry_at='latest' follows the replica again")
)

// Conn is one connection to a replica. Its methods may be called from any goroutine, one at a time
// but Status.
type Conn struct {
	s            *Source
	opts         Options
	now          func() time.Time
	hits, misses atomic.Int64 // pages that were in memory, and those that were waited for

	mu      sync.Mutex // protects these; not held while the store is waited for
	view    *View      // what is read; of the transaction that is open, if one is
	pin     *View      // what every transaction reads; nil: the newest
	asOf    time.Time  // when the store was asked and had nothing newer than view; zero: a state was chosen
	reading bool       // a transaction is open
	shown   uint32     // how often the state has changed, as the file's header tells SQLite
	schema  schema
	failed  error // the last failure, nil after a success
	said    error // the last failure there was
	saidAt  time.Time

	expect ahead

	// Interrupted, if not nil, tells whether a wait is to end. It is called from the goroutine
	// that waits.
	Interrupted func() bool
}

// Open opens a connection, and finds the state that it is to read. The error wraps one of history's,
// ltxfile's or objstore's, or is ErrInterrupted.
func Open(o Options, interrupted func() bool) (*Conn, error) {
	s, err := acquire(o)
	if err != nil {
		return nil, err
	}
	c := &Conn{s: s, opts: o, now: time.Now, shown: 1, Interrupted: interrupted}
	t, err := o.target(c.now())
	if err == nil && t != (history.Target{}) {
		err = c.pinTo(t)
	} else if err == nil {
		c.view, c.asOf, err = c.newest(o.Poll)
	}
	if err != nil {
		s.release()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() { c.s.release() }

// Begin begins a read transaction: until End every read is of one state. With no state chosen it is the
// newest, of which the store may have been asked up to Options.Poll ago. state tells it from all others that
// the connection has read.
func (c *Conn) Begin() (state uint32, err error) {
	c.mu.Lock()
	pin := c.pin
	c.mu.Unlock()
	v, asked := pin, time.Time{}
	if v == nil {
		if v, asked, err = c.newest(c.opts.Poll); err != nil {
			return 0, c.note(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(v)
	c.asOf, c.reading = asked, true
	if asked.After(c.saidAt) {
		c.failed = nil
	}
	return c.shown, nil
}

// show makes v the state that is read. The same state in other files is no other one.
func (c *Conn) show(v *View) {
	if c.view != nil && (v.TXID != c.view.TXID || !v.descends(c.view)) {
		c.shown++
	}
	if c.view != nil && !v.descends(c.view) {
		c.schema.others++
	}
	c.view = v
}

// End ends the read transaction.
func (c *Conn) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
}

// Size is the database's, in bytes.
func (c *Conn) Size() int64 { return c.current().Size() }

func (c *Conn) current() *View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

// note keeps an error for the status.
func (c *Conn) note(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, ErrInterrupted) {
		return err
	}
	if c.failed = err; err != nil {
		c.said, c.saidAt = err, c.now()
	}
	return err
}

func (c *Conn) newest(maxAge time.Duration) (*View, time.Time, error) {
	l := c.s.Newest(maxAge)
	v, err := c.wait(l)
	if err != nil {
		return nil, time.Time{}, err
	}
	return v, l.asked, nil
}

// wait waits for a search.
func (c *Conn) wait(l *Look) (*View, error) {
	if err := c.await(l.Done); err != nil {
		return nil, err
	}
	return l.Result()
}

// await waits until done is closed or the caller wants it to end.
func (c *Conn) await(done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	tick := time.NewTicker(interruptEvery)
	defer tick.Stop()
	for {
		if c.Interrupted != nil && c.Interrupted() {
			return ErrInterrupted
		}
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
	}
}

// ReadAt reads from the state that is read, as from a file: n is less than len(b) where that ends.
func (c *Conn) ReadAt(b []byte, off int64) (n int, err error) {
	v := c.current()
	size := int64(v.PageSize)
	for n < len(b) && off < v.Size() {
		pgno, from := uint32(off/size)+1, int(off%size)
		part := b[n:min(len(b), n+int(size)-from)]
		hit, err := c.readPage(pgno, from, part)
		if err != nil {
			return n, c.note(fmt.Errorf("page %d of TXID %s: %w", pgno, v.TXID, err))
		}
		whole := part
		if len(part) < int(size) {
			whole = nil
		}
		c.expect.note(c, pgno, whole, hit)
		if pgno == 1 {
			c.dress(v, from, part)
		}
		n, off = n+len(part), off+int64(len(part))
	}
	return n, nil
}

// readPage copies a page, from an offset on, to b. hit tells that it was in memory.
func (c *Conn) readPage(pgno uint32, from int, b []byte) (hit bool, err error) {
	for try := 1; ; try++ {
		v := c.current()
		at := v.table.at(pgno)
		if at.file == 0 { // the page of SQLite's locks
			clear(b)
			return true, nil
		}
		k := pageKey{at.file, pgno}
		if pages.get(k, from, b) {
			c.hits.Add(1)
			return true, nil
		}
		f := c.s.under(v, want{k, at}, from, b)
		if f == nil {
			c.hits.Add(1)
			return true, nil
		}
		if err := c.await(f.done); err != nil {
			return false, err
		}
		err := f.page(k, from, b)
		if err == nil {
			c.misses.Add(1)
			return false, c.note(nil)
		}
		if !errors.Is(err, objstore.ErrNotExist) || try == plans {
			return false, err
		}
		same, err := c.wait(c.s.Again(v))
		if err != nil {
			return false, err
		}
		c.replace(v, same)
	}
}

// replace goes on with the same state in other files.
func (c *Conn) replace(old, same *View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view == old {
		c.view = same
	}
	if c.pin == old {
		c.pin = same
	}
}

// Offsets in a database's header, https://www.sqlite.org/fileformat.html#the_database_header
const (
	headWriteVersion = 18 // and the read version behind it: 1 is a rollback journal, 2 a WAL
	headChange       = 24 // the counter by which SQLite sees that the file has changed
	headPages        = 28
	headSchema       = 40 // the number by which SQLite sees that the schema has changed
	headValidFor     = 92 // the counter for which headPages is right
	headEnd          = 100
)

// schema tells one schema from another that bears its number: that of another database which has taken the
// place, or of a history that was undone and went on otherwise. No connection outlives either of those
// in a file, so SQLite would use the schema that it knows.
type schema struct {
	number uint32 // of the one that was read last
	sum    uint64 // of page 1 behind the header; of a large schema it is all that is looked at
	others uint32 // how often there was another one
}

// note is told of page 1.
func (s *schema) note(page []byte) {
	number, sum := binary.BigEndian.Uint32(page[headSchema:]), xxh3.Hash(page[headEnd:])
	if s.sum != 0 && number == s.number && sum != s.sum {
		s.others++
	}
	s.number, s.sum = number, sum
}

// dress makes the header that of a database without a WAL, which there is none of here, and
// has its counter change with the state, which it does not in WAL mode. b begins at an offset
// of page 1.
func (c *Conn) dress(v *View, from int, b []byte) {
	if from >= headEnd {
		return
	}
	var shown [4]byte
	c.mu.Lock()
	if from == 0 && len(b) == int(v.PageSize) {
		c.schema.note(b)
	}
	binary.BigEndian.PutUint32(shown[:], c.shown)
	others := c.schema.others
	c.mu.Unlock()
	// In the first byte alone: the rest need not be here.
	if at := headSchema - from; others > 0 && at >= 0 && at < len(b) {
		b[at] += byte(others)
	}
	put := func(at int, with ...byte) {
		for i, x := range with {
			if j := at + i - from; j >= 0 && j < len(b) {
				b[j] = x
			}
		}
	}
	put(headWriteVersion, 1, 1)
	put(headChange, shown[:]...)
	put(headPages, binary.BigEndian.AppendUint32(nil, v.Pages)...)
	put(headValidFor, shown[:]...)
}

// PinAt has the connection read the state of a time from now on, as history.ParseTime reads it; "latest"
// follows the replica again.
func (c *Conn) PinAt(text string) error {
	if text == "" || text == latest {
		return c.unpin()
	}
	t, err := history.ParseTime(text, c.now())
	if err != nil {
		return err
	}
	return c.pinTo(history.Target{Time: t})
}

// PinTXID has the connection read the state of a TXID from now on.
func (c *Conn) PinTXID(txid ltx.TXID) error { return c.pinTo(history.Target{TXID: txid}) }

// PinMark has the connection read the state that a mark names from now on.
func (c *Conn) PinMark(name string) error { return c.pinTo(history.Target{Mark: name}) }

func (c *Conn) unpin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading {
		return ErrTransaction
	}
	c.pin = nil
	return nil
}

func (c *Conn) pinTo(t history.Target) error {
	c.mu.Lock()
	reading := c.reading
	c.mu.Unlock()
	if reading {
		return ErrTransaction
	}
	v, err := c.wait(c.s.State(t))
	if c.note(err) != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pin, c.asOf = v, time.Time{}
	c.show(v)
	return nil
}
