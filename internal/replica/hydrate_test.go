package replica

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

func hydrating(path string) func(*Options) { return func(o *Options) { o.Hydrate = path } }

// filled waits until the file has all of the newest state.
func filled(t *testing.T, c *Conn) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		h := c.s.hydrate
		h.mu.Lock()
		done := h.last == c.current() && !h.busy
		h.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the file is not filled: %+v", c.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

// forgetAll empties what the process keeps in memory.
func forgetAll() {
	pages.mu.Lock()
	defer pages.mu.Unlock()
	pages.shrink(0)
}

// opened is for who ends the connection before the test does.
func (w *world) opened(change ...func(*Options)) *Conn {
	w.t.Helper()
	o := w.options()
	for _, f := range change {
		f(&o)
	}
	c, err := Open(o, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// Once it is filled, only what is new is asked for, by the next process too.
func TestHydrate_IsFilledOnceAndServes(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.history(3, 500)
	path := filepath.Join(t.TempDir(), "local")
	for process := range 3 {
		if process > 0 {
			w.commit(500, 7, 100, 250)
			w.ship()
		}
		c := w.opened(hydrating(path))
		begin(t, c)
		filled(t, c)
		before := c.Status()
		forgetAll()
		w.holds(c, w.head)
		after := c.Status()
		if after.Bytes != before.Bytes {
			t.Errorf("process %d: %d bytes were fetched of what the file has", process, after.Bytes-before.Bytes)
		}
		if after.Hydrated != int64(after.Pages) || after.HydrateError != "" {
			t.Errorf("process %d: %d of %d pages, %q", process, after.Hydrated, after.Pages, after.HydrateError)
		}
		if most := int64(500 * 4096 / 8); process > 0 && before.Bytes > most {
			t.Errorf("process %d fetched %d bytes, though the file had most of it", process, before.Bytes)
		}
		c.Close()
	}
}

// The file is damaged, is written by others, is of an older state, and files of the replica are merged
// and removed: what is read is the state of the transaction.
func TestHydrate_NeverServesAWrongPage(t *testing.T) {
	w := newWorld(t, 2, 1024)
	w.history(1, 300)
	path := filepath.Join(t.TempDir(), "local")
	rnd := rand.New(rand.NewPCG(4, 4))
	other := w.open(hydrating(path))
	merged := ltx.TXID(1)
	for round := range 40 {
		w.step(400)
		w.ship()
		c := w.opened(hydrating(path))
		begin(t, c)
		if round%2 == 0 {
			filled(t, c)
		}
		if round%3 == 0 {
			damage(t, rnd, path)
			damage(t, rnd, path+hydrationSuffix)
		}
		if round%4 == 3 {
			w.put(1, merged+1, w.head)
			for _, o := range w.bucket.all() {
				if o.Level == 0 && o.Max <= w.head {
					w.bucket.remove(o)
				}
			}
			merged = w.head
		}
		forgetAll()
		w.holds(c, w.head)
		forgetAll()
		w.reads(other, w.head)
		c.Close()
	}
}

func damage(t *testing.T, rnd *rand.Rand, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		junk := make([]byte, 1+rnd.IntN(100))
		for i := range junk {
			junk[i] = byte(rnd.Uint32())
		}
		if at := rnd.Int64N(max(info.Size(), 1)); at >= 64 {
			if _, err := f.WriteAt(junk, at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// It is for the newest state: one of the past is read beside it, and takes nothing of it away.
func TestHydrate_AStateOfThePastLeavesItAsItIs(t *testing.T) {
	w := newWorld(t, 3, 4096)
	w.history(10, 50)
	path := filepath.Join(t.TempDir(), "local")
	c := w.open(hydrating(path))
	begin(t, c)
	filled(t, c)
	past := w.open(hydrating(path), atTXID(4))
	forgetAll()
	w.reads(past, 4)
	before := c.Status().Bytes
	forgetAll()
	w.holds(c, w.head)
	if after := c.Status().Bytes; after != before {
		t.Errorf("%d bytes were fetched again", after-before)
	}
}

func TestHydrate_TakesNoFileThatIsSomebodyElses(t *testing.T) {
	w := newWorld(t, 4, 4096)
	w.history(1, 3)
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := w.options()
	o.Hydrate = path
	if c, err := Open(o, nil); err == nil {
		c.Close()
		t.Error("it was opened")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// The file that it began with is the plan's last one too where nothing came after it.
func TestHydrate_TheFileItBeganWithMayBeTheOnlyOne(t *testing.T) {
	w := newWorld(t, 5, 4096)
	w.commit(50)
	only := w.ship()
	path := filepath.Join(t.TempDir(), "local")
	for process := range 3 {
		c := w.opened(hydrating(path))
		begin(t, c)
		filled(t, c)
		w.holds(c, 1)
		if got := c.current().head; got != only {
			t.Errorf("process %d: the last file is %+v, want %+v", process, got, only)
		}
		if o, ok := c.s.hydrate.base(); !ok || o.Size != only.Size {
			t.Errorf("process %d: the next one is to begin with %+v, %v", process, o, ok)
		}
		c.Close()
	}
}

// What fills the file and who reads at the same time ask for no byte of a page twice at once.
func TestHydrate_APageThatIsOnItsWayIsNotFetchedTwice(t *testing.T) {
	for name, readFirst := range map[string]bool{"the reader comes first": true, "the file is filled first": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 6, 4096)
				w.raw = true
				w.commit(200)
				w.ship()
				held := newGate()
				type span struct{ from, to int64 }
				var mu sync.Mutex
				var asked []span
				w.bucket.set(func() {
					w.bucket.before = func(ctx context.Context, call string, o objstore.Object, off, n int64) error {
						if call != "open" || n > 300<<10 || off < ltx.HeaderSize || off+n > o.Size-8<<10 {
							return nil // the begin and the end, for the index
						}
						mu.Lock()
						for _, s := range asked {
							if off < s.to && s.from < off+n {
								t.Errorf("bytes %d to %d are asked for while %d to %d are on their way", off, off+n, s.from, s.to)
							}
						}
						asked = append(asked, span{off, off + n})
						mu.Unlock()
						return held.wait(ctx)
					}
				})
				path := filepath.Join(t.TempDir(), "local")
				if readFirst {
					plain := w.open()
					begin(t, plain)
					// Of one Source: what fills begins while a page is on its way.
					plain.s.hydrate = mustHydrate(t, path, plain.s)
					var wg sync.WaitGroup
					wg.Go(func() { w.sees(plain, 77) })
					synctest.Wait()
					plain.s.hydrate.follow(plain.current())
					synctest.Wait()
					close(held.open)
					wg.Wait()
					filled(t, plain)
				} else {
					c := w.open(hydrating(path))
					begin(t, c)
					synctest.Wait() // all that fills is on its way
					var wg sync.WaitGroup
					wg.Go(func() { w.sees(c, 10) })
					synctest.Wait()
					close(held.open)
					wg.Wait()
					filled(t, c)
					w.holds(c, 1)
				}
				if len(asked) < 2 {
					t.Errorf("%d requests: nothing was tried", len(asked))
				}
			})
		})
	}
}

func mustHydrate(t *testing.T, path string, s *Source) *hydration {
	t.Helper()
	h, err := openHydration(path, s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// sees reads one page, and compares it. For any goroutine.
func (w *world) sees(c *Conn, pgno uint32) {
	if got, err := readPage(c, pgno); err != nil || !w.states[c.TXID()].same(pgno, got) {
		w.t.Errorf("page %d: %v", pgno, err)
	}
}

// An open that fails leaves no descriptor.
func TestHydrate_AFileThatIsRefusedCostsNoDescriptor(t *testing.T) {
	w := newWorld(t, 7, 4096)
	w.history(1, 3)
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := w.options()
	o.Hydrate, o.CacheDir, o.CacheDirSize = path, t.TempDir(), 1<<20
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := descriptors()
	for range 50 {
		if c, err := Open(o, nil); err == nil {
			c.Close()
			t.Fatal("it was opened")
		}
	}
	if after := descriptors(); after >= before+50 {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}

// A file that cannot be written to is told in the status, and is nothing to who reads.
func TestHydrate_AFullDiskIsNoErrorOfReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8, 4096)
		w.raw = true
		w.commit(200)
		w.ship()
		c := w.open()
		begin(t, c)
		held := newGate()
		w.bucket.set(func() {
			w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return held.wait(ctx) }
		})
		path := filepath.Join(t.TempDir(), "local")
		h := mustHydrate(t, path, c.s)
		var err error
		h.pages.Close()
		if h.pages, err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		c.s.hydrate = h
		h.follow(c.current())
		synctest.Wait() // all that fills is on its way
		var wg sync.WaitGroup
		for _, p := range []uint32{1, 60, 200} {
			wg.Go(func() { w.sees(c, p) })
		}
		synctest.Wait()
		close(held.open)
		wg.Wait()
		synctest.Wait()
		w.holds(c, 1)
		if st := c.Status(); st.HydrateError == "" || st.State != "reading" {
			t.Errorf("status %+v", st)
		}
	})
}
