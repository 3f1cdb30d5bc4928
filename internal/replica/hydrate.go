package replica

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/objstore"
)

// A hydration is a file on this machine that takes the newest state of a replica, page by page, so
// that in the end nothing is read from the store but what is new. Processes share it: one at a time
// fills it, all read from it. As with a disk there is nothing to recover: beside the pages
// lies what each of them is, and a page is used if that is what is wanted and its sum is right.
//
//	path            the pages, each where it lies in the database
//	path-hydrated   0     "walferry hydra 1"   16
//	                16    page size             8
//	                24    the file that the state began with: level, min, max, size, time in ns: 8 each
//	                4096  for each page what it is, and its sum: 16
//
// All numbers are little-endian.
type hydration struct {
	s     *Source
	pages *os.File
	index *os.File

	size   atomic.Uint32 // of a page; 0: not known yet
	filled atomic.Int64  // pages that are known to be there, of the newest state
	failed atomic.Pointer[string]

	mu   sync.Mutex // protects these
	busy bool       // there is a goroutine that fills
	next *View      // what it is to go on with; nil: nothing
	last *View      // what was filled
}

const (
	hydrationSuffix = "-hydrated"
	hydrationMagic  = "walferry hydra 1"
	hydrationHead   = 4096
	hydrationEntry  = 16

	// hydrationLanes is how many requests fill at a time, beside those that somebody waits for.
	hydrationLanes = 4
)

func openHydration(path string, s *Source) (h *hydration, err error) {
	h = &hydration{s: s}
	if h.pages, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600); err == nil {
		h.index, err = os.OpenFile(path+hydrationSuffix, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	}
	var info os.FileInfo
	if err == nil {
		info, err = h.index.Stat()
	}
	if err == nil && info.Size() == 0 {
		if info, err = h.pages.Stat(); err == nil && info.Size() > 0 {
			err = fmt.Errorf("%s is there and was not made by hydrate: name a file that does not exist", path)
		}
	}
	if err != nil {
		h.close()
		return nil, fmt.Errorf("hydrate: %w", err)
	}
	var head [24]byte
	if _, err := h.index.ReadAt(head[:], 0); err == nil && string(head[:16]) == hydrationMagic {
		h.size.Store(binary.LittleEndian.Uint32(head[16:]))
	}
	return h, nil
}

func (h *hydration) close() {
	for _, f := range []*os.File{h.pages, h.index} {
		if f != nil {
			f.Close()
		}
	}
}

// base is the file that the state there began with, from which a plan is best made: pages are
// known by the file that they came from. ok is false where there is none.
func (h *hydration) base() (o objstore.Object, ok bool) {
	var b [40]byte
	if h.size.Load() == 0 {
		return o, false
	}
	if _, err := h.index.ReadAt(b[:], 24); err != nil {
		return o, false
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	o.Level, o.Size = int(u(0)), int64(u(3))
	o.Min, o.Max = ltx.TXID(u(1)), ltx.TXID(u(2))
	o.ModTime = time.Unix(0, int64(u(4)))
	return o, o.Size > 0
}

// is names what a file has of a page.
func (s *Source) is(o objstore.Object, pgno uint32) uint64 {
	key := diskKey(s.name, o, pgno, 0)
	return binary.LittleEndian.Uint64(key[:]) | 1 // 0 is nothing
}

// get fills a page if what is there is what is wanted.
func (h *hydration) get(o objstore.Object, pgno uint32, page []byte) bool {
	if int(h.size.Load()) != len(page) {
		return false
	}
	is := h.s.is(o, pgno)
	entry, ok := h.entry(pgno)
	if !ok || entry[0] != is {
		return false
	}
	if _, err := h.pages.ReadAt(page, int64(pgno-1)*int64(len(page))); err == nil && h.sum(is, page) == entry[1] {
		return true
	}
	_ = h.setEntry(pgno, 0, 0) // to be filled again
	return false
}

func (h *hydration) sum(is uint64, page []byte) uint64 { return xxh3.HashSeed(page, is) }

func (h *hydration) entry(pgno uint32) (e [2]uint64, ok bool) {
	var b [hydrationEntry]byte
	if _, err := h.index.ReadAt(b[:], h.at(pgno)); err != nil {
		return e, false
	}
	return [2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}, true
}

func (h *hydration) setEntry(pgno uint32, is, sum uint64) error {
	var b [hydrationEntry]byte
	binary.LittleEndian.PutUint64(b[:], is)
	binary.LittleEndian.PutUint64(b[8:], sum)
	_, err := h.index.WriteAt(b[:], h.at(pgno))
	return err
}

func (h *hydration) at(pgno uint32) int64 { return hydrationHead + int64(pgno-1)*hydrationEntry }

func (h *hydration) put(o objstore.Object, pgno uint32, page []byte) error {
	is := h.s.is(o, pgno)
	_, err := h.pages.WriteAt(page, int64(pgno-1)*int64(len(page)))
	if err == nil {
		err = h.setEntry(pgno, is, h.sum(is, page))
	}
	if err == nil {
		h.filled.Add(1)
	}
	return err
}

// follow has the newest state filled in, in the background.
func (h *hydration) follow(v *View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v == h.last {
		return
	}
	h.next = v
	if h.busy {
		return
	}
	h.busy = true
	h.s.work.Go(h.run)
}

// run fills until there is nothing newer. Another process may be at it: then this one only reads.
func (h *hydration) run() {
	for {
		h.mu.Lock()
		v := h.next
		if h.next = nil; v == nil {
			h.busy = false
			h.mu.Unlock()
			return
		}
		last := h.last
		h.mu.Unlock()
		err := unix.Flock(int(h.index.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			err = guarded(func() error { return h.fill(v, last) })
			_ = unix.Flock(int(h.index.Fd()), unix.LOCK_UN)
		}
		h.mu.Lock()
		if err == nil {
			h.last = v
		}
		h.mu.Unlock()
		if err != nil && h.s.ctx.Err() == nil && err != unix.EWOULDBLOCK {
			why := err.Error()
			h.failed.Store(&why)
		} else {
			h.failed.Store(nil)
		}
	}
}

// fill brings in what a state has and the file has not. Where it does not differ from the one before
// there is nothing to look at.
func (h *hydration) fill(v, last *View) error {
	if err := h.begin(v); err != nil {
		return err
	}
	lanes := make(chan struct{}, hydrationLanes)
	var first atomic.Pointer[error]
	var run []want
	filled := int64(0)
	flush := func() bool {
		if len(run) == 0 {
			return true
		}
		select {
		case lanes <- struct{}{}:
		case <-h.s.ctx.Done():
			return false
		}
		h.s.carry(v, run, lanes, func(err error) { first.CompareAndSwap(nil, &err) })
		run = nil
		return first.Load() == nil
	}
	h.filled.Store(0)
	for i, c := range v.table.chunks {
		if c == nil || last != nil && i < len(last.table.chunks) && last.table.chunks[i] == c {
			filled += int64(c.count())
			continue
		}
		for j := range uint32(chunkPages) {
			pgno := uint32(i)*chunkPages + j + 1
			at := v.table.at(pgno)
			if at.file == 0 {
				continue
			}
			o := h.s.object(at.file)
			if e, ok := h.entry(pgno); ok && e[0] == h.s.is(o, pgno) {
				filled++
				continue
			}
			w := want{pageKey{at.file, pgno}, at}
			if len(run) > 0 && !follows(run, w) && !flush() {
				return h.end(lanes, &first)
			}
			run = append(run, w)
		}
	}
	flush()
	h.filled.Add(filled)
	return h.end(lanes, &first)
}

// end waits for what is under way.
func (h *hydration) end(lanes chan struct{}, first *atomic.Pointer[error]) error {
	for range cap(lanes) {
		lanes <- struct{}{}
	}
	if err := first.Load(); err != nil {
		return *err
	}
	return h.s.ctx.Err()
}

// begin sees to it that the index is one of this replica's, and of its page size.
func (h *hydration) begin(v *View) error {
	if old := h.size.Load(); old != v.PageSize {
		if err := h.index.Truncate(0); err != nil {
			return err
		}
	}
	var head [64]byte
	copy(head[:], hydrationMagic)
	root := v.root
	if root == nil {
		root = v
	}
	o := root.head
	for i, u := range []uint64{uint64(v.PageSize), uint64(o.Level), uint64(o.Min), uint64(o.Max), uint64(o.Size), uint64(o.ModTime.UnixNano())} {
		binary.LittleEndian.PutUint64(head[16+8*i:], u)
	}
	if _, err := h.index.WriteAt(head[:], 0); err != nil {
		return err
	}
	h.size.Store(v.PageSize)
	return nil
}
