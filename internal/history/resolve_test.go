package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// begin is the time of TXID 0; each TXID is a second younger.
var begin = time.UnixMilli(1767225600000) // 2026-01-01T00:00:00Z

func at(seconds float64) time.Time {
	return begin.Add(time.Duration(seconds * float64(time.Second)))
}

// put stores objects that are headers only. The time of an object is that of its Max.
func put(t testing.TB, s objstore.Store, objects string) {
	t.Helper()
	for _, o := range parse(t, objects).Objects() {
		when := at(float64(o.Max))
		head := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: o.Min, MaxTXID: o.Max, Timestamp: when.UnixMilli()}
		b, err := head.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), o, bytes.NewReader(b), objstore.Meta{Timestamp: when}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t testing.TB, s objstore.Store) *history.History {
	t.Helper()
	h, err := history.List(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func directory(t testing.TB) (objstore.Store, string, *atomic.Int64) {
	t.Helper()
	dir, n := t.TempDir(), new(atomic.Int64)
	s, err := objstore.New("file://"+dir, objstore.Options{OnRequest: func(int64) { n.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	return s, dir, n
}

func TestResolveTime(t *testing.T) {
	for _, c := range []struct {
		objects string
		time    float64 // seconds behind begin
		want    ltx.TXID
		err     error
		says    string
	}{
		{"", 1, 0, history.ErrNothing, ""},
		{"0:5-5", 9, 0, history.ErrGap, "nothing can be restored"},
		{"9:1-1 0:2-2 0:3-3", 2, 2, nil, ""},
		{"9:1-1 0:2-2 0:3-3", 2.999, 2, nil, ""},
		{"9:1-1 0:2-2 0:3-3", 3, 3, nil, ""},
		{"9:1-1 0:2-2 0:3-3", 1e6, 3, nil, ""},
		{"9:1-1 0:2-2 0:3-3", 0.5, 0, history.ErrNoPoint, "2026-01-01T00:00:01Z"},
		{"9:1-5 1:6-9 1:10-20 0:20-20 0:21-21", 4, 0, history.ErrNoPoint, "2026-01-01T00:00:05Z"},
		{"9:1-5 1:6-9 1:10-20 0:20-20 0:21-21", 8, 5, nil, ""},
		{"9:1-5 1:6-9 1:10-20 0:20-20 0:21-21", 19, 9, nil, ""},
		{"9:1-5 1:6-9 1:10-20 0:20-20 0:21-21", 20, 20, nil, ""},
		{"9:1-3 0:4-4 0:7-7 0:8-8", 5, 4, nil, ""},
		{"9:1-3 0:4-4 0:7-7 0:8-8", 7, 0, history.ErrGap, "5 to 0000000000000006 are missing"},
		{"9:1-3 0:4-4 0:7-7 0:8-8", 1e6, 0, history.ErrGap, "restored is TXID 0000000000000004"},
		{"9:1-3 0:4-4 0:7-7 0:8-8 9:1-9", 7, 0, history.ErrGap, "5 to 0000000000000006 are missing"},
		{"9:1-3 0:4-4 0:7-7 0:8-8 9:1-9", 9, 9, nil, ""},
		{"9:1-3 0:4-4 0:7-7 0:8-8 9:1-9 0:12-12", 9, 9, nil, ""},
		{"9:1-3 0:4-4 0:7-7 0:8-8 9:1-9 0:12-12", 12, 0, history.ErrGap, "a to 000000000000000b are missing"},
	} {
		s, _, _ := directory(t)
		put(t, s, c.objects)
		got, err := list(t, s).Resolve(t.Context(), history.Target{Time: at(c.time).UTC()})
		if c.err == nil && (err != nil || got != c.want) || c.err != nil && (!errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s at %v: %d, %v, want %d, %v %q", c.objects, c.time, got, err, c.want, c.err, c.says)
		}
	}
}

// A bucket tells when an object was written, and that is not when its transactions were.
func TestResolveGoesByTheHeaders(t *testing.T) {
	srv := s3test.Start(t)
	srv.Env(t)
	srv.Bucket(t, "replicas")
	s, err := objstore.New("s3://replicas/app", objstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "9:1-1 0:2-2 0:3-3 0:4-4 1:2-3 1:4-6")
	h := list(t, s)
	for seconds, want := range map[float64]ltx.TXID{1: 1, 2.5: 2, 3: 3, 5.9: 4, 6: 6, 1e9: 6} {
		if got, err := h.Resolve(t.Context(), history.Target{Time: at(seconds)}); err != nil || got != want {
			t.Errorf("at %v: %d, %v, want %d", seconds, got, err, want)
		}
	}
}

func TestResolveReadsFewHeaders(t *testing.T) {
	s, _, requests := directory(t)
	var all strings.Builder
	all.WriteString("9:1-1")
	for i := 2; i <= 400; i++ {
		fmt.Fprintf(&all, " 0:%d-%d", i, i)
	}
	put(t, s, all.String())
	h := list(t, s)
	for _, want := range []ltx.TXID{1, 2, 77, 200, 399, 400} {
		before := requests.Load()
		got, err := h.Resolve(t.Context(), history.Target{Time: at(float64(want) + 0.5)})
		if n := requests.Load() - before; err != nil || got != want || n > 24 {
			t.Errorf("%d, %v, want %d, with %d requests", got, err, want, n)
		}
	}
}

// Objects that compaction removes after the listing, and damaged ones, are no points to go to.
func TestResolveWhileObjectsGo(t *testing.T) {
	s, dir, _ := directory(t)
	put(t, s, "9:1-1 0:2-2 0:3-3 0:4-4 0:5-5 1:2-4")
	h := list(t, s)
	for _, id := range []ltx.TXID{2, 4} {
		if err := s.Remove(t.Context(), objstore.Object{Min: id, Max: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ltx", "0", "0000000000000005-0000000000000005.ltx"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for seconds, want := range map[float64]ltx.TXID{2: 1, 3: 3, 4: 4, 5: 4} {
		if got, err := h.Resolve(t.Context(), history.Target{Time: at(seconds)}); err != nil || got != want {
			t.Errorf("at %v: %d, %v, want %d", seconds, got, err, want)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Resolve(t.Context(), history.Target{Time: at(3)}); !errors.Is(err, history.ErrNoPoint) {
		t.Errorf("%d, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Resolve(ctx, history.Target{Time: at(3)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestResolveOthers(t *testing.T) {
	h := parse(t, "9:1-3 1:4-9 0:10-10")
	for i, m := range []string{"start", "release", "inside", "release", "no\u202ewhere"} {
		h.Marks = append(h.Marks, objstore.Mark{Name: m, TXID: []ltx.TXID{3, 3, 5, 9, 10}[i], Time: at(float64(i))})
	}
	for _, c := range []struct {
		target history.Target
		want   ltx.TXID
		err    error
		says   string
	}{
		{history.Target{}, 10, nil, ""},
		{history.Target{TXID: 77}, 77, nil, ""},
		{history.Target{Mark: "start"}, 3, nil, ""},
		{history.Target{Mark: "release"}, 9, nil, ""},
		{history.Target{Mark: "inside"}, 0, history.ErrNoPoint, `mark "inside": no such restore point: TXID 0000000000000005 lies inside merged files`},
		{history.Target{Mark: "Start"}, 0, history.ErrNoPoint, `newest first, "no\u202ewhere", "release", "inside", "start"`},
	} {
		got, err := h.Resolve(t.Context(), c.target)
		if got != c.want || !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %d, %v, want %d, %v", c.target, got, err, c.want, c.err)
		}
	}
	if _, err := h.Resolve(t.Context(), history.Target{TXID: 1, Mark: "start"}); err == nil {
		t.Error("two targets at a time were taken")
	}
	if _, err := new(history.History).Resolve(t.Context(), history.Target{Mark: "x"}); !errors.Is(err, history.ErrNoPoint) {
		t.Error(err)
	}
	if _, err := new(history.History).Resolve(t.Context(), history.Target{}); !errors.Is(err, history.ErrNothing) {
		t.Error(err)
	}
}
