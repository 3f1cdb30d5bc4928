package replica

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

func TestAColdOpenAsksForEachFileOnce(t *testing.T) {
	for _, levels := range []bool{false, true} {
		w := newWorld(t, 1, 512)
		w.bucket.levels = levels
		w.history(20, 50)
		w.put(1, 2, 11)
		lists := map[string]int{"list": 1}
		if levels {
			lists = map[string]int{"list": objstore.SnapshotLevel + 1, "marks": 1}
		}
		c := w.open()
		n, calls := w.bucket.counted()
		want := maps.Clone(lists)
		want["open"] = 1 + 1 + 10 // the snapshot, the merged one, and what comes after it
		if !maps.Equal(calls, want) {
			t.Errorf("%d requests: %v, want %v", n, calls, want)
		}
		if got := c.Status().Requests; got != int64(n) {
			t.Errorf("the status counts %d of %d requests", got, n)
		}
		w.reads(c, w.head)
		if n, calls := w.bucket.counted(); n != 1 || calls["list"] != 1 {
			t.Errorf("what has come with the indexes is asked for again: %v", calls)
		}
		c.Close()
		w.open(atTXID(5))
		want["open"] = 1 + 4
		if n, calls := w.bucket.counted(); !maps.Equal(calls, want) {
			t.Errorf("of the past: %d requests: %v, want %v", n, calls, want)
		}
	}
}

// Of a state that somebody reads already only the listing is asked for, by which it is known to be
// the replica's still.
func TestAStateThatIsReadAlreadyIsShared(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(20, 50)
	first := w.open(atTXID(5))
	w.reads(first, 5)
	w.bucket.counted()
	for range 3 {
		c := w.open(atTXID(5))
		if n, calls := w.bucket.counted(); n != 1 || calls["list"] != 1 {
			t.Errorf("%d requests: %v", n, calls)
		}
		w.reads(c, 5)
		if c.current() != first.current() {
			t.Error("it is another view")
		}
		c.Close()
	}
	w.bucket.clear()
	other := w.fresh(w.begin.Add(time.Hour))
	other.history(20, 50)
	other.reads(w.open(atTXID(5)), 5)
}

// Of a large file the end is read, and the header of the last; of a large index all of it.
func TestALargeFileCostsItsIndex(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.raw = true
	w.commit(3000)
	w.ship()
	w.open()
	if n, calls := w.bucket.counted(); n != 3 || calls["open"] != 2 {
		t.Errorf("%d requests: %v", n, calls)
	}
	w = newWorld(t, 1, 512)
	w.commit(1)
	h, page := w.header(1, 1), w.page()
	h.Commit = 12000
	f := newCraft(t, h)
	for p := range uint32(12000) {
		f.page(p+1, page)
	}
	b := f.end()
	w.bucket.put(objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: 1}, b, objstore.Meta{})
	c := w.open()
	n, calls := w.bucket.counted()
	if n != 4 || calls["open"] != 3 {
		t.Errorf("of a large index: %d requests: %v", n, calls)
	}
	if st := c.Status(); st.Bytes > int64(len(f.index))+tailBytes+1000 {
		t.Errorf("%d bytes for an index of %d", st.Bytes, len(f.index))
	}
}

func TestARefreshAsksForWhatIsNew(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(3, 20)
	c := w.open()
	w.bucket.counted()
	check := func(lists, opens int) {
		t.Helper()
		w.reads(c, w.head)
		if n, calls := w.bucket.counted(); calls["list"] != lists || calls["open"] != opens || n != lists+opens {
			t.Errorf("%d requests: %v, want %d lists and %d opens", n, calls, lists, opens)
		}
	}
	check(1, 0)
	for range 3 {
		w.commit(20, 7)
		w.ship()
	}
	check(1, 3)
	w.put(1, 2, 6)
	for _, o := range w.bucket.all() {
		if o.Level == 0 && o.Max < 7 {
			w.bucket.remove(o)
		}
	}
	check(1, 0)
	for range 2 * maxMore { // a shorter way is worth another list
		w.commit(20, 7)
		w.ship()
	}
	w.put(2, 2, w.head)
	check(2, 1)
}

func TestOnePageIsNotFetchedTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4096)
		w.raw = true
		w.commit(200)
		w.ship()
		conns := make([]*Conn, 20)
		for i := range conns {
			conns[i] = w.open()
			begin(t, conns[i])
		}
		w.bucket.counted()
		held := newGate()
		w.bucket.set(func() {
			w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return held.wait(ctx) }
		})
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				if got, err := readPage(c, 77); err != nil || !w.states[1].same(77, got) {
					t.Errorf("page 77: %v", err)
				}
			})
		}
		synctest.Wait()
		close(held.open)
		wg.Wait()
		if n, calls := w.bucket.counted(); n != 1 {
			t.Errorf("%d requests: %v", n, calls)
		}
	})
}

// Of a long plan only some files are in memory at a time, however long it is.
func TestALongPlanTakesLittleMemory(t *testing.T) {
	if underRace {
		t.Skip("no goroutine does more here than elsewhere")
	}
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.commit(28)
	w.ship()
	var pages []uint32
	for p := range uint32(28) {
		pages = append(pages, p+1)
	}
	for range 300 { // 35 MB
		w.commit(28, pages...)
		w.ship()
		delete(w.states, w.head-1)
		clear(w.blocks)
	}
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := used(), uint64(0)
	w.bucket.set(func() {
		w.bucket.before = func(_ context.Context, _ string, o objstore.Object, _, _ int64) error {
			if o.Max == w.head || o.Max%100 == 0 {
				n := used()
				w.bucket.set(func() { most = max(most, n) })
			}
			return nil
		}
	})
	c := w.open(caching(1 << 20))
	if grew := int64(most) - int64(before); grew > 24<<20 {
		t.Errorf("%d MB for a plan of 301 files", grew>>20)
	}
	w.reads(c, w.head)
}

// What nobody waits for any more ends, and begins nothing.
func TestAnInterruptedConnectionComesToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4096)
		w.raw = true
		w.history(2, 200)
		c := w.open(caching(40 << 10))
		var stop atomic.Bool
		c.Interrupted = stop.Load
		held := newGate()
		hold := func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return held.wait(ctx) }
		for what, f := range map[string]func() error{
			"a page": func() error { _, err := readPage(c, 50); return err },
			"begin":  func() error { c.End(); _, err := c.Begin(); return err },
			"a pin":  func() error { c.End(); return c.PinTXID(2) },
			"a wait": func() error { c.End(); _, err := c.WaitFor(0xabc, 99, time.Hour); return err },
		} {
			begin(t, c)
			w.bucket.set(func() { w.bucket.before = hold })
			at := time.Now()
			go func() {
				time.Sleep(time.Second)
				stop.Store(true)
			}()
			if err := f(); !errors.Is(err, ErrInterrupted) {
				t.Errorf("%s: %v", what, err)
			}
			if d := time.Since(at); d > time.Second+2*interruptEvery {
				t.Errorf("%s: interrupted after %v", what, d)
			}
			if st := c.Status(); st.State != "reading" || st.Cause != "" {
				t.Errorf("%s: the status says %s: %s", what, st.State, st.Cause)
			}
			time.Sleep(time.Hour)
			w.bucket.set(func() { w.bucket.before = nil })
			stop.Store(false)
			w.bucket.counted()
			time.Sleep(24 * time.Hour)
			if n, calls := w.bucket.counted(); n != 0 {
				t.Errorf("%s: %d requests in a day: %v", what, n, calls)
			}
			c.End()
			w.reads(c, 3)
		}
	})
}

func TestACloseEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4096)
		w.raw = true
		w.commit(1000)
		w.ship()
		c, err := Open(w.options(), nil)
		if err != nil {
			t.Fatal(err)
		}
		begin(t, c)
		next := uint32(1)
		read := func() {
			if _, err := readPage(c, next); err != nil {
				t.Fatal(err)
			}
			next++
			synctest.Wait()
		}
		read()
		read()
		held := newGate()
		w.bucket.set(func() {
			w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return held.wait(ctx) }
		})
		for len(held.reached) == 0 { // until others are fetched ahead
			read()
		}
		var stop atomic.Bool
		c.Interrupted = stop.Load
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := readPage(c, 900); !errors.Is(err, ErrInterrupted) {
				t.Error(err)
			}
		})
		synctest.Wait()
		stop.Store(true)
		wg.Wait()
		at := time.Now()
		c.Close()
		if d := time.Since(at); d > 0 {
			t.Errorf("it waits %v", d)
		}
		sources.mu.Lock()
		defer sources.mu.Unlock()
		for k := range sources.all {
			if k.url == w.bucket.url {
				t.Error("the source is there still")
			}
		}
	})
}

// A replica that is followed for long meets objects without end.
func TestNamesOfObjectsAreForgotten(t *testing.T) {
	if underRace {
		t.Skip("no goroutine does more here than elsewhere")
	}
	w := newWorld(t, 1, 512)
	w.history(1, 10)
	long := w.open()
	begin(t, long)
	c := w.open()
	for range minForget + 500 {
		w.commit(10, w.rnd.Uint32N(10)+1)
		o := w.ship()
		if w.head%50 == 0 {
			begin(t, c)
			c.End()
		}
		if o.Max > 100 {
			w.bucket.remove(objstore.Object{Level: 0, Min: o.Max - 70, Max: o.Max - 70})
			delete(w.states, o.Max-70)
		}
	}
	s := c.s
	s.flying.Lock()
	n := len(s.objects)
	if len(s.ids) != n {
		t.Errorf("%d names of %d objects", len(s.ids), n)
	}
	s.flying.Unlock()
	if n > minForget/2 {
		t.Errorf("%d objects are remembered", n)
	}
	w.reads(c, w.head)
	w.holds(long, 2)
	s.mu.Lock()
	views := slices.Clone(s.views)
	s.mu.Unlock()
	if len(views) > 200 {
		t.Errorf("%d views are remembered", len(views))
	}
}
