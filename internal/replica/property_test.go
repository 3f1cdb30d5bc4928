package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// mischief is what goes on in a place while it is read: a writer, merges, snapshots, retention, and
// where it is wild, somebody who empties the place and ships another database there.
type mischief struct {
	t    testing.TB
	wild bool

	mu     sync.Mutex // protects these
	rnd    *rand.Rand
	worlds []*world // the last one's is what the place holds
	quiet  bool
}

func newMischief(t testing.TB, seed uint64, pageSize uint32, wild bool) *mischief {
	w := newWorld(t, seed, pageSize)
	w.raw = seed%2 == 0
	m := &mischief{t: t, wild: wild, rnd: w.rnd, worlds: []*world{w}}
	for range 5 {
		m.commit()
	}
	w.bucket.set(func() {
		w.bucket.before = func(context.Context, string, objstore.Object, int64, int64) error {
			m.happen()
			return nil
		}
	})
	return m
}

func (m *mischief) world() *world { return m.worlds[len(m.worlds)-1] }

func (m *mischief) commit() {
	w := m.world()
	w.step(25)
	w.ship()
}

// happen does something or nothing.
func (m *mischief) happen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.quiet {
		return
	}
	w := m.world()
	switch n := m.rnd.IntN(40); {
	case n < 3:
		m.commit()
	case n < 6:
		to := ltx.TXID(m.rnd.IntN(int(w.head))) + 1
		from := max(to-ltx.TXID(m.rnd.IntN(8)), 2)
		if from < to {
			m.put(m.rnd.IntN(3)+1, from, to)
		}
	case n == 6:
		m.put(objstore.SnapshotLevel, 1, w.head-ltx.TXID(m.rnd.IntN(int(min(w.head, 3)))))
	case n < 10:
		m.remove()
	case n == 10 && m.wild && m.rnd.IntN(4) == 0:
		w.bucket.clear()
		w = w.fresh(w.begin.Add(time.Hour))
		m.worlds = append(m.worlds, w)
		for range 3 + m.rnd.IntN(8) {
			m.commit()
		}
	}
}

func (m *mischief) put(level int, from, to ltx.TXID) {
	for _, o := range m.world().bucket.all() {
		if o.Level == level && o.Min == from && o.Max == to {
			return
		}
	}
	m.world().put(level, from, to)
}

// remove takes objects away without which the newest state can be read still. That of the last
// transaction at level 0 stays, as with every retention.
func (m *mischief) remove() {
	w := m.world()
	h := m.history()
	for _, o := range w.bucket.all() {
		if o.Level == 0 && o.Max == w.head || m.rnd.IntN(3) == 0 {
			continue
		}
		if p, err := h.Without(o).Plan(0); err == nil && p.TXID() == w.head {
			h = h.Without(o)
			w.bucket.remove(o)
		}
	}
}

func (m *mischief) history() *history.History {
	h := new(history.History)
	for _, o := range m.world().bucket.all() {
		h.Levels[o.Level] = append(h.Levels[o.Level], o)
	}
	return h
}

// states are those that had a TXID, of all databases that there were.
func (m *mischief) states(txid ltx.TXID) (states []image) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.worlds {
		if s, ok := w.states[txid]; ok {
			states = append(states, s)
		}
	}
	return states
}

// newest is what the place has now.
func (m *mischief) newest() (generation int, txid ltx.TXID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.worlds), m.world().head
}

// clear is an error that says what is the matter with the place, which somebody else has changed.
func clearError(err error) bool {
	for _, known := range []error{objstore.ErrNotExist, history.ErrNothing, history.ErrGap, history.ErrNoPoint, errAnother} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// reader is a connection at which anything is done.
type reader struct {
	m   *mischief
	c   *Conn
	rnd *rand.Rand
	ok  int // transactions without an error
}

func (r *reader) failed(err error) bool {
	if err != nil && !clearError(err) {
		r.m.t.Errorf("not an error that tells what happened: %v", err)
	}
	return err != nil
}

func (r *reader) transaction() {
	switch r.rnd.IntN(6) {
	case 0:
		_, head := r.m.newest()
		txid := ltx.TXID(r.rnd.IntN(int(head))) + 1
		if !r.failed(r.c.PinTXID(txid)) && r.c.TXID() != txid {
			r.m.t.Errorf("TXID %s was chosen, and %s is read", txid, r.c.TXID())
		}
	case 1:
		if err := r.c.PinAt(latest); err != nil {
			r.m.t.Error(err)
		}
	}
	generation, head := r.m.newest()
	if _, err := r.c.Begin(); r.failed(err) {
		return
	}
	defer r.c.End()
	if now, _ := r.m.newest(); now == generation && r.c.At() == latest && r.c.TXID() < head {
		r.m.t.Errorf("TXID %s is read, and %s was there before", r.c.TXID(), head)
	}
	txid, size := r.c.TXID(), r.c.Size()
	states := r.m.states(txid)
	pages := uint32(size / int64(r.c.current().PageSize))
	ok := true
	for range 1 + r.rnd.IntN(60) {
		p := r.rnd.Uint32N(pages) + 1
		got, err := readPage(r.c, p)
		if r.failed(err) {
			ok = false
			continue
		}
		states = slices.DeleteFunc(states, func(s image) bool { return s.commit != pages || !s.same(p, got) })
		if len(states) == 0 {
			r.m.t.Errorf("page %d of TXID %s belongs to no state with what was read before", p, txid)
			return
		}
		if r.c.TXID() != txid || r.c.Size() != size {
			r.m.t.Errorf("TXID %s of %d bytes has become %s of %d", txid, size, r.c.TXID(), r.c.Size())
			return
		}
	}
	if ok {
		r.ok++
	}
}

func testProperty(t *testing.T, wild bool) {
	for seed := range rounds(t) {
		pageSize := []uint32{512, 512, 4096, 1024, 512, 8192, 2048, 65536}[seed%8]
		t.Run(fmt.Sprintf("seed %d, page size %d", seed, pageSize), func(t *testing.T) {
			m := newMischief(t, seed, pageSize, wild)
			o := m.world().options()
			o.CacheSize = 10 * int64(pageSize)
			if seed%3 == 0 {
				o.CacheDir, o.CacheDirSize = t.TempDir(), 1<<20
			}
			var readers []*reader
			for i := range 4 {
				c, err := Open(o, nil)
				for n := 0; clearError(err) && n < 100; n++ {
					c, err = Open(o, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				readers = append(readers, &reader{m: m, c: c, rnd: rand.New(rand.NewPCG(seed, uint64(i)))})
			}
			var wg sync.WaitGroup
			for _, r := range readers {
				wg.Go(func() {
					for range 30 {
						r.transaction()
					}
				})
			}
			wg.Wait()
			m.mu.Lock()
			m.quiet = true
			m.mu.Unlock()
			w := m.world()
			well := 0
			for _, r := range readers {
				well += r.ok
				if err := r.c.PinAt(latest); err != nil {
					t.Fatal(err)
				}
				w.reads(r.c, w.head) // whatever there was before
			}
			if well < 10 {
				t.Errorf("only %d transactions went well", well)
			}
			h := m.history()
			for txid := ltx.TXID(1); txid <= w.head; txid++ {
				if _, err := h.Plan(txid); err != nil {
					continue
				}
				if err := readers[0].c.PinTXID(txid); err != nil {
					t.Fatalf("TXID %s: %v", txid, err)
				}
				w.reads(readers[0].c, txid)
			}
		})
	}
}

// underRace: everything takes ten times as long.
var underRace = false

// rounds is how many histories are read in a test: WALFERRY_TEST_ROUNDS, or a few.
func rounds(t *testing.T) uint64 {
	v := os.Getenv("WALFERRY_TEST_ROUNDS")
	switch {
	case v == "" && underRace:
		return 3
	case v == "":
		return 6
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestATransactionIsOneStateWhateverIsDoneMeanwhile(t *testing.T) { testProperty(t, false) }

func TestATransactionIsOneStateEvenWhereThePlaceIsTaken(t *testing.T) { testProperty(t, true) }
