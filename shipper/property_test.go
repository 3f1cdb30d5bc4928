package shipper

import (
	"flag"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
)

var (
	runs  = flag.Int("runs", 300, "random runs of each property test, a tenth of it under the race detector")
	steps = flag.Int("steps", 120, "steps of each run")
	seed  = flag.Uint64("seed", 0, "run this seed only, and print what happened")
)

// TestInvariantsHoldWhateverHappens runs random worlds: writers with and without
// walferry, restarts of the WAL, sizes that change, a store that fails, loses
// replies and gets PUTs late, and a shipper that is killed at calls of the store
// and of the source and at writes to each page of the ledger.
func TestInvariantsHoldWhateverHappens(t *testing.T) { randomWorlds(t, false) }

// TestInvariantsHoldThroughPowerLoss adds power losses: each page of the ledger
// as it was at the last sync or later, commits that are gone.
func TestInvariantsHoldThroughPowerLoss(t *testing.T) { randomWorlds(t, true) }

func randomWorlds(t *testing.T, power bool) {
	first, last := uint64(1), uint64(*runs)
	if underRace {
		last = max(1, last/10)
	}
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		dir := ramDir(t)
		var w *world
		synctest.Test(t, func(t *testing.T) {
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			w = newWorld(t, n, dir)
			defer w.db.close()
			w.run(power)
		})
		if w.err != nil {
			t.Errorf("seed %d: %v", n, w.err)
		}
		if *seed != 0 {
			t.Log(strings.Join(w.log, "\n"))
		}
		if t.Failed() {
			return
		}
	}
}

func (w *world) run(power bool) {
	w.shipperStep()
	for n := 0; n < *steps && w.err == nil; n++ {
		switch x := w.r.IntN(100); {
		case x < 45:
			w.writerStep()
		case x < 80:
			w.shipperStep()
		case x < 85:
			w.arrive()
		case x < 87 && w.s != nil:
			w.logf("kill at rest")
			w.endShipper()
		case x < 90 && w.w == nil && !w.booted: // opening elects before it closes
			w.logf("last close")
			w.db.lastClose()
			w.synced()
		case x < 92 && power:
			w.powerLoss()
		}
	}
	if w.err == nil {
		w.atRest()
	}
	w.endShipper()
}
