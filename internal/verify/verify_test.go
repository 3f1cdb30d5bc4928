package verify

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// made is a history at random: states, merges, snapshots, retention.
func made(t *testing.T, r *rand.Rand, n, version int) *histtest.Source {
	src := histtest.New(t, 512<<r.IntN(4), fmt.Sprintf("PRAGMA auto_vacuum=%d", r.IntN(3)), fmt.Sprintf("PRAGMA user_version=%d", version))
	src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	src.Ship()
	from := ltx.TXID(2)
	for range n {
		src.Exec("INSERT INTO t(b) VALUES(randomblob(?)), (randomblob(50))", r.IntN(3000))
		switch r.IntN(8) {
		case 0:
			src.Exec("DELETE FROM t WHERE id % 2 = 0")
			src.Exec("PRAGMA incremental_vacuum")
		case 1:
			src.Exec("VACUUM")
		}
		src.Ship()
		switch r.IntN(9) {
		case 0, 1:
			src.Put(1+r.IntN(2), from, src.TXID)
			if r.IntN(2) == 0 {
				src.Remove(0, src.TXID-ltx.TXID(r.IntN(4)))
			}
			from = src.TXID + 1
		case 2:
			src.Put(objstore.SnapshotLevel, 1, src.TXID)
		}
	}
	return src
}

func verify(t *testing.T, src *histtest.Source, quick bool) *Report {
	t.Helper()
	dir := t.TempDir()
	r, err := Verify(t.Context(), src.Store, Options{Quick: quick, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	return r
}

// restores holds the newest state that a report offers against what was recorded.
func restores(t *testing.T, src *histtest.Source, r *Report) {
	t.Helper()
	if r.Restore == nil {
		return
	}
	out := filepath.Join(t.TempDir(), "out.db")
	if _, err := restore.Restore(t.Context(), r.Hide(src.Store), out, restore.Options{Target: history.Target{TXID: r.Restore.TXID}}); err != nil {
		t.Errorf("restore of TXID %s, which was offered: %v", r.Restore.TXID, err)
		return
	}
	got, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(got, src.State[r.Restore.TXID].Bytes()) {
		t.Errorf("TXID %s is not as it was, %v", r.Restore.TXID, err)
	}
	if want := src.State[r.Restore.TXID].Time; !r.Restore.Time.Equal(want) {
		t.Errorf("TXID %s is of %s, not of %s", r.Restore.TXID, want, r.Restore.Time)
	}
}

func rounds(n int) uint64 {
	if v, err := strconv.Atoi(os.Getenv("WALFERRY_ROUNDS")); err == nil {
		return uint64(v)
	}
	return uint64(n)
}

func TestASoundReplicaHasNoFindings(t *testing.T) {
	for seed := range rounds(6) {
		src := made(t, rand.New(rand.NewPCG(seed, 1)), 25, 0)
		r := verify(t, src, seed%4 != 0)
		if !r.Sound || r.Restore == nil || r.Restore.TXID != src.TXID || r.Newest.TXID != src.TXID || r.States != r.Proven || r.Bytes == 0 {
			t.Errorf("seed %d: %+v", seed, r)
		}
		restores(t, src, r)
	}
}

func TestWithoutChecksumsItStillCompares(t *testing.T) {
	for seed := range rounds(3) {
		r := rand.New(rand.NewPCG(seed, 2))
		src := made(t, r, 10, 0)
		src.Sums = false
		for range 8 {
			src.Exec("INSERT INTO t(b) VALUES(randomblob(700))")
			src.Ship()
		}
		if rep := verify(t, src, true); !rep.Sound || len(rep.Notes) == 0 || !strings.Contains(strings.Join(rep.Notes, "\n"), "carry no checksum") {
			t.Errorf("seed %d: %+v", seed, rep)
		}
		// A merge of another state than its objects lead to.
		last := src.State[src.TXID]
		wrong := last
		wrong.Pages = slices.Clone(last.Pages)
		i := len(wrong.Pages) - 1
		wrong.Pages[i] = bytes.Repeat([]byte("?"), int(last.PageSize))
		src.State[src.TXID] = wrong
		src.Put(2, src.TXID-3, src.TXID)
		src.State[src.TXID] = last
		if rep := verify(t, src, true); rep.Sound || rep.Findings[0].Kind != Different {
			t.Errorf("seed %d: %+v", seed, rep)
		}
	}
}

// damage is one kind of it. It returns the objects that cannot be used any more,
// nil if it could not be done; sure is false where what is left does not tell which of
// several objects it was.
type damage struct {
	name string
	do   func(r *rand.Rand, src *histtest.Source, other *histtest.Source) (bad []objstore.Object, sure bool)
}

func pick(r *rand.Rand, src *histtest.Source) objstore.Object {
	all := src.Objects()
	return all[r.IntN(len(all))]
}

func rewrite(src *histtest.Source, o objstore.Object, change func(b []byte) []byte) {
	b, err := os.ReadFile(src.File(o))
	if err == nil {
		err = os.WriteFile(src.File(o), change(b), 0o600)
	}
	if err != nil {
		src.T.Fatal(err)
	}
}

var damages = []damage{
	{"bit flip", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		o := pick(r, src)
		rewrite(src, o, func(b []byte) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b })
		return []objstore.Object{o}, true
	}},
	{"truncation", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		o := pick(r, src)
		rewrite(src, o, func(b []byte) []byte { return b[:r.IntN(len(b))] })
		return []objstore.Object{o}, true
	}},
	{"something appended", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		o := pick(r, src)
		rewrite(src, o, func(b []byte) []byte { return append(b, make([]byte, 1+r.IntN(500))...) })
		return []objstore.Object{o}, true
	}},
	{"swapped names", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		a, b := pick(r, src), pick(r, src)
		if a.Min == b.Min && a.Max == b.Max {
			return nil, false
		}
		tmp := src.File(a) + ".tmp"
		for _, move := range [][2]string{{src.File(a), tmp}, {src.File(b), src.File(a)}, {tmp, src.File(b)}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				src.T.Fatal(err)
			}
		}
		return []objstore.Object{a, b}, true
	}},
	{"a copy under another name", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		o := pick(r, src)
		b, err := os.ReadFile(src.File(o))
		if err != nil {
			src.T.Fatal(err)
		}
		o.Level, o.Min, o.Max = 3, src.TXID+1, src.TXID+2
		_ = os.MkdirAll(filepath.Dir(src.File(o)), 0o700)
		if err := os.WriteFile(src.File(o), b, 0o600); err != nil {
			src.T.Fatal(err)
		}
		return []objstore.Object{o}, true
	}},
	{"an object of another database", foreign},
	{"an object of another page size", func(r *rand.Rand, src, _ *histtest.Source) ([]objstore.Object, bool) {
		size := 8192
		other := histtest.New(src.T, size)
		other.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
		for other.TXID < src.TXID {
			other.Exec("INSERT INTO t(b) VALUES(randomblob(9000))")
			other.Ship()
		}
		return foreign(r, src, other)
	}},
}

// foreign puts another history's object in the place of one, with the checksum that it
// has there.
func foreign(r *rand.Rand, src, other *histtest.Source) ([]objstore.Object, bool) {
	o := pick(r, src)
	if err := os.Remove(src.File(o)); err != nil {
		src.T.Fatal(err)
	}
	theirs, b, m := other.Object(o.Level, o.Min, o.Max)
	if err := src.Store.Create(src.T.Context(), theirs, bytes.NewReader(b), m, nil); err != nil {
		src.T.Fatal(err)
	}
	return []objstore.Object{o}, false
}

func TestPlantedDamageIsFound(t *testing.T) {
	for seed := range rounds(21) {
		r := rand.New(rand.NewPCG(seed, 3))
		d := damages[seed%uint64(len(damages))]
		t.Run(fmt.Sprintf("%d/%s", seed, d.name), func(t *testing.T) {
			src := made(t, r, 10+r.IntN(10), 0)
			var other *histtest.Source
			if strings.Contains(d.name, "another database") {
				other = made(t, rand.New(rand.NewPCG(seed, 4)), int(src.TXID), 1)
			}
			bad, sure := d.do(r, src, other)
			if bad == nil {
				return
			}
			rep := verify(t, src, seed%8 != 0)
			if rep.Sound {
				t.Fatalf("nothing was found of %v", bad)
			}
			var named []string
			for _, x := range rep.Findings {
				named = append(named, x.Objects...)
				if x.Since == 0 || x.Time.IsZero() || x.Text == "" {
					t.Errorf("finding %+v", x)
				}
			}
			for _, o := range bad {
				if !slices.Contains(named, o.String()) {
					t.Errorf("%s is not named in %q", o, named)
				}
			}
			if sure && len(named) != len(bad) {
				t.Errorf("%q are named, %v are damaged", named, bad)
			}
			// What is left of the truth.
			h, err := history.List(t.Context(), src.Store)
			if err != nil {
				t.Fatal(err)
			}
			gone := map[key]bool{}
			for _, o := range bad {
				gone[keyOf(o)] = true
			}
			want := ltx.TXID(0)
			if points := without(h, gone).Points(); len(points) > 0 {
				want = points[len(points)-1]
			}
			got := ltx.TXID(0)
			if rep.Restore != nil {
				got = rep.Restore.TXID
			}
			if got > want || sure && got != want {
				t.Errorf("TXID %s is offered, %s can be restored: %+v", got, want, rep.Findings)
			}
			restores(t, src, rep)
		})
	}
}

func TestMissingFilesAreFound(t *testing.T) {
	for seed := range rounds(8) {
		r := rand.New(rand.NewPCG(seed, 5))
		src := made(t, r, 12, 0)
		before, _ := history.List(t.Context(), src.Store)
		o := pick(r, src)
		if err := os.Remove(src.File(o)); err != nil {
			t.Fatal(err)
		}
		rep := verify(t, src, true)
		after := without(before, map[key]bool{keyOf(o): true})
		gaps, points := after.Gaps(), after.Points()
		if rep.Sound != (len(gaps) == 0 && len(points) > 0) {
			t.Errorf("seed %d: without %s: %+v", seed, o, rep)
		}
		for i, g := range gaps {
			if x := rep.Findings[i]; x.Kind != Missing || x.Since != g.From || x.Time.IsZero() && g.From > 1 {
				t.Errorf("seed %d: %+v", seed, x)
			}
		}
		if len(points) > 0 && rep.Restore.TXID != points[len(points)-1] {
			t.Errorf("seed %d: %+v", seed, rep.Restore)
		}
		restores(t, src, rep)
	}
}

// The files are what was written; what was written was damaged.
func TestADamagedDatabaseIsFound(t *testing.T) {
	src := histtest.New(t, 1024)
	src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	src.Exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t(b) SELECT randomblob(90) FROM n")
	src.Ship()
	src.Exec("UPDATE sqlite_dbpage SET data=randomblob(1024) WHERE pgno=9")
	src.Ship()
	if r := verify(t, src, true); !r.Sound {
		t.Errorf("%+v", r)
	}
	r := verify(t, src, false)
	if r.Sound || r.Checked != "damaged" || r.Findings[0].Kind != Unsound || r.Restore.TXID != 2 {
		t.Errorf("%+v", r)
	}
}
