package history_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// In these cases an object has the time of its Max, in minutes, and a mark of its TXID.
func TestExpired(t *testing.T) {
	const chain = "9:1-1 0:2-2 0:3-3 0:4-4 0:5-5 0:6-6 1:2-3 1:4-5 "
	for _, c := range []struct {
		name    string
		objects string
		marks   []uint64
		now     int // minutes
		limits  string
		want    string
		marksGo int
	}{
		{name: "empty", limits: "1h"},
		{name: "level 0 when merged and old", objects: chain, now: 8, limits: "1h", want: "0:2-2"},
		{name: "newest of level 0 stays", objects: chain, now: 100, limits: "99h", want: "0:2-2 0:3-3 0:4-4 0:5-5"},
		{name: "level 0 that is not merged stays", objects: "9:1-1 0:2-2 0:3-3 0:4-4 9:1-4", now: 100, limits: "99h", want: ""},
		{name: "nothing without a snapshot that old", objects: "9:1-50 0:1-1 1:2-40 1:41-50", now: 100, limits: "1h", want: ""},
		{name: "base", objects: "9:1-10 1:5-10 9:1-30 1:11-30 9:1-50 1:31-50 0:51-51", now: 100, limits: "1h", want: "1:5-10 9:1-10 1:11-30"},
		{name: "base as old as the retention", objects: "9:1-10 9:1-30 9:1-50 1:31-50", now: 111, limits: "1h", want: "9:1-10 9:1-30"},
		{name: "newest of each level stays", objects: "9:1-10 1:2-9 2:2-8 3:2-7 1:2-3 9:1-20 0:21-21", now: 1000, limits: "1h", want: "1:2-3 9:1-10"},
		{name: "level 0 before the base waits", objects: "9:1-1 0:2-2 0:3-3 9:1-3", now: 4, limits: "1s", want: "9:1-1"},
		{name: "and then goes", objects: "9:1-1 0:2-2 0:3-3 9:1-3", now: 80, limits: "1h", want: "9:1-1 0:2-2"},
		{name: "gap: nothing goes", objects: "9:1-10 9:1-20 0:25-25", now: 1000, limits: "1h", want: ""},
		{name: "a gap that a snapshot has mended", objects: "9:1-10 0:12-12 9:1-20 0:21-21", now: 1000, limits: "1h", want: "9:1-10 0:12-12"},
		{name: "no limit", objects: "9:1-10 9:1-20 0:21-21", now: 1e6, limits: "", want: ""},

		{name: "mark", objects: "9:1-10 1:11-15 0:15-15 0:16-16 0:17-17 1:16-20 9:1-20 0:21-21 1:21-21", marks: []uint64{16}, now: 1000, limits: "1h", want: "0:15-15 0:17-17 1:16-20"},
		{name: "mark takes the least", objects: "9:1-10*9 1:11-15*1 9:1-15*999 0:16-16 1:16-20 9:1-20 0:21-21", marks: []uint64{15}, now: 1000, limits: "1h", want: "9:1-15 0:16-16"},
		{name: "expired mark", objects: "9:1-10 0:11-11 9:1-20 1:19-20 0:21-21", marks: []uint64{11}, now: 200 * 60, limits: "1h", want: "9:1-10 0:11-11", marksGo: 1},
		{name: "marks of what is gone", objects: "9:1-10 9:1-20 0:21-21", marks: []uint64{5, 15, 99}, now: 1000, limits: "1h", want: "9:1-10"},

		{name: "size moves the base", objects: "9:1-10*10 9:1-20*10 9:1-30*10 0:31-31*1", now: 40, limits: "99h,25KiB", want: "9:1-10"},
		{name: "size moves it to the end", objects: "9:1-10*10 9:1-20*10 9:1-30*10 0:31-31*1", now: 40, limits: "99h,5KiB", want: "9:1-10 9:1-20"},
		{name: "size thins", objects: "9:1-1*5 1:2-5*5 1:6-9*5 2:2-9*7 1:10-11*5 1:12-13*5 2:10-13*7 1:14-14 2:14-14", now: 100, limits: "30KiB", want: "1:2-5 1:6-9"},
		{name: "size thins twice", objects: "9:1-1*5 1:2-5*5 1:6-9*5 2:2-9*7 1:10-11*5 1:12-13*5 2:10-13*7 3:2-13*9 1:14-14 2:14-14 3:14-14", now: 100, limits: "15KiB",
			want: "1:2-5 1:6-9 2:2-9 1:10-11 1:12-13 2:10-13"},
		{name: "size cannot hold", objects: "9:1-10*10 1:11-12*10", now: 100, limits: "1KiB", want: ""},
		{name: "a mark's are not thinned", objects: "9:1-1*5 1:2-5*5 1:6-9*5 2:2-9*7 1:10-10 2:10-10", marks: []uint64{5}, now: 100, limits: "1KiB", want: "1:6-9"},
		{name: "points", objects: "9:1-1 1:2-3 1:4-5 1:6-7 2:2-7 0:8-8 0:9-9", now: 100, limits: "2p", want: "1:2-3 1:4-5"},
		{name: "all limits", objects: "9:1-10*10 9:1-20*10 9:1-30*10 0:31-31*1", now: 40, limits: "99h,1GB,100p", want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := parse(t, c.objects)
			start := time.UnixMilli(0)
			for _, level := range h.Levels {
				for i := range level {
					level[i].ModTime = start.Add(time.Duration(level[i].Max) * time.Minute)
				}
			}
			for _, m := range c.marks {
				h.Marks = append(h.Marks, mark(m, start.Add(time.Duration(m)*time.Minute)))
			}
			p := history.Policy{L0: 5 * time.Minute, Marks: 7 * 24 * time.Hour}
			if c.limits != "" {
				var err error
				if p.Retention, err = history.ParseLimits(c.limits); err != nil {
					t.Fatal(err)
				}
			}
			got, marks := h.Expired(p, start.Add(time.Duration(c.now)*time.Minute), 0)
			if format(got...) != c.want {
				t.Errorf("%s go, want %s", format(got...), c.want)
			}
			if want := min(c.marksGo, len(c.marks)); len(marks) != want {
				t.Errorf("marks %v go, want %d", marks, want)
			}
		})
	}
}

func mark(txid uint64, at time.Time) objstore.Mark {
	return objstore.Mark{Name: fmt.Sprint(txid), TXID: ltx.TXID(txid), Time: at}
}

func TestExpiredGoesByTheDatabasesSize(t *testing.T) {
	h := parse(t, "9:1-10*10 9:1-20*10 9:1-30*10 0:31-31*1")
	p := history.Policy{Retention: history.Limits{Times: 3}}
	for size, want := range map[int64]string{0: "", 100 << 10: "", 7 << 10: "9:1-10", 1: "9:1-10 9:1-20"} {
		if got, _ := h.Expired(p, time.Now(), size); format(got...) != want {
			t.Errorf("3 times %d: %s go, want %s", size, format(got...), want)
		}
	}
}

// An age that is not known is none.
func TestExpiredWithoutTimes(t *testing.T) {
	h := parse(t, "9:1-10 9:1-20 0:21-21 1:21-21 0:22-22")
	got, _ := h.Expired(history.Policy{Retention: history.Limits{Age: time.Second}, L0: time.Second}, time.Now(), 0)
	if len(got) != 0 {
		t.Errorf("%s go", format(got...))
	}
}
