package shipper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"unsafe"

	"github.com/walferry/walferry/internal/ledger"
)

const simPageSize = 512

// state is a committed state: the value of each page, which stands for its
// content. Few values make pages go there and back.
type state []byte // by page number - 1

func (s state) page(p, size uint32) []byte { return simPage(s[p-1], size) }

func simPage(value byte, size uint32) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = value + byte(i)*13
	}
	return b
}

// equals compares a state with what a replica holds.
func (s state) equals(im *image) error {
	if im.commit != uint32(len(s)) {
		return fmt.Errorf("the replica has %d pages, the database %d", im.commit, len(s))
	}
	for p := uint32(1); p <= im.commit; p++ {
		if im.pages[p] == nil {
			return fmt.Errorf("the replica has no page %d", p)
		}
		if string(im.pages[p]) != string(s.page(p, im.pageSize)) {
			return fmt.Errorf("page %d differs", p)
		}
	}
	return nil
}

// commit is one transaction that became visible.
type commit struct {
	after   state
	pages   []uint32 // in its frames
	foreign bool
	restart bool // it restarted the WAL
	token   token
}

type token struct{ epoch, window uint64 }

// simDB is a database and its writers, as far as a Shipper can tell. They mark in
// the ledger file as cext/mark.c does, by reads and writes of the file, as another
// process would. Its methods are called by one goroutine at a time, or with mu
// held by those that say so.
type simDB struct {
	mu      sync.Mutex // held by Source methods and by tests that have a running Shipper
	path    string
	ledger  *os.File
	commits []commit // [0] is what was there in the beginning
	stamped int      // commit at the newest stamp
	notWAL  bool
	pinErr  error
	page    uint32 // bytes; 0: simPageSize

	// step, if set, is called where other processes may do something.
	step func(where string)
	// yield, if set, decides whether a Read gives way; unsure whether Tail
	// cannot tell.
	yield, unsure func() bool
	// wake, if set, is called for a poke, beside the write to the ledger's file.
	wake func()

	pins     int
	open     int // snapshots
	pinned   int // commit of the newest pin
	reads    int // pages read
	lastScan bool
}

func newSimDB(path string, pages int) (*simDB, error) {
	if err := os.WriteFile(path, []byte("database"), 0o600); err != nil {
		return nil, err
	}
	return &simDB{path: path, commits: []commit{{after: make(state, pages)}}}, nil
}

func (db *simDB) at(where string) {
	if db.step != nil {
		db.step(where)
	}
}

func (db *simDB) pageSize() uint32 {
	if db.page != 0 {
		return db.page
	}
	return simPageSize
}

func (db *simDB) now() state { return db.commits[len(db.commits)-1].after }

// file is the ledger's, opened anew where it was replaced.
func (db *simDB) file() *os.File {
	if db.ledger != nil {
		mine, err := db.ledger.Stat()
		there, err2 := os.Stat(db.path + ledger.Suffix)
		if errors.Is(err2, fs.ErrNotExist) || err == nil && err2 == nil && os.SameFile(mine, there) {
			return db.ledger
		}
		db.ledger.Close()
	}
	f, err := os.OpenFile(db.path+ledger.Suffix, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	db.ledger = f
	return f
}

func (db *simDB) close() {
	if db.ledger != nil {
		db.ledger.Close()
		db.ledger = nil
	}
}

// The fields of the header that markers use, by offset.
var hdr ledger.Header

var (
	offSeen    = int64(unsafe.Offsetof(hdr.Seen))
	offSeenSet = int64(unsafe.Offsetof(hdr.SeenSet))
	offAll     = int64(unsafe.Offsetof(hdr.All))
	offMin     = int64(unsafe.Offsetof(hdr.MinPages))
	offPoked   = int64(unsafe.Offsetof(hdr.Poked))
	offOpen    = int64(unsafe.Offsetof(hdr.OpenSinceMs))
	offWindow  = int64(unsafe.Offsetof(hdr.Window))
	offEpoch   = int64(unsafe.Offsetof(hdr.Epoch))
	offStamp   = int64(unsafe.Offsetof(hdr.Stamp))
)

func (db *simDB) get(off int64) uint64 {
	var b [8]byte
	if _, err := db.file().ReadAt(b[:], off); err != nil {
		panic(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (db *simDB) put(off int64, v uint64, n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if _, err := db.file().WriteAt(b[:n], off); err != nil {
		panic(err)
	}
}

func (db *simDB) get32(off int64) uint32 { return uint32(db.get(off)) }

// seen is the newest commit that is marked.
func (db *simDB) seen() (n int, ok bool) {
	if db.get32(offSeenSet) == 0 {
		return 0, false
	}
	n = int(db.get32(offSeen))
	return n, n < len(db.commits)
}

func (db *simDB) addAll() { db.put(offAll, db.get(offAll)+1, 8) }

func (db *simDB) mark(p uint32) {
	off := int64(ledger.HeaderSize) + int64((p-1)/ledger.SegmentPages)*ledger.SegmentSize + int64((p-1)%ledger.SegmentPages/8)
	fi, err := db.file().Stat()
	if err != nil || off >= fi.Size() {
		db.addAll()
		return
	}
	b := make([]byte, 1)
	if _, err := db.file().ReadAt(b, off); err != nil {
		panic(err)
	}
	b[0] |= 1 << ((p - 1) % 8)
	if _, err := db.file().WriteAt(b, off); err != nil {
		panic(err)
	}
}

// unmarked is what the commits after seen up to the newest changed. ok is false
// where the WAL was restarted by who does not mark.
func (db *simDB) unmarked(seen, upTo int, own int) (pages []uint32, smallest uint32, ok bool) {
	before := uint32(len(db.commits[seen].after))
	n := uint32(len(db.commits[upTo].after))
	smallest = min(n, before)
	for i := seen + 1; i <= upTo; i++ {
		c := db.commits[i]
		if c.restart && i != own {
			return nil, 0, false
		}
		pages = append(pages, c.pages...)
		smallest = min(smallest, uint32(len(c.after)))
	}
	return pages, smallest, true
}

// catchUp marks what is not marked, as wf_catch_up does. own is the commit whose
// restart of the WAL this connection made itself. die is asked between steps.
func (db *simDB) catchUp(own int, die func() bool) {
	newest := len(db.commits) - 1
	seen, set := db.seen()
	if set && seen == newest {
		return
	}
	pages, smallest, ok := []uint32(nil), uint32(0), false
	if set {
		pages, smallest, ok = db.unmarked(seen, newest, own)
	}
	if !ok {
		db.addAll()
	} else {
		n := uint32(len(db.now()))
		for _, p := range pages {
			if p <= n {
				db.mark(p)
			}
		}
		if die() {
			return
		}
		for p := smallest + 1; p <= n; p++ {
			db.mark(p)
		}
		if smallest < db.get32(offMin) {
			db.put(offMin, uint64(smallest), 4)
		}
	}
	if die() {
		return
	}
	db.put(offSeen, uint64(newest), 4)
	db.put(offSeenSet, 1, 4)
	db.put(offStamp, 0, 8)
	if die() {
		return
	}
	if own >= 0 {
		db.commits[newest].token = token{db.get(offEpoch), db.get(offWindow)}
	}
	db.openWindow()
}

func (db *simDB) openWindow() {
	if db.get32(offPoked) == 0 {
		db.put(offPoked, 1, 4)
		if db.get(offOpen) == 0 {
			db.put(offOpen, 1, 8)
		}
		db.poke()
	}
}

func (db *simDB) poke() {
	db.put(ledger.PokeOffset, 1, 1)
	if db.wake != nil {
		db.wake()
	}
}

func never() bool { return false }

// write is a whole transaction of a program with walferry.
func (db *simDB) write(change func(s state) (state, []uint32)) {
	db.catchUp(-1, never)
	db.commit(change, false, false)
	db.catchUp(len(db.commits)-1, never)
}

// commit makes a transaction visible; it is not marked yet.
func (db *simDB) commit(change func(s state) (state, []uint32), foreign, restart bool) {
	after, pages := change(slices.Clone(db.now()))
	db.commits = append(db.commits, commit{after: after, pages: pages, foreign: foreign, restart: restart})
	if err := os.WriteFile(db.path+"-wal", []byte("frames"), 0o600); err != nil {
		panic(err)
	}
}

// lastClose checkpoints, deletes the WAL and stamps the database file, as
// wf_stamp_closed does after a last close.
func (db *simDB) lastClose() {
	db.catchUp(-1, never)
	os.Remove(db.path + "-wal")
	stamp := ledger.StampOf(db.path)
	if _, err := db.file().WriteAt((*[unsafe.Sizeof(stamp)]byte)(unsafe.Pointer(&stamp))[:], offStamp); err != nil {
		panic(err)
	}
	db.stamped = len(db.commits) - 1
}

// set is a change of the given pages to a value.
func set(value byte, pages ...uint32) func(state) (state, []uint32) {
	return func(s state) (state, []uint32) {
		for _, p := range pages {
			s[p-1] = value
		}
		return s, pages
	}
}

// resize is a change of the database's size, which writes page 1 too.
func resize(n int, value byte) func(state) (state, []uint32) {
	return func(s state) (state, []uint32) {
		pages := []uint32{1}
		s[0] += 3
		for len(s) < n {
			s = append(s, value)
			pages = append(pages, uint32(len(s)))
		}
		return s[:n], pages
	}
}

// Pin makes simDB a Source.
func (db *simDB) Pin(scan bool) (Snapshot, error) {
	db.at("pin")
	db.mu.Lock()
	defer db.mu.Unlock()
	db.pins++
	if db.pinErr != nil {
		return nil, db.pinErr
	}
	if db.notWAL {
		return nil, ErrNotWAL
	}
	db.open++
	db.lastScan = scan
	db.pinned = len(db.commits) - 1
	return &simSnapshot{db: db, n: db.pinned, state: db.now(), stamped: db.stamped}, nil
}

type simSnapshot struct {
	db      *simDB
	n       int // commit
	state   state
	stamped int // commit at which the WAL began
}

func (s *simSnapshot) PageSize() uint32 {
	s.db.at("size")
	switch {
	case len(s.state) == 0:
		return 0
	default:
		return s.db.pageSize()
	}
}

func (s *simSnapshot) Pages() uint32 { return uint32(len(s.state)) }

func (s *simSnapshot) Position() Position {
	return Position{Salt: [2]uint32{1, uint32(s.stamped)}, Frame: uint32(s.n - s.stamped)}
}

func (s *simSnapshot) Tail(base *Position) (pages []uint32, smallest uint32, ok bool) {
	if pages, smallest, ok = s.marked(); ok || base == nil {
		return pages, smallest, ok
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	return s.db.unmarked(int(base.Salt[1]+base.Frame), s.n, -1)
}

func (s *simSnapshot) marked() (pages []uint32, smallest uint32, ok bool) {
	s.db.at("tail")
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if s.db.unsure != nil && s.db.unsure() {
		return nil, 0, false
	}
	seen, set := s.db.seen()
	if !set {
		return nil, 0, false
	}
	if seen >= s.n {
		return nil, uint32(len(s.state)), true
	}
	return s.db.unmarked(seen, s.n, -1)
}

func (s *simSnapshot) Read(pages []uint32, buf []byte) error {
	s.db.at("read")
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if s.db.yield != nil && s.db.yield() {
		return fmt.Errorf("%w", ErrBusy)
	}
	for i, p := range pages {
		s.db.reads++
		size := s.db.pageSize()
		copy(buf[i*int(size):], s.state.page(p, size))
	}
	return nil
}

func (s *simSnapshot) Close() {
	s.db.mu.Lock()
	s.db.open--
	s.db.mu.Unlock()
	s.db.at("unpin")
}
