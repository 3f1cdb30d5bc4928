package crash

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/crash/trap"
)

func TestAProcessDiesAtTheStepThatWasChosen(t *testing.T) {
	for _, a := range []trap.Action{
		{Kind: trap.Write, File: trap.WAL, N: 5, How: trap.Half},
		{Kind: trap.Sync, File: trap.Ledger, N: 2, How: trap.Before},
		{Kind: trap.Link, File: trap.Replica, N: 1, How: trap.After},
		{Kind: trap.Unlock, File: trap.Shm, N: 9, How: trap.After},
		{Kind: trap.Unlink, File: trap.WAL, N: 1, How: trap.Before},
		{Kind: trap.Store, File: trap.Ledger, N: 20, M: 3},
	} {
		l, err := newLife(1, t.TempDir(), false, func(string, int) {})
		if err != nil {
			t.Fatal(err)
		}
		defer l.oracle.c.close()
		o := l.orders()
		o.Actions, o.Plain, o.Conns, o.Steps = []trap.Action{a}, true, 1, 10
		p, err := l.start(o, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		<-p.done
		n := a.N + a.M
		if a.Kind == trap.Store {
			n = a.M
		}
		want := fmt.Sprintf("killed %d %d %d %d", a.Kind, a.File, n, a.How)
		if !p.status().Signaled() || !slices.Contains(p.lines, want) {
			t.Errorf("%v: %s: %s", a, status2text(p.status()), strings.Join(p.lines, "; "))
		}
	}
}

func TestADiskKeepsWhatWasSynced(t *testing.T) {
	sector := func(c string) []byte { return []byte(strings.Repeat(c, sectorSize)) }
	wrote := func(at int, c string) trap.Change {
		return trap.Change{Type: trap.Wrote, File: trap.WAL, Ino: 7, Off: int64(at * sectorSize), Data: sector(c)}
	}
	of := func(t trap.Type) trap.Change { return trap.Change{Type: t, File: trap.WAL, Ino: 7} }
	content := func(mode int, changes ...trap.Change) (text string) {
		d := &disk{files: map[uint64]*diskFile{}, names: map[trap.File]uint64{}, durable: map[trap.File]uint64{}}
		d.follow(changes)
		b, ok := d.cut(rand.New(rand.NewPCG(1, 1)), mode).content[trap.WAL]
		if !ok {
			return "none"
		}
		for ; len(b) > 0; b = b[sectorSize:] {
			text += string(b[:1])
		}
		return strings.ReplaceAll(text, "\x00", "0")
	}
	made, synced, gone := of(trap.Created), of(trap.Synced), of(trap.Deleted)
	dir := trap.Change{Type: trap.DirSynced, File: trap.Dir}
	short := trap.Change{Type: trap.CutTo, File: trap.WAL, Ino: 7, Off: sectorSize}
	for _, c := range []struct {
		changes             []trap.Change
		nothing, everything string
	}{
		{[]trap.Change{made}, "none", ""},
		{[]trap.Change{made, wrote(0, "a")}, "none", "a"},
		{[]trap.Change{made, wrote(0, "a"), synced}, "a", "a"},
		{[]trap.Change{made, dir, wrote(0, "a")}, "", "a"},
		{[]trap.Change{made, wrote(0, "a"), synced, wrote(0, "b"), wrote(2, "c")}, "a", "b0c"},
		{[]trap.Change{made, wrote(0, "a"), wrote(1, "b"), synced, short}, "ab", "a"},
		{[]trap.Change{made, wrote(0, "a"), synced, gone}, "a", "none"},
		{[]trap.Change{made, wrote(0, "a"), synced, gone, dir}, "none", "none"},
	} {
		if got := content(nothing, c.changes...); got != c.nothing {
			t.Errorf("%v: with nothing that was not synced %q, want %q", c.changes, got, c.nothing)
		}
		if got := content(everything, c.changes...); got != c.everything {
			t.Errorf("%v: with everything %q, want %q", c.changes, got, c.everything)
		}
	}
	seen := map[string]bool{}
	d := &disk{files: map[uint64]*diskFile{}, names: map[trap.File]uint64{}, durable: map[trap.File]uint64{}}
	d.follow([]trap.Change{made, wrote(0, "a"), wrote(1, "a"), synced, wrote(0, "b"), wrote(1, "b")})
	r := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		b := d.cut(r, mixture).content[trap.WAL]
		seen[string(b[:1])+string(b[sectorSize:sectorSize+1])] = true
	}
	if len(seen) != 4 {
		t.Errorf("a mixture gave %v, want every one of four", seen)
	}
}
