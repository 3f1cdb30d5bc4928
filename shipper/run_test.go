package shipper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"golang.org/x/sys/unix"
)

func TestACommitIsShippedWithinAnInterval(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Millisecond)
		g.replicated()
		for n := range byte(5) {
			g.write(n+1, 1, 2)
			pass(1100 * time.Millisecond)
			g.replicated()
			if g.objects() != int(n)+3 {
				t.Fatalf("%d objects after %d commits", g.objects(), n+1)
			}
		}
	})
}

func TestManyCommitsOfAnIntervalAreOneObject(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Millisecond)
		for n := range byte(100) {
			g.write(n, 1)
			pass(5 * time.Millisecond)
		}
		pass(time.Second)
		g.replicated()
		if g.objects() != 3 {
			t.Fatalf("%d objects", g.objects())
		}
	})
}

func TestInvariant18_WithoutCommitsThereIsNoRequestAndNoPin(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		g.write(1, 1)
		pass(time.Minute)
		calls, pins := g.store.allCalls(), g.pins()
		pass(24 * time.Hour)
		if g.store.allCalls() != calls || g.pins() != pins {
			t.Fatalf("%d requests and %d pins in a day without commits", g.store.allCalls()-calls, g.pins()-pins)
		}
		// Nor does a commit that leaves pages as the store has them ask for one.
		g.write(1, 1)
		pass(time.Minute)
		if g.store.allCalls() != calls {
			t.Fatalf("%d requests for a commit that changed nothing", g.store.allCalls()-calls)
		}
		if h := g.header(s); load(&h.Durable)+1 != load(&h.Window) {
			t.Fatalf("durable %d, window %d", h.Durable, h.Window)
		}
	})
}

func TestACommitIsShippedWithoutAWatch(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open(func(c *Config) {
			c.watch = func(string, func(), func(*group.Panic)) (func(), error) { return nil, unix.EMFILE }
		})
		defer s.Close(time.Now())
		pass(time.Millisecond)
		g.write(7, 3)
		pass(5 * time.Second)
		g.replicated()
	})
}

// A try to lock opens and closes the file for writing, which is an event for all
// who watch it, and so for the one who tries.
func TestWhoWaitsForTheRoleSleeps(t *testing.T) {
	inBubble(t, func(g *rig) {
		first := g.open()
		second, third := g.open(), g.open()
		pass(time.Minute)
		tries := g.tries
		for n := range byte(10) {
			g.write(n, 1)
			pass(time.Minute)
		}
		if g.tries > tries+2 {
			t.Errorf("%d tries for the role while it was taken", g.tries-tries)
		}
		if !closed(second.Ready()) {
			t.Error("not ready, though another one ships")
		}
		first.Close(time.Now())
		pass(time.Millisecond)
		g.write(99, 2)
		pass(2 * time.Second)
		g.replicated()
		second.Close(time.Now())
		third.Close(time.Now())
	})
}

func TestTheRoleIsTriedAgainAfterAnError(t *testing.T) {
	inBubble(t, func(g *rig) {
		first := g.open()
		var broken atomic.Int32
		second := g.open(func(c *Config) {
			open := c.Descriptors.Open
			c.Descriptors.Open = func(path string) (int, error) {
				if broken.Load() != 0 {
					return -1, unix.EMFILE
				}
				return open(path)
			}
		})
		defer second.Close(time.Now())
		pass(time.Second)
		broken.Store(1)
		first.Close(time.Now())
		g.write(4, 4)
		pass(time.Minute)
		if n := g.logged("too many open files"); n == 0 || n > 3 {
			t.Errorf("the error was logged %d times in a minute", n)
		}
		broken.Store(0)
		pass(time.Minute)
		g.replicated()
	})
}

func TestAFencedShipperPutsNothing(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Second)
		taken := g.plant(0, g.next(), 4242, make(state, 5))
		g.write(3, 3)
		pass(2 * time.Second)
		if st := s.Status(); st.State != "fenced" || !strings.Contains(st.Cause, "takeover=1") {
			t.Fatalf("state %s: %s", st.State, st.Cause)
		}
		durable := load(&g.header(s).Durable)
		puts := g.store.count("create")
		// As compaction does: the name that fenced it is free again.
		if err := g.store.Remove(context.Background(), taken); err != nil {
			t.Fatal(err)
		}
		g.write(4, 4)
		pass(time.Minute)
		d := s.Drain(time.Now().Add(time.Second))
		pass(time.Minute)
		g.write(5, 4)
		if _, err := s.Sync(context.Background()); err == nil || !strings.Contains(err.Error(), "another writer") {
			t.Errorf("Sync: %v", err)
		}
		pass(time.Hour)
		if !closed(d.Done()) || g.store.count("create") != puts {
			t.Errorf("%d PUTs after it was fenced", g.store.count("create")-puts)
		}
		if load(&g.header(s).Durable) != durable {
			t.Error("durable moved")
		}
	})
}

func TestAnUnclaimedDatabaseAsksOnce(t *testing.T) {
	inBubble(t, func(g *rig) {
		g.plant(9, 1, 4242, make(state, 5))
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Second)
		if st := s.Status(); st.State != "unclaimed" {
			t.Fatalf("state %s: %s", st.State, st.Cause)
		}
		if n := g.store.count("list"); n > 10 {
			t.Errorf("%d lists to find out", n)
		}
		calls := g.store.allCalls()
		g.write(1, 1)
		d := s.Drain(time.Now().Add(time.Second))
		pass(time.Hour)
		if !closed(d.Done()) || g.store.allCalls() != calls {
			t.Errorf("%d more requests while unclaimed", g.store.allCalls()-calls)
		}
	})
}

func TestInvariant16_AStoreThatIsDownForAWeek(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		g.write(1, 2)
		pass(2 * time.Second)
		g.store.down()
		g.write(2, 2)
		pass(2 * time.Second) // a batch that cannot be sent
		size := func() (n int64) {
			filepath.Walk(filepath.Dir(g.db.path), func(_ string, fi os.FileInfo, _ error) error {
				n += fi.Size()
				return nil
			})
			return n
		}
		files := func() int { names, _ := os.ReadDir("/proc/self/fd"); return len(names) }
		disk, fds, goroutines, before := size(), files(), runtime.NumGoroutine(), g.objects()
		puts := g.store.count("create")
		for hour := range 7 * 24 {
			g.write(byte(hour), 1+uint32(hour)%5)
			pass(time.Hour)
		}
		if size() != disk || files() > fds+1 || runtime.NumGoroutine() > goroutines+2 {
			t.Errorf("after a week: %d bytes on disk, before %d; %d descriptors, before %d; %d goroutines, before %d",
				size(), disk, files(), fds, runtime.NumGoroutine(), goroutines)
		}
		if n := g.store.count("create") - puts; n > 7*24*3600/15+10 {
			t.Errorf("%d PUTs in a week", n)
		}
		if st := s.Status(); st.State != "unreachable" || st.LastError != errStore.Error() || st.Pending == 0 {
			t.Errorf("status %+v", st)
		}
		g.store.up()
		pass(2 * time.Minute)
		g.replicated()
		if n := g.objects() - before; n != 2 {
			t.Errorf("%d objects for the week, want the one that waited and one more", n)
		}
	})
}

func TestDrainTellsWhenItHasReadAndWhenItIsDone(t *testing.T) {
	inBubble(t, func(g *rig) {
		release, putting := make(chan struct{}), make(chan struct{}, 1)
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Millisecond)
		g.store.setWait(func(_ context.Context, op string) {
			if op == "create" {
				putting <- struct{}{}
				<-release
			}
		})
		g.write(1, 1)
		d := s.Drain(time.Now().Add(10 * time.Second))
		<-putting
		synctest.Wait()
		if !closed(d.Read()) || closed(d.Done()) {
			t.Errorf("during the PUT: read %v, done %v", closed(d.Read()), closed(d.Done()))
		}
		if g.pinned() != 0 {
			t.Error("a snapshot is open during the PUT")
		}
		close(release)
		synctest.Wait()
		if !closed(d.Done()) {
			t.Error("not done after the PUT")
		}
		g.replicated()
	})
}

func TestADrainWithNothingToShipEndsAtOnce(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		began := time.Now()
		d := s.Drain(began.Add(10 * time.Second))
		<-d.Done()
		if time.Since(began) != 0 || !closed(d.Read()) {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

func TestADrainOfAMalformedDatabaseEndsAtOnce(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.write(8, 2)
		g.failPins(ErrMalformed)
		began := time.Now()
		d := s.Drain(began.Add(time.Hour))
		<-d.Done()
		if e := time.Since(began); e != 0 {
			t.Errorf("it took %v", e)
		}
		if got := s.Status(); got.State != "failing" || got.Cause == "" {
			t.Errorf("status %+v", got)
		}
		g.failPins(nil)
		pass(time.Minute)
		g.replicated() // what was mended ships all the same
	})
}

func TestADrainOfADatabaseThatAnotherProcessWritesEnds(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		n := byte(0)
		g.store.setWait(func(_ context.Context, op string) {
			n++
			g.write(n, 1) // a commit while each object is put
		})
		g.write(100, 2)
		before := g.objects()
		d := s.Drain(time.Now().Add(10 * time.Second))
		<-d.Done()
		if g.objects() != before+1 {
			t.Errorf("%d objects for a Drain", g.objects()-before)
		}
	})
}

func TestADrainWhileTheStoreIsDownLeavesItsBatchToTheNextOpen(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		pass(5 * time.Second)
		g.store.down()
		g.write(8, 2)
		began := time.Now()
		d := s.Drain(began.Add(3 * time.Second))
		<-d.Read()
		if time.Since(began) > 10*time.Millisecond {
			t.Errorf("read after %v", time.Since(began))
		}
		<-d.Done()
		if e := time.Since(began); e > 3100*time.Millisecond {
			t.Errorf("done after %v of 3s", e)
		}
		s.Close(time.Now())
		g.store.up()
		again := g.open()
		defer again.Close(time.Now())
		pass(time.Second)
		g.replicated()
	})
}

func TestADrainThatComesWhileAPutIsTriedIsServed(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.store.down()
		g.write(8, 2)
		pass(20 * time.Second) // it waits between two tries
		g.write(9, 3)
		d := s.Drain(time.Now().Add(10 * time.Second))
		synctest.Wait()
		if !closed(d.Read()) || closed(d.Done()) {
			t.Errorf("store down: read %v, done %v", closed(d.Read()), closed(d.Done()))
		}
		<-time.After(time.Second)
		g.store.up()
		e := s.Drain(time.Now().Add(10 * time.Second)) // wakes the other
		<-e.Done()
		<-d.Done()
		g.replicated()
	})
}

func TestADrainThatComesWhileAnotherIsServedIsServed(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.store.down()
		g.write(8, 2)
		first := s.Drain(time.Now().Add(10 * time.Second))
		synctest.Wait()
		g.store.up()
		began := time.Now()
		second := s.Drain(time.Now().Add(time.Minute))
		<-first.Done()
		select {
		case <-second.Done():
		case <-time.After(30 * time.Second):
			t.Errorf("not done after %v", time.Since(began))
		}
		g.replicated()
	})
}

// A Drain that came while the store was away must not leave the shipper without
// its pause between batches.
func TestALateDrainDoesNotTakeTheIntervalAway(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.store.down()
		g.write(8, 2)
		pass(3 * time.Second)
		s.Drain(time.Now().Add(time.Hour))
		synctest.Wait()
		n := byte(0)
		g.store.setWait(func(context.Context, string) { n++; g.write(n, 1) })
		g.store.up()
		before := g.objects()
		pass(40 * time.Second)
		if n := g.objects() - before; n > 42 {
			t.Errorf("%d objects in 40s", n)
		}
	})
}

func TestSyncShipsAtOnce(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.write(3, 3)
		began := time.Now()
		txid, err := g.sync(s, context.Background())
		if err != nil || int(txid) != g.objects() || time.Since(began) > 100*time.Millisecond {
			t.Fatalf("Sync = %v, %v after %v", txid, err, time.Since(began))
		}
		g.replicated()
	})
}

// sync is a Sync whose pokes are seen.
func (g *rig) sync(s *Shipper, ctx context.Context) (uint64, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		for wait := time.Microsecond; ; wait = time.Second {
			select {
			case <-done:
				return
			case <-time.After(wait):
				g.wake()
			}
		}
	}()
	txid, err := s.Sync(ctx)
	return uint64(txid), err
}

func TestSyncNamesTheCause(t *testing.T) {
	for name, tt := range map[string]struct {
		break_ func(g *rig)
		want   string
	}{
		"unreachable": {func(g *rig) { g.store.down() }, errStore.Error()},
		"refused": {func(g *rig) {
			g.store.setFault(func(string, objstore.Object, int) fault { return refuses })
		}, "access denied"},
		"not WAL":       {func(g *rig) { g.db.notWAL = true }, "WAL"},
		"no such page":  {func(g *rig) { g.db.pinErr = errors.New("disk I/O error") }, "disk I/O error"},
		"page size":     {func(g *rig) { g.db.page = 1024 }, "another prefix"},
		"other writers": {func(g *rig) { g.plant(0, g.next(), 99, make(state, 5)) }, "another writer"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(g *rig) {
				s := g.open()
				defer s.Close(time.Now())
				pass(5 * time.Second)
				g.db.mu.Lock()
				tt.break_(g)
				g.db.mu.Unlock()
				g.write(3, 3)
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if _, err := g.sync(s, ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Sync: %v", err)
				}
			})
		})
	}
}

// What was read may be in the store only once it is safe from a power cut.
func TestNothingIsPutBeforeItIsSafe(t *testing.T) {
	inBubble(t, func(g *rig) {
		var broken, calls atomic.Int64
		s := g.open(func(c *Config) {
			c.Sync = func() error {
				calls.Add(1)
				if g.pinned() != 0 {
					t.Error("a snapshot is open while the WAL is synced")
				}
				if broken.Load() != 0 {
					return errors.New("input/output error")
				}
				return nil
			}
		})
		defer s.Close(time.Now())
		pass(5 * time.Second)
		puts := g.store.count("create")
		if n := calls.Load(); int(n) != puts {
			t.Errorf("%d syncs for %d objects", n, puts)
		}
		broken.Store(1)
		g.write(3, 3)
		pass(time.Minute)
		if n := g.store.count("create"); n != puts {
			t.Errorf("%d objects were put that are not safe", n-puts)
		}
		if st := s.Status(); st.State != "failing" || !strings.Contains(st.Cause, "input/output") || st.LagMs == 0 {
			t.Errorf("status %+v", st)
		}
		if n := calls.Load(); n < 4 {
			t.Errorf("tried %d times in a minute", n)
		}
		broken.Store(0)
		pass(time.Minute)
		g.replicated()
		if st := s.Status(); st.State != "shipping" || st.LastError != "" || g.store.count("create") != puts+1 {
			t.Errorf("%d objects, status %+v", g.store.count("create")-puts, st)
		}
		before := calls.Load()
		g.write(3, 3)
		pass(time.Minute)
		if calls.Load() != before {
			t.Error("a batch that has nothing to put syncs")
		}
	})
}

func TestSyncEndsWithItsContext(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.db.mu.Lock()
		g.db.pinErr = ErrBusy
		g.db.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := g.sync(s, ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sync: %v", err)
		}
	})
}

// A try that failed and the next one that went well between two looks of Sync is
// no failure, least of all one without a text.
func TestSyncBearsAFailureThatIsOver(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.db.mu.Lock()
		g.db.pinErr = ErrBusy
		g.db.mu.Unlock()
		g.write(3, 3)
		result := make(chan error)
		go func() { _, err := g.sync(s, context.Background()); result <- err }()
		pass(time.Second)
		atomic.StoreUint64(&g.header(s).Failed, load(&g.header(s).Wishes)) // and no LastError any more
		pass(time.Second)
		g.db.mu.Lock()
		g.db.pinErr = nil
		g.db.mu.Unlock()
		if err := <-result; err != nil {
			t.Errorf("Sync: %v", err)
		}
	})
}

// A prefix that was emptied begins a new epoch, with new windows: who waits for
// one of the old must not wait for ever.
func TestSyncOutlivesANewEpoch(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		pass(time.Second)
		for n := range byte(20) {
			g.write(n, 1)
			pass(2 * time.Second)
		}
		s.Close(time.Now())
		g.store.mu.Lock()
		clear(g.store.objects)
		g.store.mu.Unlock()
		release := make(chan struct{})
		g.store.setWait(func(context.Context, string) { <-release })
		s = g.open()
		defer s.Close(time.Now())
		g.write(77, 1)
		go func() { <-time.After(time.Second); close(release) }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := g.sync(s, ctx); err != nil {
			t.Errorf("Sync: %v", err)
		}
		g.replicated()
	})
}

func TestSyncOutlivesItsLedger(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Second)
		g.write(77, 1)
		os.Remove(g.db.path + ledger.Suffix)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// The prefix cannot be proven without the ledger.
		if _, err := g.sync(s, ctx); err == nil || !strings.Contains(err.Error(), "takeover=1") {
			t.Errorf("Sync: %v", err)
		}
	})
}

// A wish for a window that did not begin, as a ledger made new under a Sync or a
// garbled one holds, must not keep the shipper busy.
func TestAWishForALaterWindowIsNoWork(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		h := g.header(s)
		atomic.StoreUint64(&h.SyncWanted, 1<<60)
		g.write(1, 1)
		before := load(&h.Window)
		began := time.Now()
		for range 20 {
			g.wake()
			synctest.Wait()
		}
		if n := load(&h.Window) - before; n > 1 || time.Since(began) > 0 {
			t.Errorf("%d batches for nobody", n)
		}
	})
}

func TestStatusAndSyncAfterCloseAreNoFault(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		pass(time.Second)
		g.store.down()
		g.write(1, 1)
		result := make(chan error)
		go func() { _, err := s.Sync(context.Background()); result <- err }()
		synctest.Wait()
		s.Close(time.Now())
		if err := <-result; err == nil {
			t.Error("Sync succeeded")
		}
		if _, err := s.Sync(context.Background()); err == nil || err.Error() == "" {
			t.Errorf("Sync after Close: %v", err)
		}
		if s.Err() == nil {
			t.Error("Err after Close is nil")
		}
		_ = s.Status()
		<-s.Drain(time.Now().Add(time.Hour)).Done()
	})
}

func TestAnEmptyDatabaseShipsNothing(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		before := g.objects()
		// Its file was replaced by an empty one.
		g.db.mu.Lock()
		g.db.commit(func(state) (state, []uint32) { return nil, nil }, true, true)
		g.db.catchUp(-1, never)
		g.db.mu.Unlock()
		pass(5 * time.Second)
		g.sync(s, context.Background())
		pass(5 * time.Second)
		if g.objects() != before {
			t.Fatalf("an object of an empty database")
		}
		g.db.mu.Lock()
		g.db.write(func(state) (state, []uint32) { return state{4, 5, 6}, []uint32{1, 2, 3} })
		g.db.mu.Unlock()
		pass(5 * time.Second)
		g.replicated()
	})
}

func TestABusyDatabaseIsTriedAgain(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.db.mu.Lock()
		g.db.pinErr = ErrBusy
		g.db.mu.Unlock()
		g.write(9, 1)
		pins := g.pins()
		pass(time.Minute)
		if n := g.pins() - pins; n < 50 || n > 120 {
			t.Errorf("%d pins in a minute", n)
		}
		g.db.mu.Lock()
		g.db.pinErr = nil
		g.db.mu.Unlock()
		pass(2 * time.Second)
		g.replicated()
	})
}

func TestADatabaseThatIsNotInWALModeIsLeftAlone(t *testing.T) {
	inBubble(t, func(g *rig) {
		g.db.notWAL = true
		s := g.open()
		defer s.Close(time.Now())
		pass(time.Second)
		pins, puts := g.pins(), g.store.count("create")
		pass(time.Hour)
		if g.pins() != pins || g.store.count("create") != puts {
			t.Errorf("%d pins in an hour", g.pins()-pins)
		}
		g.db.mu.Lock()
		g.db.notWAL = false
		g.db.mu.Unlock()
		g.write(1, 1)
		pass(2 * time.Second)
		g.replicated()
	})
}

func TestTheLedgerRemovedInUseIsMadeNewAndNothingIsPut(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		puts := g.store.count("create")
		if err := os.Remove(g.db.path + ledger.Suffix); err != nil {
			t.Fatal(err)
		}
		g.write(4, 4)
		pass(time.Minute)
		d := s.Drain(time.Now().Add(time.Second))
		<-d.Done()
		if _, err := os.Stat(g.db.path + ledger.Suffix); err != nil {
			t.Fatal(err)
		}
		g.write(5, 5)
		pass(time.Minute)
		if g.store.count("create") != puts {
			t.Error("a PUT under a prefix that cannot be proven")
		}
		if st := s.Status(); st.State != "unclaimed" {
			t.Errorf("state %s", st.State)
		}
	})
}

// The new file is empty until somebody has the role: to look into it then would end
// the host.
func TestACloseRightAfterTheLedgerWasLostIsNoFault(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		if s.state != StateShipping {
			t.Fatalf("state %v", s.state)
		}
		s.resign()
		if err := os.Remove(g.db.path + ledger.Suffix); err != nil {
			t.Fatal(err)
		}
		s.reopen()
		deadline := time.Now().Add(time.Minute)
		s.last.Store(&deadline)
		s.lookBack()
		s.end()
	})
}

// Outside a bubble: the real watch, and what is left of it.
func TestCloseLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	goroutines := runtime.NumGoroutine()
	fds := func() int { names, _ := os.ReadDir("/proc/self/fd"); return len(names) }
	before := fds()
	for range 20 {
		db, err := newSimDB(filepath.Join(dir, "app.db"), 3)
		if err != nil {
			t.Fatal(err)
		}
		store := newMemStore()
		os.Remove(db.path + ledger.Suffix)
		cfg := Config{Database: db.path, Store: store, Source: db, Interval: 10 * time.Millisecond}
		one := New(cfg)
		two := New(cfg)
		db.mu.Lock()
		db.write(set(5, 2))
		db.mu.Unlock()
		if _, err := two.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		one.Close(time.Now())
		db.mu.Lock()
		db.write(set(6, 2))
		db.mu.Unlock()
		if _, err := two.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.now().equals(replay(t, store.history())); err != nil {
			t.Fatal(err)
		}
		two.Close(time.Now())
		db.close()
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines || fds() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, before %d; %d descriptors, before %d\n%s", runtime.NumGoroutine(), goroutines, fds(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// The same with inotify itself: who waits for the role is not woken by itself.
func TestWhoWaitsForTheRoleSleepsOnInotify(t *testing.T) {
	db, err := newSimDB(filepath.Join(t.TempDir(), "app.db"), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	var tries atomic.Int32
	busy := make(chan struct{}, 1)
	cfg := Config{Database: db.path, Store: newMemStore(), Source: db, Interval: time.Second,
		Descriptors: ledger.Descriptors{
			Open: func(path string) (int, error) {
				if tries.Add(1) == 50 {
					busy <- struct{}{}
				}
				return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			},
			Close: func(fd int) { unix.Close(fd) },
		}}
	one := New(cfg)
	defer one.Close(time.Now())
	two := New(cfg)
	defer two.Close(time.Now())
	<-two.Ready()
	select {
	case <-busy:
		t.Error("50 tries while another one ships")
	case <-time.After(300 * time.Millisecond):
	}
}

// Who marks and finds that another ships leaves it to him; he may be about to go, and
// looks once more when he has gone.
func TestWhatIsMarkedWhileTheShipperGoesIsShipped(t *testing.T) {
	inBubble(t, func(g *rig) {
		first, second := g.open(), g.open()
		g.write(1, 2)
		d := first.Drain(time.Now().Add(10 * time.Second))
		<-d.Done()
		g.write(2, 3)
		d = second.Drain(time.Now().Add(10 * time.Second))
		<-d.Done()
		second.Close(time.Now())
		first.Close(time.Now().Add(10 * time.Second))
		g.replicated()
	})
}

// One that cannot reach the store does not stay for it.
func TestACloseWithoutAStoreEndsAtItsDeadline(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		g.write(1, 2)
		pass(2 * time.Second)
		g.store.down()
		g.write(2, 3)
		begun := time.Now()
		s.Close(begun.Add(10 * time.Second))
		if took := time.Since(begun); took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
