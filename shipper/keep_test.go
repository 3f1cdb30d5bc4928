package shipper

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// recorder knows the state after each TXID, as it was when its object was put.
type recorder struct {
	states map[ltx.TXID]state
}

func (g *rig) record() *recorder {
	r := &recorder{states: map[ltx.TXID]state{}}
	g.store.created = func(o *memObject) {
		if o.name.Min == o.name.Max && o.name.Level == levelOf(o.name.Max) {
			g.db.mu.Lock()
			defer g.db.mu.Unlock()
			r.states[o.name.Max] = slices.Clone(g.db.commits[g.db.pinned].after)
		}
	}
	return r
}

// chain is what gives the state after a TXID: the newest snapshot up to it, then
// always the file that reaches furthest; nil if it cannot be restored.
func (m *memStore) chain(txid ltx.TXID) (chain []*memObject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var have ltx.TXID
	for {
		var best *memObject
		for _, o := range m.objects {
			if o.name.Min > have+1 || o.name.Max <= have || o.name.Max > txid || have > 0 && o.name.Level == objstore.SnapshotLevel {
				continue
			}
			if have == 0 && o.name.Level != objstore.SnapshotLevel {
				continue
			}
			if best == nil || o.name.Max > best.name.Max {
				best = o
			}
		}
		if best == nil {
			break
		}
		chain = append(chain, best)
		have = best.name.Max
	}
	if have != txid {
		return nil
	}
	return chain
}

// check restores every point that can be, and returns how many there are.
func (r *recorder) check(t *testing.T, m *memStore) (n int) {
	t.Helper()
	for txid, want := range r.states {
		chain := m.chain(txid)
		if chain == nil {
			continue
		}
		n++
		if err := want.equals(replay(t, chain)); err != nil {
			t.Fatalf("TXID %s: %v", txid, err)
		}
	}
	return n
}

func (m *memStore) levels() (levels [10][]objstore.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range levels {
		levels[i] = m.list(i, 1)
	}
	return levels
}

func kept(c *Config) {
	c.Keep = Keep{SnapshotInterval: 20 * time.Minute, Policy: history.Policy{L0: 5 * time.Minute, Marks: 5 * time.Hour}}
	c.Keep.Policy.Retention, _ = history.ParseLimits("40m")
}

// offered restores every point that the listing offers by the plan for it.
func (r *recorder) offered(t *testing.T, m *memStore) *history.History {
	t.Helper()
	h, err := history.List(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, txid := range h.Points() {
		plan, err := h.Plan(txid)
		if err != nil {
			t.Fatalf("a point that is offered: %v", err)
		}
		var chain []*memObject
		for _, o := range plan.Files {
			chain = append(chain, m.objects[keyOf(o)])
		}
		want, ok := r.states[txid]
		if !ok {
			t.Fatalf("TXID %s is offered and was never put", txid)
		}
		if err := want.equals(replay(t, chain)); err != nil {
			t.Fatalf("TXID %s: %v", txid, err)
		}
	}
	return h
}

// A history of two hours, with commits of all kinds, marks, processes that end, and a
// store that fails now and then, is merged, trimmed and thinned out, and every point
// that it still offers is the state that was recorded at that moment.
func TestAKeptHistoryRestoresWhatItWas(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(g *rig) {
				r := newRand(seed)
				states := g.record()
				s := g.open(kept)
				begun := time.Now()
				var marks []objstore.Mark
				faults := newRand(seed + 1000) // of the store's calls, under its lock
				g.store.setFault(func(string, objstore.Object, int) fault {
					switch faults.IntN(150) {
					case 0:
						return fails
					case 1:
						return losesReply
					}
					return works
				})
				for time.Since(begun) < 2*time.Hour {
					g.db.mu.Lock()
					switch x := r.IntN(20); {
					case x < 15:
						g.db.write(set(byte(r.IntN(4)), uint32(1+r.IntN(len(g.db.now())))))
					case x < 18:
						g.db.write(resize(2+r.IntN(150), byte(r.IntN(3))))
					default:
						g.db.commit(resize(2+r.IntN(150), byte(r.IntN(3))), true, r.IntN(2) == 0)
					}
					g.db.mu.Unlock()
					pass(time.Duration(1+r.IntN(40)) * time.Second)
					if txid := ltx.TXID(load(&s.header().TXID)); r.IntN(50) == 0 && txid > 0 {
						m := objstore.Mark{Name: fmt.Sprint(len(marks)), TXID: txid, Time: time.Now()}
						if g.store.PutMark(context.Background(), m) == nil {
							marks = append(marks, m)
						}
					}
					if r.IntN(100) == 0 { // a process that ends, and one that follows
						s.Close(time.Now())
						s = g.open(kept)
					}
				}
				g.store.setFault(nil)
				pass(time.Minute)
				for n := range byte(3) {
					g.write(9+n, 1)
					pass(keepPauseMost)
				}
				status := s.Status()
				s.Close(time.Now())
				if status.KeepError != "" {
					t.Error(status.KeepError)
				}
				if n := states.check(t, g.store); n < 10 {
					t.Errorf("only %d points can be restored", n)
				}
				h := states.offered(t, g.store)
				kept := map[string]bool{}
				for _, m := range h.Marks {
					kept[m.Name] = true
					if _, err := h.Plan(m.TXID); err != nil {
						t.Errorf("%s: %v", m, err)
					}
				}
				for _, m := range marks {
					if young := time.Since(m.Time) < 5*time.Hour; young != kept[m.Name] {
						t.Errorf("%s was made %v ago: it is kept: %v", m, time.Since(m.Time), kept[m.Name])
					}
				}
				if n := len(h.Levels[9]); n < 2 || n > 20 {
					t.Errorf("there are %d snapshots", n)
				}
			})
		})
	}
}

// A snapshot that is copied while commits of all kinds go on is the state that its
// name says.
func TestASnapshotCopiedUnderWritesIsOneState(t *testing.T) {
	made, merged := 0, 0
	for seed := uint64(1); seed <= 25; seed++ {
		inBubble(t, func(g *rig) {
			r := newRand(seed)
			db, err := newSimDB(filepath.Join(filepath.Dir(g.db.path), "big.db"), 400)
			if err != nil {
				t.Fatal(err)
			}
			defer db.close()
			g.db, db.wake = db, g.wake
			states := g.record()
			s := g.stepper(kept)
			defer s.end()
			g.batch(s)
			for n := range 4 {
				pass(21 * time.Minute)
				db.write(set(byte(5+n), 1))
				g.batch(s)
				s.startSnapshot()
				for n := 0; s.snapshot.enc != nil || !s.snapshot.doubt.empty(); n++ {
					if n > 1000 {
						t.Fatal("the copy does not end")
					}
					for range r.IntN(3) {
						db.mu.Lock()
						db.commit(func(s state) (state, []uint32) {
							var pages []uint32
							for range 1 + r.IntN(30) {
								p := 1 + r.IntN(len(s))
								s[p-1] = byte(r.IntN(2)) // there and back again
								pages = append(pages, uint32(p))
							}
							return s, pages
						}, r.IntN(4) == 0, false)
						if r.IntN(6) == 0 {
							db.write(resize(100+r.IntN(400), byte(r.IntN(2))))
						}
						db.mu.Unlock()
					}
					if r.IntN(3) == 0 || s.snapshot.enc == nil {
						g.batch(s)
					}
					if s.snapshot.enc != nil {
						s.copyMore()
					}
				}
				if !s.snapshot.ready() {
					t.Fatal("no copy was made")
				}
				if len(s.snapshot.since) > 0 {
					merged++
				}
				made++
				for s.startChores(); s.chores.result != nil; {
					s.endChores(<-s.chores.result)
				}
				if text := s.header().KeepError(); text != "" {
					t.Fatal(text)
				}
			}
			states.check(t, g.store)
			for _, o := range g.store.levels()[9] {
				want, ok := states.states[o.Max]
				if !ok {
					t.Fatalf("%s is of no TXID that was put", o)
				}
				if err := want.equals(replay(t, []*memObject{g.store.objects[keyOf(o)]})); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, o, err)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	if made < 50 || merged < 20 {
		t.Errorf("%d snapshots were made, %d of them with objects put meanwhile", made, merged)
	}
}

// An idle hour costs no request, whatever is due.
func TestInvariant18_AnIdleHourCostsNoRequest(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open(kept)
		defer s.Close(time.Now())
		for range 100 {
			g.write(1, 2)
			pass(time.Second)
			g.write(2, 2)
			pass(time.Second)
		}
		pass(time.Minute)
		calls, pins := g.store.allCalls(), g.db.pins
		pass(time.Hour)
		if n := g.store.allCalls() - calls; n != 0 {
			t.Errorf("%d requests", n)
		}
		if n := g.db.pins - pins; n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

// At five transactions a second an hour of replication costs what the README says.
func TestRequestsOfAnHour(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open(kept)
		defer s.Close(time.Now())
		g.write(1, 2)
		pass(10 * time.Second)
		before := map[string]int{}
		for _, op := range []string{"create", "list", "marks"} {
			before[op] = g.store.count(op)
		}
		const part = 3 // of an hour
		for n := range 5 * 3600 / part {
			g.write(byte(n), 2)
			pass(200 * time.Millisecond)
		}
		puts := g.store.count("create") - before["create"]
		lists := g.store.count("list") + g.store.count("marks") - before["list"] - before["marks"]
		puts, lists = puts*part, lists*part
		t.Logf("%d PUT, %d LIST", puts, lists)
		if puts > 3800 || lists > 100 {
			t.Errorf("%d PUT and %d LIST, where 3800 and 100 are the bounds", puts, lists)
		}
	})
}

// Processes that live for a second each get on with it too.
func TestShortLivedProcessesKeepTheHistory(t *testing.T) {
	inBubble(t, func(g *rig) {
		states := g.record()
		for n := range 100 {
			s := g.open(kept)
			g.write(byte(n), 1+uint32(n%4))
			d := s.Drain(time.Now().Add(10 * time.Second))
			<-d.Done()
			s.Close(time.Now())
			pass(time.Minute)
		}
		levels := g.store.levels()
		if len(levels[1]) < 40 || len(levels[2]) < 8 || len(levels[3]) < 1 || len(levels[9]) < 2 {
			t.Errorf("levels 1, 2, 3, 9 have %d, %d, %d, %d objects", len(levels[1]), len(levels[2]), len(levels[3]), len(levels[9]))
		}
		if n := len(levels[0]); n > 30 {
			t.Errorf("level 0 has %d objects", n)
		}
		states.check(t, g.store)
		synctest.Wait()
	})
}
