package restore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		objects string // level:min-max, decimal
		want    string
		head    string
		err     error
		says    string
	}{
		{name: "empty", err: ErrNothing},
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
		{name: "gap", objects: "9:1-3 0:4-4 0:7-7 0:8-8", err: ErrGap, says: "0000000000000005 to 0000000000000006 are missing; the newest that can be restored is 0000000000000004"},
		{name: "gap behind level 1", objects: "9:1-3 1:5-9", err: ErrGap, says: "0000000000000004 to 0000000000000004"},
		{name: "gap bridged by a merge", objects: "9:1-3 0:4-4 0:7-7 1:4-6", want: "9:1-3 1:4-6 0:7-7", head: "0:7-7"},
		{name: "no snapshot", objects: "0:5-5 0:6-6", err: ErrGap, says: "0000000000000001 to 0000000000000004 are missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newMemStore()
			for _, o := range parseObjects(t, c.objects) {
				s.objects[keyOf(o)] = nil
			}
			files, err := Plan(background, s)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), s.String()) {
					t.Errorf("error %q does not say %q and where", err, c.says)
				}
				return
			}
			if got := formatObjects(files...); got != c.want {
				t.Errorf("plan %s, want %s", got, c.want)
			}
			all, _ := list(background, s)
			slices.Reverse(all)
			p, _ := choose(all)
			if got := formatObjects(p.files...); got != c.want {
				t.Errorf("plan of the reverse %s, want %s", got, c.want)
			}
			if got := formatObjects(p.head); got != c.head {
				t.Errorf("head %s, want %s", got, c.head)
			}
		})
	}
}

func parseObjects(t *testing.T, s string) (all []objstore.Object) {
	for _, f := range strings.Fields(s) {
		var level int
		var lo, hi ltx.TXID
		if _, err := fmt.Sscanf(f, "%d:%d-%d", &level, &lo, &hi); err != nil {
			t.Fatal(err)
		}
		all = append(all, objstore.Object{Level: level, Min: lo, Max: hi})
	}
	return all
}

func formatObjects(all ...objstore.Object) string {
	var s []string
	for _, o := range all {
		s = append(s, fmt.Sprintf("%d:%d-%d", o.Level, uint64(o.Min), uint64(o.Max)))
	}
	return strings.Join(s, " ")
}
