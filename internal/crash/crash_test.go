// Package crash kills processes that use walferry, thousands of them, each at a step
// that a seed chooses, and cuts the power of the machine that they run on. It
// has tests only; `make crash` runs as many rounds of them as are asked for.
package crash

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// roundsOfLife is how many rounds one database goes through at the most.
const roundsOfLife = 25

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// counters are what was tried.
type counters struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counters) add(what string, n int) {
	c.mu.Lock()
	c.n[what] += n
	c.mu.Unlock()
}

func (c *counters) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c.n)) {
		fmt.Fprintf(&b, "\n  %8d  %s", c.n[what], what)
	}
	return b.String()
}

// TestInvariant7_KilledAtAnyStepItGoesOnWhereItWas kills with SIGKILL.
func TestInvariant7_KilledAtAnyStepItGoesOnWhereItWas(t *testing.T) { campaign(t, false) }

// TestInvariant7_APowerCutAtAnyStepLosesNothingThatWasPromised loses what was not
// synced, some of it or all.
func TestInvariant7_APowerCutAtAnyStepLosesNothingThatWasPromised(t *testing.T) { campaign(t, true) }

// campaign lives one life after the other until enough rounds are over, or the time. A life's
// seed is the campaign's and the number of the life, so one that fails is repeated
// by its seed alone.
func campaign(t *testing.T, power bool) {
	rounds := int64(setting(t, "WALFERRY_TEST_ROUNDS", 250))
	seed := setting(t, "WALFERRY_TEST_SEED", rand.Uint64N(1<<40))
	tried := &counters{n: map[string]int{}}
	began := time.Now()
	var left, lives atomic.Int64
	left.Store(rounds)
	if minutes := setting(t, "WALFERRY_TEST_MINUTES", 0); minutes > 0 {
		defer time.AfterFunc(time.Duration(minutes)*time.Minute, func() { left.Store(0) }).Stop()
	}
	var workers sync.WaitGroup
	for range setting(t, "WALFERRY_TEST_WORKERS", 6) { // that wait for most of the time
		workers.Go(func() {
			for left.Load() > 0 && !t.Failed() {
				oneLife(t, seed+uint64(lives.Add(1)-1), power, &left, tried)
			}
		})
	}
	workers.Wait()
	t.Logf("seed %d, %d databases, %v%v", seed, lives.Load(), time.Since(began).Round(time.Millisecond), tried)
}

func oneLife(t *testing.T, seed uint64, power bool, left *atomic.Int64, tried *counters) {
	dir, err := os.MkdirTemp("/dev/shm", "walferry-crash-") // where syncs cost nothing
	if err != nil {
		if dir, err = os.MkdirTemp("", "walferry-crash-"); err != nil {
			t.Error(err)
			return
		}
	}
	l, err := newLife(seed, dir, power, tried.add)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.oracle.c.close()
	round := 0
	for err == nil && round < roundsOfLife {
		togo := left.Add(-1)
		if togo < 0 {
			break
		}
		if togo%1000 == 0 && togo > 0 {
			t.Logf("%d rounds to go", togo)
		}
		round++
		tried.add("rounds", 1)
		err = l.round()
	}
	if errors.Is(err, errBroken) {
		tried.add("databases that a cut has broken, with synchronous=OFF", 1)
		err = nil
	}
	if err == nil {
		os.RemoveAll(dir)
		return
	}
	kept := evidence(t, dir)
	test := t.Name()
	t.Errorf("seed %d, round %d: %v\n  %s\nkept in %s; repeat with\n  make crash SEED=%d ROUNDS=%d CRASH=%s",
		seed, round, err, strings.Join(l.story, "\n  "), kept, seed, round, test)
}

// evidence moves what a failure has left to where it is not in the machine's
// memory.
func evidence(t *testing.T, dir string) string {
	to := os.Getenv("WALFERRY_TEST_EVIDENCE")
	if to == "" {
		to = os.TempDir()
	}
	to = filepath.Join(to, filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Logf("keep %s: %v", dir, err)
		return dir
	}
	os.RemoveAll(dir)
	return to
}
