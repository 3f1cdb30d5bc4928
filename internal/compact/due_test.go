package compact

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// noon is a slot's beginning at every level.
var noon = time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)

// parse reads "level: min-max@time, …" with times relative to noon, an hour before
// where there is none.
func parse(t *testing.T, text string) (levels [objstore.SnapshotLevel + 1][]objstore.Object) {
	t.Helper()
	for _, line := range strings.Split(text, ";") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		head, list, _ := strings.Cut(line, ":")
		var level int
		if _, err := fmt.Sscan(head, &level); err != nil {
			t.Fatal(line, err)
		}
		for _, item := range strings.Fields(list) {
			at := "-1h"
			item, when, ok := strings.Cut(item, "@")
			if ok {
				at = when
			}
			d, err := time.ParseDuration(at)
			var from, to ltx.TXID
			if _, serr := fmt.Sscanf(item, "%d-%d", &from, &to); serr != nil || err != nil {
				t.Fatal(item, serr, err)
			}
			levels[level] = append(levels[level], objstore.Object{Level: level, Min: from, Max: to, ModTime: noon.Add(d)})
		}
	}
	return levels
}

func format(jobs []Job) string {
	var parts []string
	for _, j := range jobs {
		part := fmt.Sprintf("%d:", j.Level)
		for _, o := range j.Inputs {
			part += fmt.Sprintf(" %d-%d", o.Min, o.Max)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

func TestDue(t *testing.T) {
	// What one level has is due for the next one too where that has not.
	for _, c := range []struct {
		name, levels string
		now          string // after noon; empty: noon
		want         string
	}{
		{"nothing", "", "", ""},
		{"only a snapshot", "9: 1-1", "", ""},
		{"the first", "9: 1-1; 0: 2-2 3-3 4-4", "", "1: 2-2 3-3 4-4"},
		{"all that level 1 has not", "0: 2-2 3-3 4-4 5-5; 1: 2-3", "", "1: 4-4 5-5; 2: 2-3"},
		{"all is there", "0: 2-2 3-3; 1: 2-3@1s", "1s", "2: 2-3"},
		{"level 2 from level 1", "1: 2-3 4-9", "", "2: 2-3 4-9"},
		{"each level", "0: 2-2 3-3 4-4; 1: 2-2 3-3; 2: 2-2; 3: 1-1", "", "1: 4-4; 2: 3-3; 3: 2-2"},
		{"level 0 of the first transaction", "0: 1-1 2-2", "", "1: 1-1 2-2"},

		{"once in a slot", "0: 2-2@1s 3-3@5s; 1: 2-2@1s", "6s", "2: 2-2"},
		{"and again in the next", "0: 2-2@1s 3-3@5s; 1: 2-2@1s", "30s", "1: 3-3; 2: 2-2"},
		{"a slot's first moment belongs to it", "0: 2-2 3-3; 1: 2-2@0s", "29s", "2: 2-2"},
		{"the one before does not", "0: 2-2 3-3; 1: 2-2@-1ms", "0s", "1: 3-3; 2: 2-2"},
		{"level 2 has slots of 5 minutes", "1: 2-2 3-3; 2: 2-2@1s", "299s", "3: 2-2"},
		{"level 2, next slot", "1: 2-2 3-3; 2: 2-2@1s", "300s", "2: 3-3; 3: 2-2"},
		{"level 3 has slots of an hour", "2: 2-2 3-3; 3: 2-2@1s", "59m", ""},
		{"level 3, next slot", "2: 2-2 3-3; 3: 2-2@1s", "1h", "3: 3-3"},
		{"a clock that is far ahead", "0: 2-2 3-3; 1: 2-2@24h", "", "1: 3-3; 2: 2-2"},
		{"a clock that is a little ahead", "0: 2-2 3-3; 1: 2-2@2s", "", "2: 2-2"},

		{"never across a gap", "0: 2-2 3-3 5-5 6-6 9-9", "", "1: 2-2 3-3; 1: 5-5 6-6; 1: 9-9"},
		{"a gap behind the level", "0: 7-7 8-8; 1: 2-5", "", "1: 7-7 8-8; 2: 2-5"},
		{"a gap within the level", "0: 9-9; 1: 2-3 6-8", "", "1: 9-9; 2: 2-3; 2: 6-8"},
		{"level 0 was trimmed", "0: 40-40 41-41; 1: 2-20 21-40", "", "1: 41-41; 2: 2-20 21-40"},

		{"two have compacted level 1", "0: 2-2 3-3 4-4 5-5; 1: 2-3 2-4", "", "1: 5-5; 2: 2-4"},
		{"level 1 ends where it reaches furthest", "0: 50-50 61-61; 1: 2-60 5-50", "", "1: 61-61; 2: 2-60"},
		{"one that reaches over the end", "1: 2-50 40-70; 2: 2-50", "", "2: 40-70; 3: 2-50"},
		{"the shorter of two that reach as far", "1: 2-50 40-70 51-70; 2: 2-50", "", "2: 51-70; 3: 2-50"},
		{"one within another", "1: 2-50 10-20 51-60", "", "2: 2-50 51-60"},
		{"the furthest at each step", "1: 2-10 5-30 8-20 25-40 31-35", "", "2: 2-10 5-30 25-40"},
		{"overlaps behind a gap", "1: 2-10 20-25 22-30", "", "2: 2-10; 2: 20-25 22-30"},
	} {
		now := noon
		if c.now != "" {
			d, err := time.ParseDuration(c.now)
			if err != nil {
				t.Fatal(err)
			}
			now = noon.Add(d)
		}
		if got := format(Due(parse(t, c.levels), now)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDueDependsOnNoOrder(t *testing.T) {
	levels := parse(t, "1: 31-35 2-10 25-40 8-20 5-30")
	if got := format(Due(levels, noon)); got != "2: 2-10 5-30 25-40" {
		t.Errorf("%q", got)
	}
	if format([]Job{{2, levels[1]}}) != "2: 31-35 2-10 25-40 8-20 5-30" {
		t.Error("what was given is sorted")
	}
}

// A day of writes, compacted whenever something is due: level upon level is there, each
// gap-free, and one object of a level has at most one slot.
func TestADayOfMerges(t *testing.T) {
	var levels [objstore.SnapshotLevel + 1][]objstore.Object
	txid, merges := ltx.TXID(1), map[int]int{}
	for now := noon; now.Before(noon.Add(24 * time.Hour)); now = now.Add(10 * time.Second) {
		txid++
		levels[0] = append(levels[0], objstore.Object{Min: txid, Max: txid, ModTime: now})
		for jobs := Due(levels, now); len(jobs) > 0; jobs = Due(levels, now) {
			j := jobs[0]
			o := objstore.Object{Level: j.Level, Min: j.Inputs[0].Min, Max: j.Inputs[len(j.Inputs)-1].Max, ModTime: now}
			levels[j.Level] = append(levels[j.Level], o)
			merges[j.Level]++
		}
		if len(levels[0]) > 100 { // level 1 has it, as retention makes sure
			levels[0] = levels[0][50:]
		}
	}
	for level, slots := range map[int]int{1: 24 * 120, 2: 24 * 12, 3: 24} {
		if n := merges[level]; n != slots {
			t.Errorf("level %d was merged %d times, has %d slots", level, n, slots)
		}
		have := ltx.TXID(1)
		for _, o := range levels[level] {
			if o.Min != have+1 {
				t.Fatalf("level %d goes from %s to %v", level, have, o)
			}
			have = o.Max
		}
	}
}
