package history_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

var rounds = flag.Int("rounds", 60, "random histories that retention is tried on")

// world is a replica that is written to, merged and expired.
type world struct {
	rng    *rand.Rand
	h      *history.History
	policy history.Policy
	now    time.Time
	times  map[ltx.TXID]time.Time // of every transaction
	txid   ltx.TXID
	ends   []ltx.TXID // of files above level 0, ever
	late   bool       // ModTime is when an object was written, as in a bucket
}

func (w *world) put(level int, lo, hi ltx.TXID) {
	o := objstore.Object{Level: level, Min: lo, Max: hi, Size: 1000 + int64(hi-lo+1)*100, ModTime: w.times[hi]}
	if lo == 1 {
		o.Size = 50_000
	}
	if w.late {
		o.ModTime = w.now
	}
	w.h.Levels[level] = append(w.h.Levels[level], o)
	if level > 0 {
		w.ends = append(w.ends, hi)
	}
}

// write is a transaction after a while.
func (w *world) write() {
	w.now = w.now.Add(time.Duration(1+w.rng.IntN(40)) * time.Second)
	w.txid++
	w.times[w.txid] = w.now
	switch {
	case w.txid == 1:
		w.put(objstore.SnapshotLevel, 1, 1)
	default:
		w.put(0, w.txid, w.txid)
	}
	if w.rng.IntN(60) == 0 && w.txid > 1 {
		w.put(objstore.SnapshotLevel, 1, w.txid)
	}
	if w.rng.IntN(60) == 0 {
		w.h.Marks = append(w.h.Marks, objstore.Mark{Name: "m", TXID: w.txid, Time: w.now})
	}
}

// merge merges what a level holds behind what the next one has, where that is due.
func (w *world) merge(level int) {
	var have ltx.TXID = 1
	for _, o := range w.h.Levels[level+1] {
		have = max(have, o.Max)
	}
	var inputs []objstore.Object
	for _, o := range w.h.Levels[level] {
		next := have + 1
		if n := len(inputs); n > 0 {
			next = inputs[n-1].Max + 1
		}
		if o.Min > next && len(inputs) == 0 && o.Min > 1 {
			next = o.Min // retention has moved on behind what the level has
		}
		if o.Min == next {
			inputs = append(inputs, o)
		}
	}
	if len(inputs) > 0 {
		w.put(level+1, inputs[0].Min, inputs[len(inputs)-1].Max)
	}
}

// expire removes what has expired in some order, and may crash on the way.
func (w *world) expire(t *testing.T) (gone int, whole bool) {
	before := *w.h
	objects, marks := w.h.Expired(w.policy, w.now, 60_000)
	crash := len(objects)
	if w.rng.IntN(3) == 0 {
		crash = w.rng.IntN(len(objects) + 1)
	}
	expired := map[objstore.Mark]bool{}
	for _, m := range marks {
		expired[m] = true
		if w.now.Sub(m.Time) <= w.policy.Marks {
			t.Fatalf("%v goes after %v", m, w.now.Sub(m.Time))
		}
	}
	must := []ltx.TXID{w.txid}
	points := before.Points()
	for _, m := range before.Marks {
		if !expired[m] && slices.Contains(points, m.TXID) {
			must = append(must, m.TXID)
		}
	}
	w.rng.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	for n := range crash + 1 {
		if n < crash && n > 3 && w.rng.IntN(8) > 0 {
			continue // most steps are like the one before
		}
		rest := before.Without(objects[:n]...)
		have := rest.Points()
		for _, m := range must {
			if _, ok := slices.BinarySearch(have, m); !ok {
				t.Fatalf("TXID %d cannot be restored after %d of %d deletions\nhad  %s\nhave %s", m, n, len(objects), format(before.Objects()...), format(rest.Objects()...))
			}
		}
		w.checkWindow(t, have)
		w.h = rest
	}
	if crash == len(objects) {
		w.h.Marks = slices.DeleteFunc(slices.Clone(w.h.Marks), func(m objstore.Mark) bool { return expired[m] })
	}
	return crash, crash == len(objects)
}

// checkWindow: with a limit of time alone, the ends of merged files within it and the
// state at its begin can be restored.
func (w *world) checkWindow(t *testing.T, have []ltx.TXID) {
	r := w.policy.Retention
	if r != (history.Limits{Age: r.Age}) {
		return
	}
	begin := w.now.Add(-r.Age)
	for _, end := range w.ends {
		if _, ok := slices.BinarySearch(have, end); !ok && !w.times[end].Before(begin) {
			t.Fatalf("TXID %d of %v ago cannot be restored, with a retention of %v", end, w.now.Sub(w.times[end]), r.Age)
		}
	}
	for txid := ltx.TXID(1); txid <= w.txid; txid++ { // level-0 files stay until they are L0 old
		if _, ok := slices.BinarySearch(have, txid); !ok && w.now.Sub(w.times[txid]) <= min(w.policy.L0, r.Age) {
			t.Fatalf("TXID %d of %v ago cannot be restored", txid, w.now.Sub(w.times[txid]))
		}
	}
	if w.times[have[0]].After(begin) && have[0] != 1 {
		t.Fatalf("the history begins %v ago, the retention is %v", w.now.Sub(w.times[have[0]]), r.Age)
	}
}

// checkTidy: what is left is what the policy keeps.
func (w *world) checkTidy(t *testing.T) {
	if objects, marks := w.h.Expired(w.policy, w.now, 60_000); len(objects)+len(marks) > 0 {
		t.Fatalf("what was to go has gone, and now %s and %v\nof %s %+v marks %v", format(objects...), marks, format(w.h.Objects()...), w.policy, w.h.Marks)
	}
	if len(w.h.Marks) > 0 {
		return
	}
	newest := map[int]ltx.TXID{}
	for _, o := range w.h.Objects() {
		newest[o.Level] = max(newest[o.Level], o.Max)
	}
	r := w.policy.Retention
	if r.Age > 0 {
		var base ltx.TXID
		for _, o := range w.h.Levels[9] {
			if w.now.Sub(o.ModTime) > r.Age {
				base = max(base, o.Max)
			}
		}
		for _, o := range w.h.Objects() {
			if o.Max <= base && !(o.Level == 9 && o.Max == base) && o.Max != newest[o.Level] && (o.Level > 0 || w.now.Sub(o.ModTime) > w.policy.L0) {
				t.Fatalf("%s is left below the base %d", format(o), base)
			}
		}
	}
	if r.Bytes > 0 && w.h.Size() > r.Bytes && len(w.h.Levels[9]) > 1 {
		t.Fatalf("%d bytes with %d snapshots are left, of %d that are allowed", w.h.Size(), len(w.h.Levels[9]), r.Bytes)
	}
}

func TestRetentionKeepsWhatIsNeeded(t *testing.T) {
	var gone, tidied int
	for seed := range uint64(*rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			w := &world{rng: rng, h: new(history.History), now: time.UnixMilli(1767225600000), times: map[ltx.TXID]time.Time{}, late: rng.IntN(2) == 0}
			w.policy = history.Policy{L0: 5 * time.Minute, Marks: time.Duration(1+rng.IntN(3)) * time.Hour}
			r := &w.policy.Retention
			switch rng.IntN(5) {
			case 0, 1:
				r.Age = time.Duration(1+rng.IntN(120)) * time.Minute
			case 2:
				r.Bytes = 60_000 + rng.Int64N(300_000)
			case 3:
				r.Points = 1 + rng.IntN(100)
			case 4:
				*r = history.Limits{Age: time.Duration(1+rng.IntN(120)) * time.Minute, Bytes: 60_000 + rng.Int64N(300_000), Times: 1 + 5*rng.Float64(), Points: 1 + rng.IntN(50)}
			}
			last := [3]time.Time{w.now, w.now, w.now}
			for range 100 + rng.IntN(500) {
				w.write()
				for level, every := range []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour} {
					if w.now.Truncate(every).After(last[level]) && rng.IntN(4) > 0 {
						last[level] = w.now
						w.merge(level)
					}
				}
				if rng.IntN(40) == 0 {
					n, whole := w.expire(t)
					if gone += n; whole {
						w.checkTidy(t)
						tidied++
					}
				}
			}
		})
	}
	if gone < 10**rounds || tidied == 0 {
		t.Errorf("%d objects went, %d times all of them", gone, tidied)
	}
}
