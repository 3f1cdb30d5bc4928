package shipper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"golang.org/x/sys/unix"
)

// errLost ends a term: the ledger is another file now, or another shipper's.
var errLost = errors.New("ledger was replaced")

// busyPause is how long a batch first waits for somebody else's lock to end:
// longer than most transactions, short beside a window.
const busyPause = 20 * time.Millisecond

// object is a batch that was read: an LTX file, and what the ledger will know
// once the store has it.
type object struct {
	txid     ltx.TXID
	last     ltx.TXID // of a snapshot; 0: the object is one TXID
	nonce    uint64
	time     time.Time
	pageSize uint32
	commit   uint32 // pages of the database
	pages    int    // that the file holds
	headSum  uint64
	checksum uint64 // of the database; 0: not known
	window   objstore.Window
	position Position
}

// batch ships once: everything that is committed when it begins. It returns how
// long to wait before it is tried again, 0 when it is done. An error ends the
// term. A Drain is told when nothing more will be read.
func (s *Shipper) batch(d *Drain) (again time.Duration, err error) {
	if s.followed() {
		return 0, errLost
	}
	l := s.ledger.Load()
	h := l.Header()
	s.attempt()
	s.beat()
	if !s.claimed {
		if again := s.claim(); !s.claimed {
			return again, nil
		}
	}

	if h.SeenSet == 0 {
		// The first reader of a WAL sets `seen`, and counts what it finds
		// as not known: once before that is looked at, not after.
		if snap, err := s.cfg.Source.Pin(false); err == nil {
			snap.Close()
		}
	}
	atomic.StoreUint32(&h.Poked, 0)
	if since := atomic.SwapUint64(&h.OpenSinceMs, 0); since != 0 && atomic.LoadUint64(&h.ShipSinceMs) == 0 {
		atomic.StoreUint64(&h.ShipSinceMs, since)
	}
	window := atomic.LoadUint64(&h.Window)
	atomic.StoreUint64(&h.Window, window+1)
	l.TakeDirty(nil, nil)

	o, err := s.read(l)
	defer s.body.Reset()
	defer s.sums.Reset()
	s.copies.reset()
	s.malformed = errors.Is(err, ErrMalformed)
	switch {
	case err == nil:
		s.busy = 0
	case errors.Is(err, ErrBusy):
		s.busy = min(max(2*s.busy, busyPause), time.Second)
		return s.busy, nil
	case errors.Is(err, ErrNotWAL):
		s.fail(StateNotWAL, err)
		return 0, nil
	case errors.Is(err, errPageSize):
		s.fail(StatePageSize, err)
		return 0, nil
	case s.ctx.Err() != nil:
		return 0, s.ctx.Err()
	default:
		s.fail(StateFailing, err)
		return s.retry.next(), nil
	}

	if s.followed() { // what was read may have taken long
		return 0, errLost
	}
	s.noteUndone(h)
	if o != nil {
		o.window = objstore.Window{Epoch: atomic.LoadUint64(&h.Epoch), Number: window}
		err := s.cfg.Sync()
		if err == nil {
			err = s.prepare(l, o)
		}
		if err != nil {
			s.fail(StateFailing, err)
			return s.retry.next(), nil
		}
		if d != nil && o.txid != 1 && !s.copyAtClose() {
			d.haveRead()
		}
		if again, err := s.put(o, d); err != nil || again > 0 || s.state.Stuck() {
			return again, err
		}
		if s.followed() {
			return 0, errLost
		}
		s.record(l, o)
	} else if d != nil && !s.copyAtClose() {
		d.haveRead()
	}
	if s.looked.all != atomic.LoadUint64(&h.AllDone) {
		atomic.StoreUint64(&h.AllDone, s.looked.all)
		atomic.StoreUint64(&h.ComparedEpoch, atomic.LoadUint64(&h.Epoch))
	}
	l.ClearInflight()
	s.base = s.reached
	s.snapshot.settled()
	if o != nil && o.txid == 1 {
		l.SetInflight(1) // which makes the second object, here or after a kill
		s.body.Reset()
		s.sums.Reset()
		return s.batch(d)
	}
	atomic.StoreUint64(&h.ShipSinceMs, 0)
	atomic.StoreUint64(&h.Durable, window)
	s.succeed()
	s.beat()
	wakeWaiters(h)
	return 0, nil
}

var errPageSize = errors.New("page size changed")

// looked tells what a look at every page accounts for.
type looked struct {
	all uint64    // value of the ledger's All before it began
	at  *Position // of its first snapshot; nil: there was no such look in this batch
}

// pinned is what is known of a committed state that a batch reads.
type pinned struct {
	pages    uint32
	pageSize uint32
	floor    uint32   // every page above it is a candidate
	smallest uint32   // size that the database had since it was last looked at
	tail     []uint32 // pages that were not marked yet; they are in flight now
	every    bool     // so is every page
	resized  bool     // page 1 is sent: the store has another size, or it is not known
	position Position
}

// look finds out what of a pinned state is to be read, and makes room for it in
// the ledger.
func (s *Shipper) look(l *ledger.Ledger, snap Snapshot) (at pinned, err error) {
	h := l.Header()
	at.pages, at.pageSize = snap.Pages(), snap.PageSize()
	at.position = snap.Position()
	if at.pages == 0 {
		return at, nil
	}
	if h.PageSize != 0 && h.PageSize != at.pageSize && h.TXID != 0 {
		return at, fmt.Errorf("%w from %d to %d bytes, and a replica's cannot change: give the database another prefix", errPageSize, h.PageSize, at.pageSize)
	}
	h.PageSize = at.pageSize
	if err := l.Grow(at.pages); err != nil {
		return at, err
	}
	// And room ahead, since a page that a marker has no bit for costs a look
	// at every page.
	if spare := uint64(at.pages) + uint64(at.pages)/8 + ledger.SegmentPages; spare < 1<<32-1 {
		_ = l.Grow(uint32(spare))
	}
	var ok bool
	base := s.base
	if s.looked.at != nil {
		base = s.looked.at
	}
	at.tail, at.smallest, ok = snap.Tail(base)
	for _, p := range at.tail {
		l.SetInflight(p)
	}
	// Looked at again, and not taken, now that the snapshot is pinned.
	at.every = !ok || atomic.LoadUint64(&h.All) != s.looked.all
	at.floor = min(at.pages, at.smallest, h.MinInflight, atomic.LoadUint32(&h.MinPages))
	// TXID 1 is a snapshot and lies at level 9 only, where Litestream's own
	// replication does not look for the position to go on from. So a second
	// object, at level 0, always follows it.
	if at.resized = h.TXID != 0 && (h.DBPages != at.pages || h.TXID == 1); at.resized {
		at.floor = min(at.floor, h.DBPages)
		l.SetInflight(1)
	}
	return at, nil
}

// read encodes what the store lacks of one committed state. Without an object
// there is nothing to send.
//
// It reads in short slices and encodes when nothing is pinned any more. Where that
// does not come to an end, because who does not mark commits again and again, it
// takes one pin, for as long as reading and encoding everything takes.
func (s *Shipper) read(l *ledger.Ledger) (o *object, err error) {
	h := l.Header()
	s.looked = looked{all: atomic.LoadUint64(&h.AllDone)}
	s.reached = nil
	for range maxScans {
		s.copies.reset()
		s.body.Reset()
		s.sums.Reset()
		if h.TXID == 0 {
			o, err = s.readFirst(l)
		} else {
			if err = s.scanIfAll(l); err == nil {
				o, err = s.readCandidates(l)
			}
		}
		if !errors.Is(err, errEverything) {
			return o, err
		}
	}
	s.copies.reset()
	s.body.Reset()
	s.sums.Reset()
	s.looked.all = atomic.LoadUint64(&h.All)
	snap, err := s.cfg.Source.Pin(true)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	at, err := s.look(l, snap)
	s.reached = &at.position
	if err == nil && at.pages > 0 {
		at.every = true
		o, err = s.encode(l, at, l.Candidates(at.pages, at.floor, true), snap.Read)
	}
	return o, err
}

// maxScans is how often a look at every page is begun again.
const maxScans = 3

func (s *Shipper) scanIfAll(l *ledger.Ledger) error {
	if h := l.Header(); atomic.LoadUint64(&h.All) == s.looked.all {
		return nil
	}
	return s.scan(l)
}

// readCandidates reads what is marked, and compares and encodes it.
func (s *Shipper) readCandidates(l *ledger.Ledger) (*object, error) {
	at, err := s.collect(l)
	if err != nil || at.pages == 0 {
		return nil, err
	}
	list := s.copies.list(at.pages)
	if err := s.copies.pages.Flush(); err != nil {
		return nil, err
	}
	return s.encode(l, at, copiedPages(list), s.copies.reader(list))
}

// encode writes the LTX file of the candidates that differ to s.body, and page
// numbers with their sums to s.sums. Reading and comparing is one goroutine,
// compressing another. nil: nothing differs.
func (s *Shipper) encode(l *ledger.Ledger, at pinned, candidates iter.Seq[uint32], read func([]uint32, []byte) error) (*object, error) {
	h := l.Header()
	o := &object{
		txid: ltx.TXID(h.TXID + 1), nonce: nonce(), pageSize: at.pageSize, commit: at.pages,
		// A clock that was set back must not turn the order of objects around.
		time:     time.UnixMilli(max(time.Now().UnixMilli(), h.HeadTimeMs+1)),
		position: at.position,
	}
	lock := ledger.LockPage(o.pageSize)
	e := newEncoder(&s.body, o, s.cfg.Database, s.chunks)
	checksum := s.xorOf(l, lock)
	known := s.xorKnown
	if at.every {
		checksum, known = 0, true
	}

	var sum [12]byte
	flush := func(c *chunk) error {
		if err := read(c.pages, c.data[:len(c.pages)*int(o.pageSize)]); err != nil {
			c.pages = c.pages[:0]
			e.put(c)
			return err
		}
		kept := 0
		for i, p := range c.pages {
			page := c.page(i, o.pageSize)
			was, is := l.Sum(p), ledger.PageSum(p, page)
			checksum ^= is
			if !at.every {
				checksum ^= was
			}
			if was == is && !(at.resized && p == 1) && o.txid != 1 && !s.snapshot.doubt.has(p) {
				continue
			}
			binary.LittleEndian.PutUint32(sum[:], p)
			binary.LittleEndian.PutUint64(sum[4:], is)
			if _, err := s.sums.Write(sum[:]); err != nil {
				c.pages = c.pages[:0]
				e.put(c)
				return err
			}
			if kept != i {
				c.pages[kept] = p
				copy(c.page(kept, o.pageSize), page)
			}
			kept++
		}
		c.pages = c.pages[:kept]
		o.pages += kept
		e.put(c)
		return nil
	}

	c, err := e.chunk(), error(nil)
	for p := range candidates {
		if p == lock {
			continue
		}
		if len(c.pages) == cap(c.pages) {
			if err = flush(c); err != nil {
				break
			}
			c = e.chunk()
		}
		c.pages = append(c.pages, p)
	}
	if err == nil {
		err = flush(c)
	}
	if closeErr := e.close(); err == nil {
		err = closeErr
	}
	if err != nil || o.pages == 0 {
		return nil, err
	}
	if !at.every {
		for p := o.commit + 1; p <= knownPages(l); p++ {
			checksum ^= l.Sum(p)
		}
	}
	if known {
		o.checksum = checksum
	}
	o.headSum = e.headSum
	if err := s.body.Flush(); err != nil {
		return nil, err
	}
	return o, s.sums.Flush()
}

// knownPages is the size that the entries speak of, 0 where it is not known.
func knownPages(l *ledger.Ledger) uint32 {
	if n := l.Header().DBPages; n != ledger.None {
		return n
	}
	return 0
}

// xorOf is the checksum of what the store has, kept from batch to batch.
func (s *Shipper) xorOf(l *ledger.Ledger, lock uint32) uint64 {
	if !s.xorKnown {
		s.xor = l.XOR(knownPages(l), lock)
		s.xorKnown = s.xor != 0
	}
	return s.xor
}

// prepare makes the ledger ready for the attempt: whatever happens from here on,
// no entry speaks of a page that the object may have changed.
func (s *Shipper) prepare(l *ledger.Ledger, o *object) error {
	h := l.Header()
	s.xorKnown = false
	if err := s.eachSum(o, func(p uint32, _ uint64) { l.SetSum(p, 0) }); err != nil {
		return err
	}
	l.ForgetFrom(o.commit)
	atomic.StoreUint32(&h.DBPages, ledger.None)
	if o.position.Frame != 0 {
		// The store will have what may still be in the WAL only, and a power
		// loss can take that back: the file's stamp vouches for less.
		h.Stamp.Valid = 0
	}
	noteAttempt(h, o)
	return l.Sync()
}

// record writes down what the store now has.
func (s *Shipper) record(l *ledger.Ledger, o *object) {
	h := l.Header()
	err := s.eachSum(o, func(p uint32, sum uint64) { l.SetSum(p, sum) })
	h.HeadSum, h.HeadTimeMs = o.headSum, o.time.UnixMilli()
	atomic.StoreUint32(&h.DBPages, o.commit)
	atomic.StoreUint64(&h.TXID, uint64(o.txid))
	settleAttempts(h)
	h.ShippedRing[h.ShippedNext%uint64(len(h.ShippedRing))] = ledger.Shipped{TXID: uint64(o.txid), Salt: o.position.Salt, MxFrame: o.position.Frame}
	h.ShippedNext++
	atomic.AddUint64(&h.Batches, 1)
	s.chores.grown = true
	if o.txid == 1 {
		s.keepFromNow(h)
	} else {
		put := objstore.Object{Min: o.txid, Max: o.txid, Size: s.body.Size(), ModTime: o.time}
		s.chores.noteRecent(put)
		s.snapshot.note(put)
	}
	s.xor, s.xorKnown = o.checksum, o.checksum != 0 && err == nil
	if err != nil {
		// The sums could not be read back; unknown is what they stay.
		atomic.AddUint64(&h.All, 1)
		s.cfg.Log(true, err.Error())
	}
}

// eachSum calls f for every page of the batch.
func (s *Shipper) eachSum(o *object, f func(p uint32, sum uint64)) error {
	r := io.NewSectionReader(&s.sums, 0, s.sums.Size())
	buf := make([]byte, 12*4096)
	for {
		n, err := io.ReadFull(r, buf)
		for b := buf[:n]; len(b) >= 12; b = b[12:] {
			f(binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[4:]))
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read sums of TXID %s: %w", o.txid, err)
		}
	}
}

// noteUndone compares what recovery dropped from the WAL with what was shipped:
// those commits are in the store's history and not in the database any more. The
// batch under way takes the store back to what the database is.
func (s *Shipper) noteUndone(h *ledger.Header) {
	behind := atomic.LoadUint32(&h.Behind)
	if behind == h.BehindDone {
		return
	}
	h.BehindDone = behind
	var first, last uint64
	for _, o := range h.ShippedRing {
		if o.TXID == 0 || o.Salt != h.BehindSalt || o.MxFrame <= h.BehindFrame {
			continue
		}
		if first == 0 || o.TXID < first {
			first = o.TXID
		}
		last = max(last, o.TXID)
	}
	if last == 0 {
		return
	}
	atomic.StoreUint64(&h.UndoneFirst, first)
	atomic.StoreUint64(&h.UndoneLast, last)
	s.cfg.Log(true, fmt.Sprintf("a recovery after a crash took back commits that the replica has, TXID %016x to %016x: the next object takes it back too", first, last))
}

// nonce marks an attempt; 0 is none.
func nonce() uint64 { return rand.Uint64() | 1 }

// wakeWaiters wakes those who wait for durable to move, in all processes.
func wakeWaiters(h *ledger.Header) {
	const futexWake, everyone = 1, 1 << 30
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.Durable)), futexWake, everyone, 0, 0, 0)
}
