package history_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		objects string   // level:min-max*KiB, decimal
		txid    ltx.TXID // 0: the newest
		want    string
		head    string
		err     error
		says    string
	}{
		{name: "empty", err: history.ErrNothing},
		{name: "one snapshot", objects: "9:1-1", want: "9:1-1", head: "9:1-1"},
		{name: "snapshot and level 0", objects: "9:1-1 0:2-2 0:3-3", want: "9:1-1 0:2-2 0:3-3", head: "0:3-3"},
		{name: "only level 0", objects: "0:1-1 0:2-2", want: "0:1-1 0:2-2", head: "0:2-2"},
		{name: "newest snapshot", objects: "9:1-1 9:1-5 9:1-3 0:4-4 0:5-5 0:6-6", want: "9:1-5 0:6-6", head: "0:6-6"},
		{name: "head of a snapshot alone", objects: "9:1-5 0:5-5", want: "9:1-5", head: "0:5-5"},
		{name: "merged levels first", objects: "9:1-1 0:2-2 0:3-3 0:4-4 0:5-5 1:2-3 2:2-4", want: "9:1-1 2:2-4 0:5-5", head: "0:5-5"},
		{name: "level 0 gone", objects: "9:1-1 1:2-3 1:4-9", want: "9:1-1 1:2-3 1:4-9", head: "1:4-9"},
		{name: "head kept beside its merge", objects: "9:1-1 1:2-3 0:3-3", want: "9:1-1 1:2-3", head: "0:3-3"},
		{name: "overlap", objects: "9:1-4 1:2-3 1:4-9 2:3-6", want: "9:1-4 1:4-9", head: "1:4-9"},
		{name: "overlap of two levels", objects: "9:1-1 2:2-6 1:5-9", want: "9:1-1 2:2-6 1:5-9", head: "1:5-9"},
		{name: "as far with less", objects: "9:1-5 1:2-6 0:6-6", want: "9:1-5 0:6-6", head: "0:6-6"},
		{name: "level 8", objects: "9:1-2 8:3-7", want: "9:1-2 8:3-7", head: "8:3-7"},
		{name: "merged file with all pages is the base", objects: "3:1-7 0:8-8", want: "3:1-7 0:8-8", head: "0:8-8"},
		{name: "and replaces an older snapshot", objects: "9:1-2 3:1-7 0:8-8", want: "3:1-7 0:8-8", head: "0:8-8"},
		{name: "old files before the snapshot", objects: "9:1-9 0:4-4 1:2-3 0:10-10", want: "9:1-9 0:10-10", head: "0:10-10"},
		{name: "gap", objects: "9:1-3 0:4-4 0:7-7 0:8-8", err: history.ErrGap, says: "0000000000000005 to 0000000000000006 are missing; the newest that can be restored is 0000000000000004"},
		{name: "gap behind level 1", objects: "9:1-3 1:5-9", err: history.ErrGap, says: "0000000000000004 to 0000000000000004"},
		{name: "two gaps", objects: "9:1-3 1:5-9 1:12-13", err: history.ErrGap, says: "0000000000000004 to 0000000000000004"},
		{name: "gap bridged by a merge", objects: "9:1-3 0:4-4 0:7-7 1:4-6", want: "9:1-3 1:4-6 0:7-7", head: "0:7-7"},
		{name: "no snapshot", objects: "0:5-5 0:6-6", err: history.ErrGap, says: "0000000000000001 to 0000000000000004 are missing; nothing can be restored"},

		{name: "the old snapshot and a little are less than the new one", objects: "9:1-1*9000 9:1-5*20000 1:2-5*100 0:6-6", want: "9:1-1 1:2-5 0:6-6", head: "0:6-6"},
		{name: "or much is not", objects: "9:1-1*19990 9:1-5*20000 1:2-5*100 0:6-6", want: "9:1-5 0:6-6", head: "0:6-6"},
		{name: "two requests weigh 128 KiB", objects: "9:1-1 0:2-2 0:3-3 0:4-4 1:2-4*127", want: "9:1-1 1:2-4", head: "0:4-4"},
		{name: "and no more", objects: "9:1-1 0:2-2 0:3-3 0:4-4 1:2-4*129", want: "9:1-1 0:2-2 0:3-3 0:4-4", head: "0:4-4"},
		{name: "a merge that begins before", objects: "9:1-5*1000 2:3-9*100 1:6-9*300", want: "9:1-5 2:3-9", head: "2:3-9"},
		{name: "in the past", objects: "9:1-1 0:2-2 0:3-3 9:1-4", txid: 3, want: "9:1-1 0:2-2 0:3-3", head: "0:3-3"},
		{name: "before a gap", objects: "9:1-3 0:4-4 0:7-7", txid: 4, want: "9:1-3 0:4-4", head: "0:4-4"},
		{name: "between a gap and what makes up for it", objects: "9:1-3 0:4-4 0:7-7 9:1-8", txid: 7, err: history.ErrGap, says: "5 to 0000000000000006 are missing; what can be restored ends before them at 0000000000000004 and goes on at 0000000000000008"},
		{name: "inside a merge", objects: "9:1-3 1:4-9 1:10-20", txid: 12, err: history.ErrNoPoint, says: "nearest that can be restored are 0000000000000009 and 0000000000000014"},
		{name: "left over inside a merge", objects: "9:1-3 1:4-9 0:6-6 1:10-20", txid: 6, err: history.ErrNoPoint, says: "inside merged files"},
		{name: "not there yet", objects: "9:1-3 1:4-9", txid: 10, err: history.ErrNoPoint, says: "newest that can be restored is 0000000000000009"},
		{name: "too old", objects: "9:1-3 1:4-9 0:1-2*1", txid: 1, err: history.ErrNoPoint, says: "oldest that can be restored is 0000000000000002"},
		{name: "the last TXID of all", objects: "9:1-3 1:2-18446744073709551615", txid: 1<<64 - 1, want: "9:1-3 1:2-18446744073709551615", head: "1:2-18446744073709551615"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := parse(t, c.objects)
			p, err := h.Plan(c.txid)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %q does not say %q", err, c.says)
				}
				return
			}
			if got := format(p.Files...); got != c.want {
				t.Errorf("plan %s, want %s", got, c.want)
			}
			if got := format(p.Head); got != c.head {
				t.Errorf("head %s, want %s", got, c.head)
			}
			for _, level := range h.Levels {
				slices.Reverse(level)
			}
			if p, _ := h.Plan(c.txid); format(p.Files...) != c.want {
				t.Errorf("plan of the reverse %s, want %s", format(p.Files...), c.want)
			}
		})
	}
}

// parse reads objects as "level:min-max*KiB".
func parse(t testing.TB, s string) *history.History {
	t.Helper()
	h := new(history.History)
	for _, f := range strings.Fields(s) {
		var o objstore.Object
		f, kib, _ := strings.Cut(f, "*")
		if _, err := fmt.Sscanf(f, "%d:%d-%d", &o.Level, (*uint64)(&o.Min), (*uint64)(&o.Max)); err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(kib, &o.Size)
		o.Size *= 1024
		h.Levels[o.Level] = append(h.Levels[o.Level], o)
	}
	return h
}

func format(all ...objstore.Object) string {
	var s []string
	for _, o := range all {
		s = append(s, fmt.Sprintf("%d:%d-%d", o.Level, uint64(o.Min), uint64(o.Max)))
	}
	return strings.Join(s, " ")
}

// TestPlanIsCheapest holds plans of random files against the definition, carried
// out over all positions and all files.
func TestPlanIsCheapest(t *testing.T) {
	const maxTXID = 24
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		h := new(history.History)
		for range 1 + rng.IntN(40) {
			lo := ltx.TXID(1 + rng.IntN(maxTXID))
			if rng.IntN(5) == 0 {
				lo = 1
			}
			hi := min(maxTXID, lo+ltx.TXID(rng.IntN(1+rng.IntN(8))))
			level := rng.IntN(history.Levels)
			h.Levels[level] = append(h.Levels[level], objstore.Object{Level: level, Min: lo, Max: hi, Size: rng.Int64N(300 << 10)})
		}
		const weight = 64 << 10
		cost := [maxTXID + 1]int64{0}
		for at := 1; at <= maxTXID; at++ {
			cost[at] = 1 << 60
			for _, o := range h.Objects() {
				for from := 0; from < at && o.Max == ltx.TXID(at); from++ {
					if ltx.TXID(from) >= o.Min-1 {
						cost[at] = min(cost[at], cost[from]+o.Size+weight)
					}
				}
			}
		}
		var points []ltx.TXID
		for at := ltx.TXID(1); at <= maxTXID; at++ {
			p, err := h.Plan(at)
			if cost[at] >= 1<<60 {
				if !errors.Is(err, history.ErrGap) && !errors.Is(err, history.ErrNoPoint) {
					t.Fatalf("seed %d: plan to %d in %s: %v, %v", seed, at, format(h.Objects()...), format(p.Files...), err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("seed %d: plan to %d in %s: %v", seed, at, format(h.Objects()...), err)
			}
			points = append(points, at)
			var have ltx.TXID
			for _, o := range p.Files {
				if o.Min > have+1 || o.Max <= have || o.Min == 1 && have > 0 {
					t.Fatalf("seed %d: %s does not lead to %d", seed, format(p.Files...), at)
				}
				have = o.Max
			}
			if got := p.Size() + weight*int64(len(p.Files)); have != at || got != cost[at] || p.TXID() != at {
				t.Fatalf("seed %d: %s costs %d, the cheapest to %d %d", seed, format(p.Files...), got, at, cost[at])
			}
		}
		if got := h.Points(); !slices.Equal(got, points) {
			t.Fatalf("seed %d: points %v, want %v", seed, got, points)
		}
	}
}

func TestPlanOfManyObjects(t *testing.T) {
	h := many(100_000)
	p, err := h.Plan(0)
	if err != nil || len(p.Files) != 100_000 {
		t.Fatalf("%d files, %v", len(p.Files), err)
	}
	h.Levels[3] = []objstore.Object{{Level: 3, Min: 2, Max: 100_000, Size: 1 << 30}}
	if p, err = h.Plan(0); err != nil || format(p.Files...) != "9:1-1 3:2-100000" {
		t.Fatalf("%d files, %v", len(p.Files), err)
	}
}

func many(n int) *history.History {
	h := new(history.History)
	h.Levels[9] = []objstore.Object{{Level: 9, Min: 1, Max: 1, Size: 1 << 20}}
	for i := 2; i <= n; i++ {
		h.Levels[0] = append(h.Levels[0], objstore.Object{Min: ltx.TXID(i), Max: ltx.TXID(i), Size: 4096})
	}
	return h
}

func BenchmarkPlanOf100000(b *testing.B) {
	h := many(100_000)
	for b.Loop() {
		if _, err := h.Plan(0); err != nil {
			b.Fatal(err)
		}
	}
}

func TestGaps(t *testing.T) {
	for _, c := range []struct{ objects, want string }{
		{"", "[]"},
		{"9:1-1 0:2-2 1:3-9", "[]"},
		{"0:5-5 0:9-9", "[{1 4}]"},
		{"9:1-3 0:4-4 0:7-7 0:8-8", "[{5 6}]"},
		{"9:1-3 0:4-4 0:7-7 0:8-8 9:1-12 0:13-13", "[{5 6}]"},
		{"9:1-3 0:7-7 0:10-10 1:9-11", "[{4 6} {8 8}]"},
		{"9:1-10 1:2-10 0:10-10 0:5-5 2:2-3", "[]"}, // kept beside and below what is merged
		{"9:1-10 9:1-90 0:91-91", "[]"},             // retention took what was between
		{"9:1-100 2:50-60 0:101-101", "[]"},         // the newest of its level, older than the history
		{"9:1-4 1:5-20 0:9-9 0:10-10", "[]"},
	} {
		if got := fmt.Sprint(decimal(parse(t, c.objects).Gaps())); got != c.want {
			t.Errorf("%s: %s, want %s", c.objects, got, c.want)
		}
	}
}

func decimal(gaps []history.Gap) (d []struct{ from, to uint64 }) {
	for _, g := range gaps {
		d = append(d, struct{ from, to uint64 }{uint64(g.From), uint64(g.To)})
	}
	return d
}
