package ledger

import (
	"iter"
	"math/bits"
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

// PageSum is the sum of a page's content as an entry holds it: XXH3 with the
// page number as seed, never 0. The XOR of all entries is the database's
// checksum, which travels with an object; so the seed keeps two pages that
// changed places from cancelling each other out.
//
// XXH3 rather than LTX's CRC-64 because every scan sums the whole database,
// and it is an order of magnitude faster.
func PageSum(pgno uint32, data []byte) uint64 {
	if sum := xxh3.HashSeed(data, uint64(pgno)); sum != 0 {
		return sum
	}
	return 1
}

// HeadSum is the sum of an object's header, which proves that the object is
// the one that was meant.
func HeadSum(header []byte) uint64 { return PageSum(0, header) }

func (l *Ledger) at(pgno uint32) (*segment, uint32) {
	segs := *l.segments.Load()
	i := int((pgno - 1) / SegmentPages)
	if pgno == 0 || i >= len(segs) {
		return nil, 0
	}
	return segs[i], (pgno - 1) % SegmentPages
}

// Sum is the sum of a page as the store has it, 0 where that is not known.
func (l *Ledger) Sum(pgno uint32) uint64 {
	if s, i := l.at(pgno); s != nil {
		return atomic.LoadUint64(&s.sum[i])
	}
	return 0
}

// SetSum records what the store has of a page. The ledger must have grown to it.
func (l *Ledger) SetSum(pgno uint32, sum uint64) {
	s, i := l.at(pgno)
	atomic.StoreUint64(&s.sum[i], sum)
}

// ForgetFrom makes the entries of all pages above n unknown.
func (l *Ledger) ForgetFrom(n uint32) {
	for k, s := range *l.segments.Load() {
		first := uint64(k)*SegmentPages + 1
		if first+SegmentPages <= uint64(n)+1 {
			continue
		}
		i := 0
		if uint64(n)+1 > first {
			i = int(uint64(n) + 1 - first)
		}
		for ; i < SegmentPages; i++ {
			if s.sum[i] != 0 {
				atomic.StoreUint64(&s.sum[i], 0)
			}
		}
	}
}

// XOR is the checksum of a database of n pages as the store has it, all
// entries but the lock page's; 0 where one of them is not known.
func (l *Ledger) XOR(n, lockPage uint32) uint64 {
	var x uint64
	for p := uint32(1); p <= n && p != 0; p++ {
		sum := l.Sum(p)
		if sum == 0 && p != lockPage {
			return 0
		}
		x ^= sum
	}
	return x
}

// Mark makes a page dirty, as a marker does. For tests and tools.
func (l *Ledger) Mark(pgno uint32) {
	if s, i := l.at(pgno); s != nil {
		atomic.OrUint64(&s.dirty[i/64], 1<<(i%64))
	} else {
		atomic.AddUint64(&l.header.All, 1)
	}
}

// Dirty reports whether a page was marked and not taken.
func (l *Ledger) Dirty(pgno uint32) bool {
	s, i := l.at(pgno)
	return s != nil && atomic.LoadUint64(&s.dirty[i/64])&(1<<(i%64)) != 0
}

// SetInflight puts a page into the batch under way.
func (l *Ledger) SetInflight(pgno uint32) {
	if s, i := l.at(pgno); s != nil {
		atomic.OrUint64(&s.inflight[i/64], 1<<(i%64))
	}
}

// TakeDirty moves what is dirty in flight. A bit is in flight before it stops
// being dirty, and only bits that were copied are taken back, so that one that is
// set meanwhile stays. Unless they are nil, page is called for each page, and
// above with the smallest size that the database had since.
func (l *Ledger) TakeDirty(page, above func(uint32)) {
	for k, s := range *l.segments.Load() {
		for w := range s.dirty {
			d := atomic.LoadUint64(&s.dirty[w])
			if d == 0 {
				continue
			}
			atomic.OrUint64(&s.inflight[w], d)
			atomic.AndUint64(&s.dirty[w], ^d)
			for ; page != nil && d != 0; d &= d - 1 {
				page(uint32(k*SegmentPages + w*64 + bits.TrailingZeros64(d) + 1))
			}
		}
	}
	h := l.header
	for {
		v := atomic.LoadUint32(&h.MinPages)
		if v == None {
			return
		}
		if above != nil {
			above(v)
		}
		if v < h.MinInflight {
			atomic.StoreUint32(&h.MinInflight, v)
		}
		if atomic.CompareAndSwapUint32(&h.MinPages, v, None) {
			return
		}
	}
}

// ClearInflight ends a batch whose sums are written.
func (l *Ledger) ClearInflight() {
	for _, s := range *l.segments.Load() {
		for w := range s.inflight {
			if atomic.LoadUint64(&s.inflight[w]) != 0 {
				atomic.StoreUint64(&s.inflight[w], 0)
			}
		}
	}
	atomic.StoreUint32(&l.header.MinInflight, None)
}

// Candidates yields, in ascending order, the pages of a database of n pages that
// are dirty or in flight, or above floor. With every it yields them all.
func (l *Ledger) Candidates(n, floor uint32, every bool) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for k, s := range *l.segments.Load() {
			first := uint64(k)*SegmentPages + 1
			if first > uint64(n) {
				return
			}
			for w := range s.dirty {
				base := first + uint64(w)*64
				if base > uint64(n) {
					return
				}
				set := atomic.LoadUint64(&s.dirty[w]) | atomic.LoadUint64(&s.inflight[w])
				if every || base > uint64(floor) {
					set = ^uint64(0)
				} else if base+63 > uint64(floor) {
					set |= ^uint64(0) << (uint64(floor) + 1 - base)
				}
				for ; set != 0; set &= set - 1 {
					p := base + uint64(bits.TrailingZeros64(set))
					if p > uint64(n) || !yield(uint32(p)) {
						return
					}
				}
			}
		}
	}
}

// Pending counts the pages that are dirty or in flight.
func (l *Ledger) Pending() (n int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return 0
	}
	l.mapAll()
	for _, s := range *l.segments.Load() {
		for w := range s.dirty {
			n += bits.OnesCount64(atomic.LoadUint64(&s.dirty[w]) | atomic.LoadUint64(&s.inflight[w]))
		}
	}
	return n
}

// mapAll maps what the one who may write the ledger has added to it; whoever only
// waits for that role does so nowhere else. Where it cannot, less is seen.
func (l *Ledger) mapAll() {
	h := l.header
	if !l.Ready() || h.Magic != Magic || h.Version != Version {
		return
	}
	if fi, err := l.file.Stat(); err == nil {
		_ = l.mapSegments(min(int(atomic.LoadUint32(&h.Segments)), segmentsIn(fi.Size())))
	}
}

// Unknown reports an entry up to page n, the lock page aside, that is not known.
func (l *Ledger) Unknown(n, lockPage uint32) bool {
	for p := uint32(1); p <= n && p != 0; p++ {
		if p != lockPage && l.Sum(p) == 0 {
			return true
		}
	}
	return false
}

// Text reads one of the header's texts. It may be read while it is written.
func (h *Header) text(field []byte) string {
	for range 100 {
		seq := atomic.LoadUint32(&h.TextSeq)
		var b []byte
		for _, c := range field {
			if c == 0 {
				break
			}
			b = append(b, c)
		}
		if seq%2 == 0 && atomic.LoadUint32(&h.TextSeq) == seq {
			return string(b)
		}
	}
	return ""
}

func (h *Header) setText(field []byte, s string) {
	// Odd already if a writer was killed in here.
	seq := atomic.LoadUint32(&h.TextSeq) | 1
	atomic.StoreUint32(&h.TextSeq, seq)
	if len(s) > len(field)-1 {
		s = s[:len(field)-1]
	}
	n := copy(field, s)
	clear(field[n:])
	atomic.StoreUint32(&h.TextSeq, seq+1)
}

// Cause says why the state is what it is.
func (h *Header) Cause() string { return h.text(h.CauseText[:]) }

// SetCause replaces the cause; at most 511 bytes are kept.
func (h *Header) SetCause(s string) { h.setText(h.CauseText[:], s) }

// LastError is the text of the newest error, empty after a success.
func (h *Header) LastError() string { return h.text(h.ErrorText[:]) }

// SetLastError replaces the last error; at most 511 bytes are kept.
func (h *Header) SetLastError(s string) { h.setText(h.ErrorText[:], s) }

// Replica is the URL of the store that the entries speak of.
func (h *Header) Replica() string { return h.text(h.ReplicaText[:]) }

// SetReplica replaces the URL. One that does not fit is an error of the caller's.
func (h *Header) SetReplica(s string) { h.setText(h.ReplicaText[:], s) }

// KeepError says why merging or retention failed last, empty if it did not.
func (h *Header) KeepError() string { return h.text(h.KeepErrorText[:]) }

// SetKeepError replaces it; at most 511 bytes are kept.
func (h *Header) SetKeepError(s string) { h.setText(h.KeepErrorText[:], s) }

// ID is the database's id, 32 hex digits.
func (h *Header) ID() string {
	const digits = "0123456789abcdef"
	var b []byte
	for _, c := range h.DatabaseID {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// String is empty where there is no upload.
func (u *UploadID) String() string {
	for i, c := range u {
		if c == 0 {
			return string(u[:i])
		}
	}
	return ""
}

// Set records an upload. An id that is too long to keep is not kept: its parts are
// then left to the store's own housekeeping.
func (u *UploadID) Set(id string) {
	clear(u[:])
	if len(id) < len(u) {
		copy(u[:], id)
	}
}

// LockPage is the page that holds SQLite's lock bytes and no content.
func LockPage(pageSize uint32) uint32 { return 0x40000000/pageSize + 1 }
