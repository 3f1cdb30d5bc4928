package replica

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A look that somebody else began before a commit was shipped does not tell of it, nor does its late
// answer take anybody back.
func TestATransactionSeesWhatWasShippedBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 512)
		w.history(1, 10)
		early, c, later := w.open(), w.open(), w.open(polled(time.Hour))
		held := newGate()
		n := 0
		w.bucket.set(func() {
			w.bucket.late = func(ctx context.Context) {
				if n++; n == 1 {
					_ = held.wait(ctx)
				}
			}
		})
		var wg sync.WaitGroup
		wg.Go(func() { begin(t, early) })
		synctest.Wait()
		w.commit(10, 5)
		w.ship()
		wg.Go(func() { begin(t, c) })
		synctest.Wait()
		close(held.open)
		wg.Wait()
		w.holds(c, 3)
		w.reads(later, 3)
		if got := early.TXID(); got != 2 && got != 3 {
			t.Errorf("TXID %s", got)
		}
		w.holds(early, early.TXID())
	})
}

func TestPollIsHowOldAStateMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 512)
		w.history(1, 10)
		c := w.open(polled(10 * time.Second))
		for range 50 {
			w.reads(c, 2)
		}
		if n, calls := w.bucket.counted(); calls["list"] != 1 {
			t.Fatalf("%d requests: %v", n, calls)
		}
		w.commit(10, 5)
		w.ship()
		time.Sleep(9 * time.Second)
		w.reads(c, 2)
		time.Sleep(time.Second)
		w.reads(c, 3)
		if n, calls := w.bucket.counted(); n != 2 || calls["list"] != 1 || calls["open"] != 1 {
			t.Fatalf("%d requests: %v", n, calls)
		}
		time.Sleep(24 * time.Hour)
		if n, _ := w.bucket.counted(); n != 0 {
			t.Fatalf("%d requests of an idle connection", n)
		}
		begin(t, c)
		time.Sleep(24 * time.Hour)
		w.holds(c, 3)
		if n, calls := w.bucket.counted(); n != 1 || calls["list"] != 1 {
			t.Fatalf("%d requests: %v", n, calls)
		}
		c.End()
	})
}

func TestLagIsTheTimeSinceTheStoreHadNothingNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 512)
		w.history(1, 10)
		c := w.open(polled(10 * time.Second))
		time.Sleep(4 * time.Second)
		w.reads(c, 2)
		if got := c.Lag(); got != "4000" {
			t.Errorf("lag %s", got)
		}
		time.Sleep(7 * time.Second)
		w.reads(c, 2)
		if got := c.Lag(); got != "0" {
			t.Errorf("lag %s", got)
		}
		if err := c.PinTXID(1); err != nil || c.Lag() != "" || c.At() == latest {
			t.Errorf("pinned: %v, lag %q, at %s", err, c.Lag(), c.At())
		}
		if err := c.PinAt(latest); err != nil || c.At() != latest {
			t.Errorf("at %s, %v", c.At(), err)
		}
		w.reads(c, 2)
		if got := c.Lag(); got != "0" {
			t.Errorf("lag %s", got)
		}
	})
}

func TestAStateIsNotChosenWhileOneIsRead(t *testing.T) {
	w := newWorld(t, 1, 512)
	w.history(2, 10)
	c := w.open()
	begin(t, c)
	for _, err := range []error{c.PinTXID(1), c.PinAt("1 minute ago"), c.PinAt(latest), c.PinMark("m")} {
		if !errors.Is(err, ErrTransaction) {
			t.Errorf("%v", err)
		}
	}
	w.holds(c, 3)
	c.End()
	if err := c.PinTXID(99); err == nil {
		t.Error("TXID 99 is there")
	}
	w.reads(c, 3)
	if err := c.PinTXID(2); err != nil {
		t.Fatal(err)
	}
	w.reads(c, 2)
}
