package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

var update = flag.Bool("update", false, "rewrite testdata")

// pastReplica is a directory with the files of a replica: whole headers, and as
// many zeros as an object of that kind may have bytes.
type pastReplica struct {
	t   *testing.T
	dir string
}

func newPastReplica(t *testing.T) *pastReplica { return &pastReplica{t, t.TempDir()} }

func (r *pastReplica) put(level int, lo, hi uint64, at time.Time, size int64) {
	r.t.Helper()
	o := objstore.Object{Level: level, Min: ltx.TXID(lo), Max: ltx.TXID(hi)}
	head := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: o.Min, MaxTXID: o.Max, Timestamp: at.UnixMilli()}
	b, err := head.MarshalBinary()
	if err != nil {
		r.t.Fatal(err)
	}
	path := filepath.Join(r.dir, "ltx", fmt.Sprint(level), o.Name())
	for _, err := range []error{
		os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600), os.Truncate(path, max(size, int64(len(b)))), os.Chtimes(path, at, at),
	} {
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *pastReplica) list() *history.History {
	r.t.Helper()
	store, err := objstore.New("file://"+r.dir, objstore.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	h, err := history.List(r.t.Context(), store)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// week is a replica as the defaults leave it after a week with a retention of a week:
// a transaction a second by day, none at night.
func week(r *pastReplica, end time.Time) {
	begin := end.Add(-7 * 24 * time.Hour)
	var txid, seconds uint64
	last := map[int]uint64{1: 1, 2: 1, 3: 1}
	level := []struct {
		every, keep uint64
	}{{1, 300}, {30, 24 * 3600}, {300, 7 * 24 * 3600}, {3600, 7 * 24 * 3600}}
	total := uint64(7 * 24 * 3600)
	for ; seconds <= total; seconds++ {
		at := begin.Add(time.Duration(seconds) * time.Second)
		if h := at.Hour(); h >= 7 && h < 22 && seconds%2 == 0 {
			txid++
			if txid == 1 {
				r.put(9, 1, 1, at, 180e6)
			} else if total-seconds <= level[0].keep {
				r.put(0, txid, txid, at, 1500)
			}
		}
		for l := 1; l <= 3; l++ {
			if every := level[l].every; seconds%every == 0 && txid > last[l] {
				if l < 2 && total-seconds <= 3*3600 || l == 2 && total-seconds <= 24*3600 || l == 3 {
					r.put(l, last[l]+1, txid, at, int64(txid-last[l])*700)
				}
				last[l] = txid
			}
		}
		if seconds%86400 == 50000 && txid > 1 {
			r.put(9, 1, txid, at, 180e6+int64(seconds)*20)
		}
	}
}

func TestLs(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	end := time.Date(2026, 1, 20, 15, 4, 5, 0, zone)
	minutes := func(n float64) time.Time { return end.Add(time.Duration(n * float64(time.Minute))) }
	mark := func(h *history.History, name string, txid ltx.TXID, at time.Time) {
		h.Marks = append(h.Marks, objstore.Mark{Name: name, TXID: txid, Time: at})
	}
	for _, c := range []struct {
		name  string
		price *prices
		make  func(r *pastReplica)
		marks func(h *history.History)
	}{
		{name: "empty", price: &standard},
		{name: "first", price: &standard, make: func(r *pastReplica) { r.put(9, 1, 1, end, 4096) }},
		{name: "young", price: &standard, make: func(r *pastReplica) {
			r.put(9, 1, 1, minutes(-1), 52e3)
			for i := range uint64(50) {
				r.put(0, 2+i, 2+i, minutes(-1+float64(i)/50), 2e3)
			}
		}},
		{name: "week", price: &standard, make: func(r *pastReplica) { week(r, end) }, marks: func(h *history.History) {
			points := h.Points()
			mark(h, "before migration", points[10], minutes(-6*24*60))
			mark(h, "release 1.2", points[len(points)/2], minutes(-2*24*60))
			mark(h, "Überprüfung\u202e 🧪", points[len(points)-2], minutes(-2))
			mark(h, "too old", 77, minutes(-1))
		}},
		{name: "gaps", make: func(r *pastReplica) {
			r.put(9, 1, 1, minutes(-90), 52e6)
			for i := range uint64(30) {
				if i/8 != 1 {
					r.put(1, 2+10*i, 11+10*i, minutes(-90+3*float64(i)), 20e3)
				}
			}
			r.put(9, 1, 200, minutes(-40), 53e6)
			for i := range uint64(10) {
				if i != 7 {
					r.put(0, 302+i, 302+i, minutes(-1+float64(i)/10), 2e3)
				}
			}
		}},
		{name: "nothing", make: func(r *pastReplica) {
			r.put(1, 20, 29, minutes(-90), 52e6)
			r.put(0, 30, 30, minutes(-80), 2e3)
		}},
		{name: "years", price: &prices{0.01, 0}, make: func(r *pastReplica) {
			for i := range uint64(100) {
				r.put(9, 1, 1+i*1000, end.AddDate(0, 0, -10*(99-int(i))), 52e9)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newPastReplica(t)
			if c.make != nil {
				c.make(r)
			}
			h := r.list()
			if c.marks != nil {
				c.marks(h)
			}
			s, err := survey(t.Context(), h, "s3://bucket/app", c.price)
			if err != nil {
				t.Fatal(err)
			}
			got := s.text(minutes(0.2))
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 || strings.HasSuffix(line, " \n") {
					t.Errorf("%d columns: %q", n, line)
				}
			}
			recorded(t, filepath.Join("testdata", "ls", c.name+".txt"), got)
		})
	}
}

// recorded holds text against a file, or rewrites that.
func recorded(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		for _, err := range []error{os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(got), 0o644)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it):\n%s", file, got)
	}
}

func TestLsJSON(t *testing.T) {
	r := newPastReplica(t)
	at := time.Date(2026, 1, 20, 15, 4, 5, 123e6, time.UTC)
	r.put(9, 1, 1, at, 5000)
	r.put(0, 2, 2, at.Add(time.Minute), 200)
	r.put(0, 4, 4, at.Add(2*time.Minute), 200)
	store, err := objstore.New("file://"+r.dir, objstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutMark(t.Context(), objstore.Mark{Name: "a", TXID: 2, Time: at}); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := walferry("ls", "-json", "-price", "1,2", "file://"+r.dir)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if !json.Valid([]byte(out)) {
		t.Fatalf("no JSON: %s", out)
	}
	recorded(t, filepath.Join("testdata", "ls", "json.txt"), strings.ReplaceAll(out, r.dir, "/replica"))

	code, out, _ = walferry("ls", "-json", "file://"+t.TempDir())
	recorded(t, filepath.Join("testdata", "ls", "json-empty.txt"), strings.NewReplacer(urlOf(out), "file:///replica").Replace(out))
	if code != 0 {
		t.Errorf("exit %d of an empty place", code)
	}
}

func urlOf(out string) string {
	var r struct{ Replica string }
	_ = json.Unmarshal([]byte(out), &r)
	return r.Replica
}

func TestLsUsage(t *testing.T) {
	for _, args := range [][]string{{"ls"}, {"ls", "-price", "1", "file:///x"}, {"ls", "-price", "a,b", "file:///x"}, {"ls", "-price", "-1,2", "file:///x"},
		{"ls", "-price", "NaN,2", "file:///x"}, {"ls", "file:///x", "file:///y"}, {"ls", "-what", "file:///x"}} {
		if code, out, stderr := walferry(args...); code != exitUsage || out != "" || !strings.Contains(stderr, "ls") {
			t.Errorf("%v: exit %d, %q, %q", args, code, out, stderr)
		}
	}
	if code, _, stderr := walferry("ls", "http://x/y"); code != exitFailure || !strings.Contains(stderr, "file:///dir") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
