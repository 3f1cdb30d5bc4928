// Package shipper carries what changed in a database to a store.
//
// There is one path, for the first snapshot, for every second's batch and for
// a repair after a crash (batch.go, put.go):
//
//	candidate pages -> read at one snapshot -> compare with the ledger -> LTX -> PUT -> ledger
//
// Candidates are the pages that markers have made dirty in the ledger, or all
// pages where what changed is not known. A page whose sum the ledger has is not
// sent. The package knows neither SQLite nor S3: pages come from a Source,
// objects go to an objstore.Store.
//
// # Rules
//
// A batch moves dirty bits in flight before it pins its snapshot, and clears only
// those, and only when the store has the object and the ledger the new sums.
// Before an object is put, the sums of its pages are made unknown, the attempt
// and its nonce are noted, and the ledger is synced; so an entry is exact or
// unknown, whatever moment the process or the machine ends at.
//
// An object is created only if none of its name exists. Who finds one there
// looks for a nonce of his own in its header: then it is his; otherwise another
// writer is at the prefix and the shipper is fenced.
//
// # A history
//
// Objects of level 0 are merged into levels 1 to 3, snapshots are made of the
// database itself, and what retention lets go is removed (keep.go, snapshot.go).
// What is due is found in the ledger when a batch has ended: no timer runs, and a
// process that lives for a second does its part. Merging and removing are a
// goroutine's beside the batches, which touches only the store, and nothing is removed
// before what replaces it is there.
//
// The role of shipper belongs to one process at a time, by a lock on the ledger.
// The others wait for the end of that lock.
package shipper

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/spool"
)

// Config is what a Shipper needs. Database, Store and Source are required.
type Config struct {
	Database string // path
	Store    objstore.Store
	Source   Source
	Interval time.Duration // the window

	// Takeover goes on with the history of a prefix that is not provably ours.
	Takeover bool

	// Sync is called when a batch was read, before it is put: it makes what was
	// read safe from a power cut. While it fails nothing is put. May be nil.
	Sync func() error

	// Keep says how the history is kept.
	Keep Keep

	// Traffic counts what the store's client sends; may be nil.
	Traffic *Traffic

	// Descriptors opens the lock's descriptor so that no forked child keeps it.
	Descriptors ledger.Descriptors

	// Log takes one line about this database. An error is a thing that
	// somebody must look at; may be nil.
	Log func(isError bool, line string)

	// Panicked is told what ended the Shipper before Close did, should that
	// happen; nil lets it end the program.
	Panicked func(*group.Panic)

	// watch is watchFile, save in tests.
	watch func(path string, wake func(), panicked func(*group.Panic)) (stop func(), err error)

	// now is time.Now, save in tests.
	now func() time.Time
}

// Traffic is counted by a store's client from any goroutine.
type Traffic struct {
	Requests, Bytes atomic.Uint64
}

// Shipper ships one database from one process, or waits until it may. It has
// one goroutine, started by New and ended by Close, which now and then starts
// another that merges and removes objects (keep.go) and ends before it does.
type Shipper struct {
	cfg    Config
	ledger atomic.Pointer[ledger.Ledger]

	wake   chan struct{} // the ledger's file was written to, or somebody ended
	drains chan *Drain
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{}
	ready  chan struct{} // closed when the first claim was decided, or another process ships

	readyOnce sync.Once

	trouble atomic.Pointer[string] // why the role cannot be taken; nil: it can, or another process has it

	last    atomic.Pointer[time.Time] // of Close: until when something may still be shipped
	aborted atomic.Pointer[string]    // the cause, of Abort

	unmap    sync.RWMutex // held by those outside the goroutine who look at the ledger
	unmapped bool

	// Of the goroutine alone.
	lock      *ledger.Lock
	stopWatch func()
	term      uint64 // the ledger's shipper epoch while this one is elected
	answers   uint64 // the last wish that was there when the attempt under way began
	claimed   bool
	proof     time.Duration // boot time at which the prefix was last seen to be ours
	xor       uint64        // of all entries
	xorKnown  bool
	state     State
	cause     string
	looked    looked      // of the batch under way
	reached   *Position   // up to which it has read
	base      *Position   // up to which everything is in the store or marked; nil: not known
	body      spool.Spool // the batch under way
	sums      spool.Spool
	copies    copies
	buf       []byte // of the pages that are read at a time
	chunks    chan *chunk
	retry     backoff
	busy      time.Duration // last pause for somebody else's lock
	malformed bool          // the database, when a batch last read it: no Drain waits for that
	late      []*Drain      // to be served; some of them came while a PUT was being tried
	before    Traffic       // at the begin of the term
	chores    chores
	snapshot  snapshot
}

// New opens the ledger of a database, making one where there is none, and
// starts to ship or to wait. It does not wait for the store. Where the ledger
// cannot be opened or made, for the want of space or descriptors say, the status
// tells so, and that is tried again: the fault may end before the program does.
func New(cfg Config) *Shipper {
	s := newShipper(cfg)
	err := s.open()
	if err == nil {
		err = s.elect()
	}
	s.tell(err)
	// Another process may be making the ledger just now. Who writes before it is
	// there marks nothing.
	for until := time.Now().Add(ledgerWait); errors.Is(err, ledger.ErrLocked) && !s.ledger.Load().Ready() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	go s.run()
	return s
}

// ledgerWait bounds how long an open waits for another process to make the ledger: it
// takes some milliseconds and a few fsyncs.
const ledgerWait = time.Second

// newShipper is a Shipper without a ledger and without its goroutine.
func newShipper(cfg Config) *Shipper {
	if cfg.Log == nil {
		cfg.Log = func(bool, string) {}
	}
	if cfg.Sync == nil {
		cfg.Sync = func() error { return nil }
	}
	if cfg.Traffic == nil {
		cfg.Traffic = new(Traffic)
	}
	if cfg.watch == nil {
		cfg.watch = watchFile
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	s := &Shipper{
		cfg:    cfg,
		wake:   make(chan struct{}, 1),
		drains: make(chan *Drain),
		chunks: newChunks(),
		done:   make(chan struct{}),
		ready:  make(chan struct{}),
		body:   spool.Spool{Dir: filepath.Dir(cfg.Database)},
		sums:   spool.Spool{Dir: filepath.Dir(cfg.Database)},
		copies: copies{pages: spool.Spool{Dir: filepath.Dir(cfg.Database)}},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends the goroutine and gives the role up. What is not in the store stays
// in the ledger; Drain first for it to be shipped. Should another process have
// committed after that and have ended in the belief that this one ships, it is shipped
// too, at most until the deadline.
func (s *Shipper) Close(deadline time.Time) {
	s.last.CompareAndSwap(nil, &deadline)
	s.cancel()
	<-s.done
}

// Abort has the Shipper end for a cause that is a fault of this process: nothing more
// is shipped, and who waits is told the cause, unless another process goes on. It
// waits for nothing and may be called from anywhere. Close is still to be called.
func (s *Shipper) Abort(cause string) {
	s.aborted.CompareAndSwap(nil, &cause)
	s.cancel()
}
