package shipper

import (
	"path/filepath"
	"testing"
	"time"
)

// A batch that is read in slices, with commits of all kinds between them, is one
// committed state: that of its last slice. So are the first snapshot and a look at
// every page, whose slices are longer.
func TestSlicesAreOneState(t *testing.T) {
	slices, rounds := 0, uint64(60)
	if underRace {
		rounds = 8
	}
	for seed := uint64(1); seed <= rounds; seed++ {
		inBubble(t, func(g *rig) {
			r := newRand(seed)
			db, err := newSimDB(filepath.Join(filepath.Dir(g.db.path), "big.db"), 300)
			if err != nil {
				t.Fatal(err)
			}
			g.db = db
			defer db.close()
			s := g.stepper()
			defer s.end()
			db.write(set(1, 1))
			some := func(n int) func(state) (state, []uint32) {
				return func(s state) (state, []uint32) {
					var pages []uint32
					for range n {
						p := 1 + r.IntN(len(s))
						s[p-1] = byte(r.IntN(3))
						pages = append(pages, uint32(p))
					}
					return s, pages
				}
			}
			budget := 0
			db.step = func(where string) {
				if budget == 0 {
					return
				}
				switch x := r.IntN(10); {
				case x < 3:
					budget--
					db.write(some(1 + r.IntN(20)))
				case x < 5:
					budget--
					db.commit(some(1+r.IntN(20)), true, false)
				case x < 6:
					budget--
					n := 150 + r.IntN(170)
					db.write(resize(n, byte(r.IntN(3))))
				case where == "read":
					<-time.After(pinMost)
				}
			}
			for n := range 7 {
				// The first batch is the first snapshot; the last one looks at all pages.
				if n == 6 {
					db.commit(some(5), true, true)
				}
				db.write(some(250))
				pins := db.pins
				budget = 20
				g.batch(s)
				budget = 0
				if n > 0 {
					slices = max(slices, db.pins-pins)
				}
				if err := db.commits[db.pinned].after.equals(replay(t, g.store.history())); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			db.write(set(7, 3))
			g.batch(s)
			g.replicated()
		})
		if t.Failed() {
			return
		}
	}
	if slices < 4 {
		t.Errorf("at most %d slices", slices)
	}
}

// A program without walferry that restarts the WAL costs one look at all pages, and
// what it commits after that none, as long as nobody with walferry writes either.
func TestInvariant14_AForeignRestartCostsOneScan(t *testing.T) {
	inBubble(t, func(g *rig) {
		db, err := newSimDB(filepath.Join(filepath.Dir(g.db.path), "big.db"), 300)
		if err != nil {
			t.Fatal(err)
		}
		defer db.close()
		g.db = db
		s := g.stepper()
		defer s.end()
		g.batch(s)
		db.commit(set(1, 7), true, true)
		for n := range 6 {
			reads := db.reads
			g.batch(s)
			g.replicated()
			if scanned := db.reads-reads >= 300; scanned != (n == 0) {
				t.Errorf("batch %d after the restart read %d pages", n, db.reads-reads)
			}
			db.commit(set(byte(2+n), uint32(10+n)), true, false)
		}
	})
}
