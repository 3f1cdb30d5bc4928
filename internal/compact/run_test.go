package compact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// epoch is a second before a world's first transaction; each takes another.
var epoch = time.UnixMilli(1700000000000)

func (w *world) run(o Options) (steps []Step) {
	w.t.Helper()
	o.Dir, o.Tell = w.dir, func(s Step) { steps = append(steps, s) }
	if err := Run(context.Background(), w.store, o); err != nil {
		w.t.Fatal(err)
	}
	return steps
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func names(steps []Step) (all []string) {
	for _, s := range steps {
		if s.Inputs != nil {
			all = append(all, fmt.Sprintf("%d: %d-%d of %d", s.Output.Level, s.Output.Min, s.Output.Max, len(s.Inputs)))
			continue
		}
		for _, o := range s.Removed {
			all = append(all, fmt.Sprintf("- %d: %d-%d", o.Level, o.Min, o.Max))
		}
		for _, m := range s.Marks {
			all = append(all, "- "+m.Name)
		}
	}
	return all
}

// points checks that every state that the replica offers is what the database was
// then, and that the newest and those of marks are among them.
func (w *world) points() []ltx.TXID {
	w.t.Helper()
	h, err := history.List(context.Background(), w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	points := h.Points()
	want := []ltx.TXID{w.head}
	for _, m := range h.Marks {
		want = append(want, m.TXID)
	}
	for _, t := range want {
		if !slices.Contains(points, t) {
			w.t.Fatalf("%s cannot be restored, only %v", t, points)
		}
	}
	for _, t := range points {
		p, err := h.Plan(t)
		if err != nil {
			w.t.Fatal(err)
		}
		w.follows(p, w.read)
	}
	return points
}

func (w *world) follows(p history.Plan, read func(objstore.Object) []byte) {
	w.t.Helper()
	var s state
	for _, o := range p.Files {
		s, _ = apply(w.t, s, read(o))
	}
	if err := s.differs(w.states[p.TXID()]); err != nil {
		w.t.Fatalf("restored %s: %v", p.TXID(), err)
	}
}

func TestARunDoesWhatIsDue(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 20, 512, store)
	_, rest := w.history(70, 30) // of 71 s
	w.merge(1, rest[:10]...)
	policy := history.Policy{Retention: history.Limits{Age: time.Hour}, L0: time.Minute, Marks: 2 * time.Hour}
	o := Options{SnapshotInterval: 24 * time.Hour, Policy: policy, Now: at(epoch.Add(72 * time.Second))}

	dry := o
	dry.DryRun = true
	would := names(w.run(dry))
	if l := w.objects(); len(l[0]) != 70 || len(l[1])+len(l[2])+len(l[3]) != 1 || len(l[9]) != 1 {
		t.Error("a dry run has written or removed something")
	}
	did := names(w.run(o))
	want := []string{"1: 12-71 of 60", "2: 2-71 of 2", "3: 2-71 of 1"}
	for i := 2; i <= 11; i++ { // more than a minute ago
		want = append(want, fmt.Sprintf("- 0: %d-%d", i, i))
	}
	if !slices.Equal(did, want) || !slices.Equal(would, want) {
		t.Errorf("did %q\nwould %q\nwant %q", did, would, want)
	}
	w.points()
	if again := w.run(o); len(again) > 0 {
		t.Errorf("the second time it did %q", names(again))
	}

	// A snapshot when it is asked for, once, and when its time has come.
	o.Snapshot = true
	if got := names(w.run(o)); !slices.Equal(got, []string{"9: 1-71 of 2"}) {
		t.Errorf("%q", got)
	}
	if got := w.run(o); len(got) > 0 {
		t.Errorf("%q", names(got))
	}
	o.Snapshot = false
	if err := store.PutMark(t.Context(), objstore.Mark{Name: "before", TXID: 40, Time: epoch.Add(40 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	w.commit(9, 2)
	w.put(0, w.head, w.head)
	o.Now = at(epoch.Add(90 * time.Minute))
	w.run(o)
	w.points()
	if l := w.objects(); len(l[9]) < 2 {
		t.Errorf("the mark's snapshot is gone: %v", l)
	}
	o.Now = at(epoch.Add(25 * time.Hour))
	did = names(w.run(o))
	if !slices.Contains(did, "9: 1-72 of 2") || !slices.Contains(did, "- 9: 1-1") || !slices.Contains(did, "- before") {
		t.Errorf("a day later it did %q", did)
	}
	w.points()
}

// What could not be merged may be needed to mend it, so nothing is removed.
func TestAfterAFailureNothingIsRemoved(t *testing.T) {
	store, dir := directory(t)
	w := newWorld(t, 21, 512, store)
	_, rest := w.history(10, 30)
	w.merge(1, rest[:5]...)
	path := pathOf(dir, rest[7])
	b := w.read(rest[7])
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: w.dir, Policy: history.Policy{Retention: history.Limits{Age: time.Second}, L0: time.Second}, Now: at(epoch.Add(time.Hour))}
	err := Run(t.Context(), store, o)
	if !errors.Is(err, ltxfile.ErrCorrupt) || !strings.Contains(err.Error(), rest[7].String()) {
		t.Errorf("error %v", err)
	}
	if l := w.objects(); len(l[0]) != 10 || len(l[9]) != 1 {
		t.Errorf("removed: %v", l)
	}
}

func TestAnEmptyReplicaAndAGap(t *testing.T) {
	store, _ := directory(t)
	if err := Run(t.Context(), store, Options{Dir: t.TempDir()}); !errors.Is(err, history.ErrNothing) {
		t.Errorf("error %v", err)
	}
	w := newWorld(t, 22, 512, store)
	_, rest := w.history(6, 30)
	if err := store.Remove(t.Context(), rest[2]); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { // it looks again for some seconds
		err := Run(t.Context(), store, Options{
			Dir: w.dir, Policy: history.Policy{Retention: history.Limits{Age: time.Second}, L0: time.Second}, Now: at(epoch.Add(time.Hour)),
		})
		if !errors.Is(err, history.ErrGap) {
			t.Errorf("error %v", err)
		}
	})
	l := w.objects()
	if len(l[0]) != 5 || len(l[1]) != 2 || l[1][0].Max != 3 || l[1][1].Min != 5 {
		t.Errorf("left with %v", l)
	}
}

// Two compact, with clocks that run and differ, while a database is written and
// restored; what they leave restores at every point.
func TestTwoCompactorsAndAWriterDoNoHarm(t *testing.T) {
	each := func(t *testing.T, store objstore.Store, transactions int) *world {
		w := newWorld(t, 23, 512, store)
		w.commit(20, 0)
		w.put(objstore.SnapshotLevel, 1, 1)
		var mu sync.Mutex // of the world
		// A mark names an object that is too new to be removed by a run that has not seen the mark. Here
		// all are old at once, so there is no run while one is made.
		var marking sync.RWMutex
		var done atomic.Bool
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				for n := time.Duration(0); !done.Load() || n < 3; n++ {
					now := time.Now().Add(48*time.Hour + n*11*time.Minute + time.Duration(i)*7*time.Minute)
					marking.RLock()
					err := Run(context.Background(), store, Options{
						Dir: w.dir, Snapshot: n%3 == time.Duration(i), SnapshotInterval: time.Hour, Now: at(now),
						Policy: history.Policy{
							Retention: history.Limits{Age: time.Hour, Points: 10}, L0: 20 * time.Minute, Marks: 1000 * 24 * time.Hour,
						},
					})
					marking.RUnlock()
					// Too much happened at once: the next run does it.
					if err != nil && !errors.Is(err, objstore.ErrNotExist) && !errors.Is(err, history.ErrGap) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for !done.Load() {
				p, files, err := download(store)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				w.follows(p, func(o objstore.Object) []byte { return files[o] })
				mu.Unlock()
			}
		})
		for range transactions {
			mu.Lock()
			w.step(40)
			mu.Unlock()
			if w.head%20 == 0 {
				marking.Lock()
			}
			w.put(0, w.head, w.head)
			if w.head%20 == 0 {
				m := objstore.Mark{Name: w.head.String(), TXID: w.head, Time: time.Now()}
				err := store.PutMark(t.Context(), m)
				marking.Unlock()
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		done.Store(true)
		wg.Wait()
		if points := w.points(); len(points) < transactions/20 {
			t.Errorf("only %v", points)
		}
		if l := w.objects(); len(l[1])+len(l[9]) < 2 || len(l[0]) == transactions {
			t.Errorf("nothing was compacted: %v", l)
		}
		return w
	}
	t.Run("directory", func(t *testing.T) {
		store, _ := directory(t)
		w := each(t, store, 300)
		// Litestream cares for the order in which levels are taken.
		w.byLitestream(litestream(t), w.head)
	})
	t.Run("s3", func(t *testing.T) {
		server := s3test.Start(t)
		server.Env(t)
		server.Bucket(t, "bucket")
		each(t, open(t, "s3://bucket/app"), 80)
	})
}

// download is a restore of the newest state, which begins again where what it wants has
// been removed.
func download(store objstore.Store) (p history.Plan, files map[objstore.Object][]byte, err error) {
	for range 30 {
		var h *history.History
		if h, err = history.List(context.Background(), store); err != nil {
			return p, nil, err
		}
		if p, err = h.Plan(0); err != nil {
			continue // a listing of two moments
		}
		files = map[objstore.Object][]byte{}
		for _, o := range p.Files {
			if files[o], err = readObject(store, o); err != nil {
				break
			}
		}
		if err == nil || !errors.Is(err, objstore.ErrNotExist) {
			return p, files, err
		}
	}
	return p, nil, fmt.Errorf("it never settles: %w", err)
}
