package replica

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

// The windows of these histories are the TXIDs, of epoch 0xabc.
func TestAWaitIsForWhatATokenCovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 512)
		w.history(2, 20)
		c := w.open(polled(time.Hour))
		wait := func(epoch, number uint64, timeout time.Duration, want bool, is error, takes time.Duration) {
			t.Helper()
			at := time.Now()
			got, err := c.WaitFor(epoch, number, timeout)
			if got != want || !errors.Is(err, is) {
				t.Errorf("window %x-%d: %v, %v", epoch, number, got, err)
			}
			if d := time.Since(at); d != takes {
				t.Errorf("window %x-%d: it takes %v", epoch, number, d)
			}
		}
		wait(0xabc, 3, time.Second, true, nil, 0)
		wait(0xabc, 1, 0, true, nil, 0)
		wait(0xabc, 4, 0, false, nil, 0)
		wait(0xabc, 4, time.Second, false, nil, time.Second)
		wait(0xdef, 1, time.Second, false, ErrUnknown, time.Second)
		go func() {
			time.Sleep(1500 * time.Millisecond)
			w.commit(20, 5)
			w.ship()
		}()
		wait(0xabc, 4, time.Minute, true, nil, 1600*time.Millisecond)
		w.reads(c, 4) // though a poll is an hour

		begin(t, c)
		wait(0xabc, 4, time.Minute, true, nil, 0)
		wait(0xabc, 5, time.Minute, false, ErrTransaction, 0)
		w.commit(20, 5)
		w.ship()
		wait(0xabc, 5, time.Minute, false, ErrTransaction, 0)
		w.holds(c, 4)
		c.End()
		wait(0xabc, 5, time.Minute, true, nil, 0)
		w.reads(c, 5)

		if err := c.PinTXID(3); err != nil {
			t.Fatal(err)
		}
		wait(0xabc, 5, time.Minute, false, ErrPinned, 0)
		w.reads(c, 3)
	})
}

func TestAWaitForWhatNothingTellsOfIsUnknown(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(2, 20)
	w.bucket.set(func() {
		for n, s := range w.bucket.objects {
			s.meta.Window = objstore.Window{}
			w.bucket.objects[n] = s
		}
	})
	c := w.open()
	if ok, err := c.WaitFor(0xabc, 1, time.Hour); ok || !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestAMarkAndATimeNameAState(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(5, 20)
	w.bucket.set(func() {
		w.bucket.marks = []objstore.Mark{{Name: "before", TXID: 3, Time: w.timeOf(3)}, {Name: "before", TXID: 4, Time: w.timeOf(4)}}
	})
	c := w.open(func(o *Options) { o.Mark = "before" })
	w.reads(c, 4)
	w.commit(20, 3)
	w.ship()
	w.reads(c, 4)
	if err := c.PinMark("after"); err == nil {
		t.Error("there is no such mark")
	}
	w.reads(c, 4)
	for txid := range w.head {
		txid++
		if err := c.PinAt(w.timeOf(txid).Add(500 * time.Millisecond).Format(time.RFC3339Nano)); err != nil {
			t.Fatal(err)
		}
		if got := c.At(); got != w.timeOf(txid).Format(time.RFC3339Nano) {
			t.Errorf("at %s", got)
		}
		w.reads(c, txid)
	}
	if err := c.PinAt(w.timeOf(0).Format(time.RFC3339Nano)); err == nil {
		t.Error("a time before all")
	}
	if err := c.PinAt("soon"); err == nil {
		t.Error("no time")
	}
	w.reads(c, w.head)
	if err := c.PinAt(latest); err != nil {
		t.Fatal(err)
	}
	w.commit(20, 3)
	w.ship()
	w.reads(c, w.head)
	for _, wrong := range []func(*Options){
		func(o *Options) { o.Mark, o.TXID = "before", "2" }, func(o *Options) { o.TXID = "0" }, func(o *Options) { o.TXID = "x" },
		func(o *Options) { o.TXID = "99" }, func(o *Options) { o.At = "soon" }, func(o *Options) { o.At, o.TXID = "now", "1" },
		func(o *Options) { o.URL = "gopher://x" }, func(o *Options) { o.Mark = "after" },
	} {
		o := w.options()
		wrong(&o)
		if c, err := Open(o, nil); err == nil {
			c.Close()
			t.Errorf("%+v is opened", o)
		}
	}
}

// Two replicas whose objects have the same names and sizes, and many moments of each.
func TestDatabasesOfOneProcessShareNothing(t *testing.T) {
	worlds := make([]*world, 3)
	for i := range worlds {
		worlds[i] = newWorld(t, uint64(i), 1024)
		worlds[i].raw = true
		worlds[i].history(9, 40)
	}
	var wg sync.WaitGroup
	for n := range 9 {
		w := worlds[n%3]
		fixed, moving := w.open(caching(100<<10)), w.open(caching(100<<10))
		for _, c := range []*Conn{fixed, moving} {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(n), 1))
				for range 40 {
					if c == moving {
						if err := c.PinTXID(w.head / 2); err != nil {
							t.Error(err)
							return
						}
						if err := c.PinAt(latest); err != nil {
							t.Error(err)
							return
						}
					}
					if _, err := c.Begin(); err != nil {
						t.Error(err)
						return
					}
					p := rnd.Uint32N(40) + 1
					if got, err := readPage(c, p); err != nil || !w.states[c.TXID()].same(p, got) {
						t.Errorf("page %d: %v", p, err)
					}
					c.End()
				}
			})
		}
	}
	wg.Wait()
}
