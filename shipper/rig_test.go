package shipper

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"golang.org/x/sys/unix"
)

// A rig is a database, a store and Shippers that run, within a synctest bubble:
// its time passes when all of them wait. In the place of inotify, which does not
// reach a bubble, all pokes go to all who watch.
type rig struct {
	t     *testing.T
	db    *simDB
	store *memStore

	mu    sync.Mutex // protects what follows
	wakes map[int]func()
	count int // watches made
	lines []string
	tries int // descriptors opened to lock the ledger
}

func inBubble(t *testing.T, f func(g *rig)) {
	t.Helper()
	dir := ramDir(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := newSimDB(filepath.Join(dir, "app.db"), 5)
		if err != nil {
			t.Fatal(err)
		}
		g := &rig{t: t, db: db, store: newMemStore(), wakes: map[int]func(){}}
		db.wake = g.wake
		defer db.close()
		f(g)
	})
}

func (g *rig) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.wakes {
		f()
	}
}

func (g *rig) config() Config {
	return Config{
		Database: g.db.path, Store: g.store, Source: g.db, Interval: time.Second,
		Log: func(_ bool, line string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.lines = append(g.lines, line)
		},
		Descriptors: ledger.Descriptors{
			Open: func(path string) (int, error) {
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.tries++; g.tries > 1000 {
					panic("the ledger is locked again and again")
				}
				return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			},
			// The end of a descriptor that was open for writing is an event.
			Close: func(fd int) { unix.Close(fd); g.wake() },
		},
		watch: func(_ string, wake func(), _ func(*group.Panic)) (func(), error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			id := g.count
			g.count++
			g.wakes[id] = wake
			return func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				delete(g.wakes, id)
			}, nil
		},
	}
}

func (g *rig) logged(text string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, line := range g.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// open starts a Shipper, which the test ends.
func (g *rig) open(change ...func(*Config)) *Shipper {
	g.t.Helper()
	cfg := g.config()
	for _, f := range change {
		f(&cfg)
	}
	s := New(cfg)
	return s
}

// stepper is a Shipper that does only what the test calls.
func (g *rig) stepper(change ...func(*Config)) *Shipper {
	g.t.Helper()
	cfg := g.config()
	for _, f := range change {
		f(&cfg)
	}
	s, err := stepper(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// pass lets time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// write is a commit of a program with walferry.
func (g *rig) write(value byte, pages ...uint32) {
	g.db.mu.Lock()
	defer g.db.mu.Unlock()
	g.db.write(set(value, pages...))
}

// failPins has no snapshot be taken for an error; nil ends that.
func (g *rig) failPins(err error) {
	g.db.mu.Lock()
	defer g.db.mu.Unlock()
	g.db.pinErr = err
}

// pins counts the snapshots that were taken, pinned those that are open.
func (g *rig) pins() int   { return g.locked(&g.db.pins) }
func (g *rig) pinned() int { return g.locked(&g.db.open) }

func (g *rig) locked(n *int) int {
	g.db.mu.Lock()
	defer g.db.mu.Unlock()
	return *n
}

// batch is a batch that must end well.
func (g *rig) batch(s *Shipper) {
	g.t.Helper()
	for range 10 {
		again, err := s.batch(nil)
		if err != nil {
			g.t.Fatal(err)
		}
		if again == 0 {
			if s.state != StateShipping {
				g.t.Fatalf("state after a batch is %s: %s", s.state, s.cause)
			}
			return
		}
		pass(again)
	}
	g.t.Fatal("a batch was to be tried again ten times")
}

// replicated checks that the store has the newest commit.
func (g *rig) replicated() {
	g.t.Helper()
	g.db.mu.Lock()
	defer g.db.mu.Unlock()
	if err := g.db.now().equals(replay(g.t, g.store.history())); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) objects() int { return len(g.store.history()) }

// next is the TXID of the next object.
func (g *rig) next() ltx.TXID { return ltx.TXID(g.objects() + 1) }

// plant puts an object of another writer into the store.
func (g *rig) plant(level int, txid ltx.TXID, nonce uint64, s state) objstore.Object {
	g.t.Helper()
	var spooled bytes.Buffer
	enc, err := ltx.NewEncoder(&spooled)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := enc.EncodeHeader(ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: simPageSize, Commit: uint32(len(s)),
		MinTXID: txid, MaxTXID: txid, Timestamp: 1000, WALOffset: 32, NodeID: nonce,
	}); err != nil {
		g.t.Fatal(err)
	}
	for p := uint32(1); int(p) <= len(s); p++ {
		if err := enc.EncodePage(ltx.PageHeader{Pgno: p}, s.page(p, simPageSize)); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		g.t.Fatal(err)
	}
	o := objstore.Object{Level: level, Min: txid, Max: txid, Size: int64(spooled.Len())}
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	g.store.objects[keyOf(o)] = &memObject{name: o, data: spooled.Bytes()}
	return o
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (g *rig) header(s *Shipper) *ledger.Header { return s.ledger.Load().Header() }

func load(p *uint64) uint64 { return atomic.LoadUint64(p) }

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 5)) }
