package replica

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

func TestPagesInARowAreFetchedTogether(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.commit(2000) // 8 MB
	w.ship()
	c := w.open()
	w.bucket.counted()
	w.reads(c, 1)
	n, calls := w.bucket.counted()
	if most := 2000 * 4200 / spanBytes * 2; calls["open"] > most {
		t.Errorf("%d requests for 8 MB in a row: %v", n, calls)
	}
	if got := c.Status().CacheMisses + c.Status().CacheHits; got != 2000 {
		t.Errorf("%d pages were read", got)
	}
}

func TestPagesAnywhereAreFetchedAlone(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.commit(2000)
	w.ship()
	c := w.open()
	begin(t, c)
	w.bucket.counted()
	was := c.Status().Bytes
	for p := uint32(1); p < 2000; p += 97 {
		if _, err := readPage(c, p); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := w.bucket.counted(); n != 21 {
		t.Errorf("%d requests for 21 pages", n)
	}
	if got := c.Status().Bytes - was; got > 21*4200 {
		t.Errorf("%d bytes for 21 pages", got)
	}
}

func TestWhatIsReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4096)
		w.raw = true
		w.commit(3000)
		w.ship()
		c := w.open(caching(2 << 20))
		begin(t, c)
		flying, most, bytes := 0, 0, int64(0)
		var largest int64
		w.bucket.set(func() {
			w.bucket.before = func(_ context.Context, _ string, _ objstore.Object, _, n int64) error {
				w.bucket.set(func() {
					flying++
					most, largest, bytes = max(most, flying), max(largest, n), bytes+n
				})
				time.Sleep(20 * time.Millisecond)
				w.bucket.set(func() { flying-- })
				return nil
			}
		})
		for p := uint32(1); p <= 1000; p++ {
			if _, err := readPage(c, p); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if most > aheadFlights+1 || largest > spanBytes {
			t.Errorf("%d requests at a time, of up to %d bytes", most, largest)
		}
		if bytes > 1000*4200+2<<20 {
			t.Errorf("%d bytes for 4 MB", bytes)
		}
		c.End()
	})
}

// Where more is to be read ahead than goes at a time, the rest comes after it and is not forgotten, and
// what is wanted meanwhile does not wait for its turn.
func TestWhatIsReadAheadTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4096)
		w.raw = true
		w.commit(2000)
		w.ship()
		conns := []*Conn{w.open(), w.open()}
		for _, c := range conns {
			begin(t, c)
		}
		c := conns[0]
		held := newGate()
		w.bucket.set(func() {
			w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return held.wait(ctx) }
		})
		var list []uint32
		for p := uint32(1); p < 2000; p += 20 { // too far apart to come together
			list = append(list, p)
		}
		c.s.ahead(c.current(), list)
		synctest.Wait()
		if n := len(held.reached); n != aheadFlights {
			t.Errorf("%d requests at a time", n)
		}
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				if _, err := readPage(c, list[len(list)-1]); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			if n := len(held.reached); n != aheadFlights+1 {
				t.Errorf("%d requests, one of which somebody waits for", n)
			}
		}
		close(held.open)
		wg.Wait()
		synctest.Wait()
		w.bucket.counted()
		for _, p := range list {
			if got, err := readPage(c, p); err != nil || !w.states[1].same(p, got) {
				t.Errorf("page %d: %v", p, err)
			}
		}
		if n, calls := w.bucket.counted(); n != 0 {
			t.Errorf("%d requests for pages that were read ahead: %v", n, calls)
		}
		for _, c := range conns {
			c.End()
		}
	})
}
