package shipper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"golang.org/x/sys/unix"
)

// ramDir is a directory that syncs at no cost.
func ramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "walferry-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stepper is a Shipper without its goroutine: a test calls what run would.
func stepper(cfg Config) (*Shipper, error) {
	s := newShipper(cfg)
	l, err := ledger.Open(cfg.Database)
	if err != nil {
		return nil, err
	}
	s.ledger.Store(l)
	if err := s.elect(); err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// end is what is left of a Shipper when its process ends.
func (s *Shipper) end() {
	s.cancel()
	s.resign()
	s.body.Reset()
	s.sums.Reset()
	s.copies.reset()
	s.ledger.Load().Close()
}

// A world is a database, its writers and a machine that may lose power, with one
// Shipper that may be killed at any moment, and a store that may fail.
type world struct {
	t     testing.TB
	seed  uint64
	r     *rand.Rand
	db    *simDB
	store *memStore
	s     *Shipper // nil: its process was killed
	w     *writer
	log   []string

	calm   bool // no more faults, kills and concurrency
	dying  bool // a kill is under way
	nested bool // within a step of another process
	booted bool // no Shipper has opened the ledger since the machine started

	im       image             // replay of the store
	attempts map[uint64]tried  // by nonce
	last     map[string]uint64 // counters of the current epoch
	epoch    uint64
	images   [][]byte // the ledger's pages since the last sync; [0] is that
	pinView  *view
	err      error
}

// tried is what an attempt was made of.
type tried struct {
	commit int
	view   *view // of the ledger when its state was pinned
}

// writer is a transaction under way, holding the write lock.
type writer struct {
	foreign bool
	phase   int
}

func newWorld(t testing.TB, seed uint64, dir string) *world {
	w := &world{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 99)), store: newMemStore(),
		attempts: map[uint64]tried{}, last: map[string]uint64{},
	}
	var err error
	if w.db, err = newSimDB(filepath.Join(dir, "app.db"), 3); err != nil {
		t.Fatal(err)
	}
	w.db.step = w.step
	w.db.yield = func() bool { return !w.calm && w.r.IntN(8) == 0 }
	w.db.unsure = func() bool { return !w.calm && w.r.IntN(12) == 0 }
	w.store.fault = w.fault
	w.store.attempt = w.attempt
	w.store.created = w.created
	return w
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// failf notes the first thing that is wrong.
func (w *world) failf(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.logf("WRONG: %v", w.err)
	}
}

func (w *world) chance(percent int) bool { return !w.calm && w.r.IntN(100) < percent }

// step is a moment at which the Shipper is in the middle of something.
func (w *world) step(where string) {
	if w.dying || w.nested {
		return
	}
	if where == "pin" {
		w.pinView = nil
	}
	w.nested = true
	for w.chance(35) {
		w.writerStep()
	}
	if w.chance(5) {
		w.arrive()
	}
	w.nested = false
	if where == "tail" || where == "size" {
		if w.pinView == nil {
			w.pinView = w.look()
		}
	}
	w.check(where)
	switch {
	case where == "read" && w.db.lastScan || where == "unpin":
	case w.chance(1):
		w.kill(where)
	case w.chance(4):
		w.protect()
	}
}

func (w *world) kill(where string) {
	w.logf("kill at %s", where)
	w.dying = true
	panic(killed{})
}

// protect has the Shipper killed at its next write to some page of the ledger,
// under the race detector at its next read too.
func (w *world) protect() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	var pages []uintptr
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[5] != w.db.path+ledger.Suffix {
			continue
		}
		from, _ := strconv.ParseUint(strings.Split(f[0], "-")[0], 16, 64)
		off, _ := strconv.ParseUint(f[2], 16, 64)
		switch {
		case off == 0:
			pages = append(pages, uintptr(from), uintptr(from), uintptr(from)+4096)
		case off == ledger.HeaderSize:
			pages = append(pages, uintptr(from), uintptr(from), uintptr(from)+4096)
		}
	}
	if len(pages) == 0 {
		return
	}
	page := pages[w.r.IntN(len(pages))]
	w.logf("protect a page at offset %d of its mapping", page%ledger.HeaderSize)
	if _, _, e := unix.Syscall(unix.SYS_MPROTECT, page, 4096, killProt); e != 0 {
		w.failf("mprotect: %v", e)
	}
}

// fault decides about a call of the store, whose lock is held.
func (w *world) fault(op string, o objstore.Object, _ int) fault {
	if w.calm {
		return works
	}
	f := works
	n := 100
	if op != "create" {
		n = 1500 // an open makes many of them
	}
	switch x := w.r.IntN(n); {
	case x < 10:
		f = fails
	case x < 15:
		f = losesReply
	case x < 18 && op == "create":
		f = isLate
	case x < 21:
		f = kills
	case x < 24:
		f = killsAfter
	case x < 26 && op == "create":
		f = killsLate
	}
	if f != works {
		w.logf("%s %s: fault %d", op, o.Name(), f)
	}
	if f == kills || f == killsAfter || f == killsLate {
		w.dying = true
	}
	return f
}

// attempt notes what an object that is to be put was made of: at this moment the
// ledger was just synced.
func (w *world) attempt(o *memObject) {
	w.synced()
	w.check("put")
	h, _, err := new(image).apply(&memObject{name: o.name, data: o.data})
	if err != nil {
		w.failf("object %s: %v", o.name, err)
		return
	}
	if _, again := w.attempts[h.NodeID]; !again {
		w.attempts[h.NodeID] = tried{w.db.pinned, w.pinView}
		w.logf("put %s with nonce %x, commit %d", o.name.Name(), h.NodeID, w.db.pinned)
	}
	if w.chance(5) {
		w.protect()
	}
	w.nested = true
	for w.chance(35) {
		w.writerStep()
	}
	w.nested = false
}

// created checks an object that came to be: invariants 1, 6 and 7.
func (w *world) created(o *memObject) {
	if n := w.countLevel9And0(); int(o.name.Max) != n {
		w.failf("invariant 6: %s is object number %d", o.name, n)
	}
	before := w.im
	before.pages = map[uint32][]byte{}
	for p, b := range w.im.pages {
		before.pages[p] = b
	}
	h, changed, err := w.im.apply(o)
	if err != nil {
		w.failf("invariant 1: %v", err)
		return
	}
	try, ok := w.attempts[h.NodeID]
	if !ok {
		w.failf("invariant 6: nonce %x of %s was never tried", h.NodeID, o.name)
		return
	}
	w.logf("created %s of commit %d", o.name.Name(), try.commit)
	if err := w.db.commits[try.commit].after.equals(&w.im); err != nil {
		w.failf("invariant 1: after %s: %v", o.name, err)
	}
	if sum := w.im.checksum(); o.meta.Checksum != 0 && o.meta.Checksum != sum {
		w.failf("checksum of %s is %x, and the database's %x", o.name, o.meta.Checksum, sum)
	}
	for p, data := range changed {
		if h.MinTXID == 1 || !bytes.Equal(before.pages[p], data) || p == 1 && before.commit != h.Commit {
			continue
		}
		if try.view != nil && try.view.sum(p) != 0 && !(p == 1 && (try.view.h.DBPages != h.Commit || h.MinTXID == 2)) {
			w.failf("invariant 7: %s holds page %d, which the store had", o.name, p)
		}
	}
}

func (w *world) countLevel9And0() (n int) { return len(w.store.historyLocked()) }

// checksum is that of the database, as an object's metadata has it.
func (im *image) checksum() (x uint64) {
	for p, data := range im.pages {
		x ^= ledger.PageSum(p, data)
	}
	return x
}

// view is the ledger's file as it is at a moment: its header and the bits and
// sums of the first pages.
type view struct {
	h   *ledger.Header
	seg []byte
}

const viewBytes = 8192

func (w *world) look() *view {
	buf := make([]uint64, int(unsafe.Sizeof(ledger.Header{}))/8)
	v := &view{h: (*ledger.Header)(unsafe.Pointer(&buf[0])), seg: make([]byte, viewBytes)}
	f := w.db.file()
	if _, err := f.ReadAt(unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), len(buf)*8), 0); err != nil {
		w.failf("read ledger: %v", err)
	}
	if _, err := f.ReadAt(v.seg, ledger.HeaderSize); err != nil {
		w.failf("read ledger: %v", err)
	}
	return v
}

func (v *view) bit(off int, p uint32) bool { return v.seg[off+int(p-1)/8]&(1<<((p-1)%8)) != 0 }
func (v *view) dirty(p uint32) bool        { return v.bit(0, p) }
func (v *view) inflight(p uint32) bool     { return v.bit(ledger.SegmentPages/8, p) }
func (v *view) sum(p uint32) uint64 {
	return binary.LittleEndian.Uint64(v.seg[2*ledger.SegmentPages/8+int(p-1)*8:])
}

// check holds what must be true at every moment: invariants 3, 4, 5 and 13.
func (w *world) check(where string) {
	v := w.look()
	if v.h.Ready == 0 {
		return
	}
	for p := uint32(1); p <= 12; p++ {
		sum := v.sum(p)
		if sum == 0 {
			continue
		}
		if data := w.im.pages[p]; data == nil || ledger.PageSum(p, data) != sum {
			w.failf("invariant 3, %s: the entry of page %d is not what the store has", where, p)
		}
	}
	w.checkQueued(v, where)
	w.checkDurable(v, where)
	if v.h.Epoch != w.epoch {
		w.epoch = v.h.Epoch
		clear(w.last)
	}
	for name, value := range map[string]uint64{
		"window": v.h.Window, "durable": v.h.Durable, "txid": v.h.TXID, "all": v.h.All, "shipper_epoch": v.h.ShipperEpoch,
	} {
		if value < w.last[name] {
			w.failf("invariant 13, %s: %s went from %d to %d", where, name, w.last[name], value)
		}
		w.last[name] = value
	}
	if state := State(v.h.State); state.Stuck() {
		w.failf("%s: %s: %s", where, state, v.h.Cause())
	}
	w.images = append(w.images, w.snapshotFile())
}

// checkQueued is invariant 4.
func (w *world) checkQueued(v *view, where string) {
	if len(w.im.pages) == 0 || v.h.All != v.h.AllDone || v.h.TXID == 0 {
		return
	}
	newest := len(w.db.commits) - 1
	now := w.db.now()
	seen, set := int(v.h.Seen[0]), v.h.SeenSet != 0
	if !set || seen > newest {
		return
	}
	tail, smallest, ok := w.db.unmarked(seen, newest, newest)
	if !ok {
		return
	}
	floor := min(v.h.MinPages, v.h.MinInflight, smallest, v.h.DBPages)
	sized := v.h.DBPages != uint32(len(now)) // then page 1 is sent, with the size
	if !sized && int(w.im.commit) != len(now) {
		w.failf("invariant 4, %s: the store has %d pages, the database %d, and the ledger does not know", where, w.im.commit, len(now))
	}
	for p := uint32(1); int(p) <= len(now); p++ {
		if bytes.Equal(w.im.pages[p], now.page(p, simPageSize)) {
			continue
		}
		if !v.dirty(p) && !v.inflight(p) && p <= floor && !slices.Contains(tail, p) {
			w.failf("invariant 4, %s: page %d differs and is not queued", where, p)
		}
	}
}

// checkDurable is invariant 5.
func (w *world) checkDurable(v *view, where string) {
	oldest := -1
	for i, c := range w.db.commits {
		if c.token.epoch == v.h.Epoch && c.token.epoch != 0 && c.token.window <= v.h.Durable {
			oldest = i
		}
	}
	if oldest < 0 {
		return
	}
	for _, c := range w.db.commits[oldest:] {
		if c.after.equals(&w.im) == nil {
			return
		}
	}
	w.failf("invariant 5, %s: commit %d is called durable and the replica is of no commit from then on", where, oldest)
}

// writerStep is one step of some program.
func (w *world) writerStep() {
	if w.w == nil {
		w.w = &writer{foreign: w.r.IntN(6) == 0}
		return
	}
	die := func() bool {
		dead := w.chance(2)
		if dead {
			w.w = nil
		}
		return dead
	}
	x := w.w
	x.phase++
	switch x.phase {
	case 1:
		if !x.foreign {
			w.db.catchUp(-1, die)
		}
	case 2:
		if w.chance(10) {
			w.w = nil // rolled back, or killed
			return
		}
		w.db.commit(w.change, x.foreign, w.chance(10))
		w.logf("commit %d foreign %v restart %v: %v", len(w.db.commits)-1, x.foreign, w.db.commits[len(w.db.commits)-1].restart, w.db.now())
	case 3:
		if !x.foreign && !die() {
			w.db.catchUp(len(w.db.commits)-1, die)
		}
		w.w = nil
	}
}

// change is a random change of the database.
func (w *world) change(s state) (state, []uint32) {
	pages := []uint32{1}
	s[0] = byte(w.r.IntN(4))
	switch n := len(s); {
	case w.r.IntN(8) == 0 && n > 2:
		s = s[:n-1-w.r.IntN(n-2)]
	case w.r.IntN(5) == 0 && n < 9:
		for range 1 + w.r.IntN(9-n) {
			s = append(s, byte(w.r.IntN(2)))
			if w.r.IntN(2) == 0 { // else it went to the free list at once
				pages = append(pages, uint32(len(s)))
			}
		}
	}
	for range 1 + w.r.IntN(2) {
		p := 1 + w.r.IntN(len(s))
		s[p-1] = byte(w.r.IntN(2))
		pages = append(pages, uint32(p))
	}
	return s, pages
}

func (w *world) arrive() {
	if w.store.mu.TryLock() {
		w.store.mu.Unlock()
		if w.store.arrive() {
			w.logf("a late PUT arrived")
		}
	}
}

// process runs f as the Shipper's process, and ends it if f is killed.
func (w *world) process(f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, ok := v.(killed); !ok {
			err, isFault := v.(runtime.Error)
			if _, ok := v.(interface{ Addr() uintptr }); !isFault || !ok {
				w.failf("panic: %v\n%s", v, debug.Stack())
			} else {
				w.logf("killed by %v", err)
			}
		}
		w.endShipper()
	}()
	f()
}

func (w *world) endShipper() {
	if w.s != nil {
		w.s.end()
		w.s = nil
	}
	w.dying, w.nested = false, false
}

// shipperStep is one batch.
func (w *world) shipperStep() {
	w.process(func() {
		if w.s == nil {
			var err error
			if w.s, err = stepper(Config{Database: w.db.path, Store: w.store, Source: w.db, Interval: time.Second}); err != nil {
				w.failf("open: %v", err)
				return
			}
			w.logf("a shipper begins")
			w.booted = false
			if h := w.s.header(); h.Epoch != w.epoch {
				w.synced() // a Reset, which has synced
			}
			w.check("open")
		}
		var d *Drain
		if w.chance(25) {
			d = &Drain{deadline: time.Now().Add(time.Second), read: make(chan struct{}), done: make(chan struct{})}
		}
		w.logf("batch, drain %v", d != nil)
		if again, err := w.s.batch(d); errors.Is(err, errLost) {
			w.failf("the ledger was lost")
		} else {
			w.logf("batch ends: again %v, %v", again, err)
		}
		w.check("batch")
	})
	if w.db.open != 0 {
		w.failf("%d snapshots are open after a batch", w.db.open)
	}
}

// snapshotFile is what a power loss may leave of the ledger: its first pages.
func (w *world) snapshotFile() []byte {
	b := make([]byte, 2*viewBytes+4096)
	f := w.db.file()
	_, err1 := f.ReadAt(b[:viewBytes+4096], 0)
	_, err2 := f.ReadAt(b[viewBytes+4096:], ledger.HeaderSize)
	if err := errors.Join(err1, err2); err != nil {
		w.failf("read ledger: %v", err)
	}
	return b
}

func (w *world) synced() { w.images = [][]byte{w.snapshotFile()} }

// powerLoss ends all processes. Of the ledger each page is as it was at the last
// sync or at some moment since; of the WAL what was not synced may be gone.
func (w *world) powerLoss() {
	w.endShipper()
	w.w = nil
	w.images = append(w.images, w.snapshotFile())
	mixed := make([]byte, len(w.images[0]))
	for off := 0; off < len(mixed); off += 4096 {
		n := w.r.IntN(len(w.images))
		if w.r.IntN(2) == 0 {
			n = []int{0, len(w.images) - 1}[w.r.IntN(2)]
		}
		copy(mixed[off:off+4096], w.images[n][off:])
	}
	h := (*ledger.Header)(unsafe.Pointer(&mixed[0]))
	if h.Ready == 0 {
		return // not made yet; nothing to tell
	}
	newest := len(w.db.commits) - 1
	switch {
	case w.r.IntN(3) == 0 && w.db.stamped > 0 && w.db.stamped < newest:
		// Nothing of the WAL had reached the disk.
		w.logf("power loss: back to the last close, commit %d", w.db.stamped)
		back := w.db.commits[w.db.stamped]
		w.db.commits = append(w.db.commits, commit{after: back.after, foreign: true, restart: true})
		os.Remove(w.db.path + "-wal")
		if h.Stamp == ledger.StampOf(w.db.path) {
			// fresh_wal of cext finds the file as it was stamped.
			h.Seen[0], h.SeenSet = uint32(len(w.db.commits)-1), 1
		}
	case w.r.IntN(2) == 0 && newest > w.db.stamped:
		n := w.db.stamped + w.r.IntN(newest-w.db.stamped)
		w.logf("power loss: back to commit %d", n)
		w.db.commits = append(w.db.commits, commit{after: w.db.commits[n].after, foreign: true, restart: true})
	default:
		w.logf("power loss")
	}
	copy(h.Boot[:], "another boot....")
	w.booted = true
	f := w.db.file()
	_, err1 := f.WriteAt(mixed[:viewBytes+4096], 0)
	_, err2 := f.WriteAt(mixed[viewBytes+4096:], ledger.HeaderSize)
	if err := errors.Join(err1, err2); err != nil {
		w.failf("write ledger: %v", err)
	}
	w.epoch = 0 // its tokens are of before
	clear(w.last)
	w.synced()
}

// atRest ends all that is under way, ships, and checks invariant 2.
func (w *world) atRest() {
	w.calm = true
	for w.w != nil {
		w.writerStep()
	}
	for w.store.arrive() {
	}
	w.shipperStep() // one that is still to be killed
	w.db.write(set(9, 1))
	for n := 0; ; n++ {
		w.shipperStep()
		if w.err != nil {
			return
		}
		if w.s != nil && !w.s.hasWork() {
			break
		}
		if n > 50 {
			w.failf("the shipper does not come to rest")
			return
		}
	}
	v := w.look()
	now := w.db.now()
	if err := now.equals(&w.im); err != nil {
		w.failf("invariant 2: %v", err)
	}
	for p := uint32(1); p <= 12; p++ {
		want := uint64(0)
		if int(p) <= len(now) {
			want = ledger.PageSum(p, now.page(p, simPageSize))
		}
		if v.sum(p) != want {
			w.failf("invariant 2: entry of page %d is %x, want %x", p, v.sum(p), want)
		}
		if v.dirty(p) || v.inflight(p) {
			w.failf("invariant 2: page %d is still queued", p)
		}
	}
	if v.h.All != v.h.AllDone || int(v.h.DBPages) != len(now) || int(v.h.TXID) != len(w.store.history()) {
		w.failf("invariant 2: all %d of %d, %d pages, TXID %d", v.h.AllDone, v.h.All, v.h.DBPages, v.h.TXID)
	}
	// Invariant 18: a batch without a commit asks the store nothing.
	calls := w.store.allCalls()
	w.shipperStep()
	if n := w.store.allCalls() - calls; n != 0 {
		w.failf("invariant 18: %d requests without a commit", n)
	}
	w.endShipper()
}
