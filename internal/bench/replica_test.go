package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

func readerOfFile(t *testing.T, ids []int64) *reader {
	t.Helper()
	b := quickBench(t, "none")
	b.ctx = context.Background() // the test's own ends before its cleanups
	if _, err := os.Stat(b.Python); err != nil {
		t.Fatalf("%s is missing: run make bench once, which installs it", b.Python)
	}
	db := filepath.Join(t.TempDir(), "app.db")
	if err := makeDatabase(db, 1e6); err != nil {
		t.Fatal(err)
	}
	local := b.target(plain, filepath.Dir(db))
	r, err := b.startReader(plain, "", replica{local: local}, ids)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.end(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *reader) must(t *testing.T, step readerStep) phase {
	t.Helper()
	p, err := r.do(step)
	if err != nil {
		t.Fatal(err)
	}
	if p.Elapsed <= 0 {
		t.Errorf("%s took no time", step.Do)
	}
	return p
}

// What was not read, or is another row's, shows in the checks.
func TestReaderTellsWhatItRead(t *testing.T) {
	one, other := readerOfFile(t, []int64{1, 2, 3}), readerOfFile(t, []int64{1, 2, 4})
	for _, r := range []*reader{one, other} {
		if p := r.must(t, readerStep{Do: "open"}); p.Grown <= 0 {
			t.Errorf("memory grew by %d", p.Grown)
		}
	}
	a, b := one.must(t, readerStep{Do: "points"}), other.must(t, readerStep{Do: "points"})
	if a.Check == b.Check || a.Check == 0 {
		t.Errorf("checks %d and %d of different rows", a.Check, b.Check)
	}
	if again := one.must(t, readerStep{Do: "points"}); again.Check != a.Check {
		t.Errorf("checks %d and %d of the same rows", a.Check, again.Check)
	}
	all, few := one.must(t, readerStep{Do: "scan", From: 1, To: 1e6}), one.must(t, readerStep{Do: "scan", From: 1, To: 3})
	if few.Check <= 0 || all.Check < 900_000 {
		t.Errorf("scans of %d and %d bytes", few.Check, all.Check)
	}
}

func TestReaderRepeatsForLongEnough(t *testing.T) {
	r := readerOfFile(t, []int64{1, 2, 3})
	r.must(t, readerStep{Do: "open"})
	p := r.must(t, readerStep{Do: "warm", Seconds: 0.05})
	if p.Reads < 3 || p.Reads%3 != 0 || p.Elapsed < 50*time.Millisecond {
		t.Errorf("%d reads in %v", p.Reads, p.Elapsed)
	}
}

func TestTailIsOneHistory(t *testing.T) {
	dir := t.TempDir()
	to := target{DB: filepath.Join(dir, "app.db"), Replica: filepath.Join(dir, "replica")}
	if err := makeDatabase(to.DB, 1e6); err != nil {
		t.Fatal(err)
	}
	writeObject(t, filepath.Join(to.Replica, firstObject), "page")
	if err := plantTail(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	next := ltx.TXID(2)
	for _, part := range tail {
		if part.level == 0 {
			break
		}
		name := ltx.FormatFilename(next, next+ltx.TXID(part.commits)-1)
		if _, err := os.Stat(filepath.Join(to.level(part.level), name)); err != nil {
			t.Error(err)
		}
		next += ltx.TXID(part.commits)
	}
	level0, err := to.objects(0)
	if err != nil {
		t.Fatal(err)
	}
	if want := 30 + 30 + 15; len(level0) != want {
		t.Errorf("%d objects on level 0, want %d", len(level0), want)
	}
}

// A row that has no other program's figure says how to get one; a goal of its own is judged all the same.
func TestReplicaWithoutLitestreamsVFS(t *testing.T) {
	result := replicaResult{
		Open: phase{readerAnswer{Elapsed: 1, Grown: 1}, 1, 1}, Cold: phase{readerAnswer{Elapsed: 1}, 1, 1},
		Warm: phase{readerAnswer{Elapsed: 1, Reads: 1}, 0, 0}, Part: phase{readerAnswer{Elapsed: 1}, 1, 1},
		All: phase{readerAnswer{Elapsed: 1}, 1, 1},
	}
	got := samples[replicaResult]{plain: {result}, walferry: {result}}
	judged := 0
	for _, f := range replicaFigures(quick.reading, "replica", got) {
		switch {
		case f.goal.kind == noGoal:
		case f.base == litestream && f.result(walferry) != needLitestreamVFS:
			t.Errorf("%s: %q", f.name, f.result(walferry))
		case f.base == plain && f.result(walferry) != "met":
			t.Errorf("%s: %q", f.name, f.result(walferry))
		case f.base == plain:
			judged++
		}
	}
	if judged != 1 {
		t.Errorf("%d figures judged", judged)
	}
}

func TestCounterWeighsBothWays(t *testing.T) {
	const up, down = 100_000, 300_000
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, down))
	}))
	defer server.Close()
	c, err := (&bench{ctx: t.Context()}).count(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(c.Endpoint, "", strings.NewReader(strings.Repeat("x", up)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err = errors.Join(err, c.close()); err != nil {
		t.Error(err)
	}
	if got := c.traffic(); got.requests != 1 || got.bytes < up+down || got.bytes > up+down+10_000 {
		t.Errorf("%+v", got)
	}
}
