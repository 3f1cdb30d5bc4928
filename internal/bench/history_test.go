package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

func TestClassify(t *testing.T) {
	for request, want := range map[string]verb{
		"PUT /bucket/app/0000/x.ltx":                        verbPut,
		"PUT /bucket/key?partNumber=2&uploadId=u":           verbPut,
		"POST /bucket/key?uploads=":                         verbPut,
		"POST /bucket/key?uploadId=u":                       verbPut,
		"POST /bucket/?delete=":                             verbDelete,
		"DELETE /bucket/key":                                verbDelete,
		"DELETE /bucket/key?uploadId=u":                     verbDelete,
		"GET /bucket/?list-type=2&prefix=app%2F0000%2F":     verbList,
		"GET /bucket/?uploads=&prefix=app":                  verbList,
		"GET /bucket/app/0000/x.ltx":                        verbGet,
		"GET /bucket/app/0000/x.ltx?x-id=GetObject&partN=1": verbGet,
		"HEAD /bucket/app/0000/x.ltx":                       verbGet,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := classify(httptest.NewRequest(method, path, nil)); got != want {
			t.Errorf("%s: %s, want %s", request, verbNames[got], verbNames[want])
		}
	}
}

// The Host header is signed by the clients, and must arrive as they sent it.
func TestCounterCountsAndPassesOn(t *testing.T) {
	hosts := make(chan string, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusPreconditionFailed)
		}
	}))
	defer server.Close()
	c, err := (&bench{ctx: t.Context()}).count(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, c.Endpoint+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if host := <-hosts; host != strings.TrimPrefix(c.Endpoint, "http://") {
			t.Errorf("the server saw the host %s", host)
		}
		return resp.StatusCode
	}
	ask(http.MethodGet, "/bucket/key")
	before := c.now()
	if code := ask(http.MethodPut, "/bucket/key"); code != http.StatusPreconditionFailed {
		t.Errorf("status %d", code)
	}
	ask(http.MethodGet, "/bucket/?list-type=2")
	if got := c.since(before); got != (requests{verbPut: 1, verbList: 1}) || got.sum() != 2 {
		t.Errorf("counted %v", got)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func TestRequestsAreScaledToAnHour(t *testing.T) {
	r := trafficResult{Writing: 2 * time.Minute, Written: requests{verbPut: 120, verbList: 3}}
	if put, list := r.perHour(verbPut), r.perHour(verbList); put != 3600 || list != 90 {
		t.Errorf("%v PUT and %v LIST an hour", put, list)
	}
}

func TestSlowIsAsFarAwayAsAsked(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	const far = 40 * time.Millisecond
	link, err := startSlow(server.URL, away(far))
	if err != nil {
		t.Fatal(err)
	}
	defer link.close()
	begin := time.Now()
	resp, err := http.Get(link.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if d := time.Since(begin); d < far { // how much later an answer may be depends on the machine
		t.Errorf("the answer came after %v", d)
	}
}

// Programs upload over several connections at once: they share what the way to the server can take.
func TestUplinkIsSharedByConnections(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	const rate, lanes, each = 4_000_000, 4, 250_000
	link, err := startSlow(server.URL, uplink(rate))
	if err != nil {
		t.Fatal(err)
	}
	defer link.close()
	begin := time.Now()
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Post(link.Endpoint, "", bytes.NewReader(make([]byte, each)))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	wg.Wait()
	if d := time.Since(begin); d < time.Second*lanes*each/rate { // how much longer depends on the machine
		t.Errorf("%d bytes at %d a second took %v", lanes*each, rate, d)
	}
}

func TestPartsHoldEveryPageOnce(t *testing.T) {
	for _, commit := range []uint32{1, 16, 17, 1000} {
		var all []uint32
		for i := range mergeInputs {
			all = append(all, partOf(mergeInputs)(i, commit)...)
		}
		for i, pgno := range all {
			if pgno != uint32(i+1) {
				t.Fatalf("%d pages: %d at position %d", commit, pgno, i)
			}
		}
		if len(all) != int(commit) {
			t.Errorf("%d of %d pages", len(all), commit)
		}
	}
}

// What was planted follows what is there, is read by the format's library, and leaves the pages as they are.
func TestPlantedCommits(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "app.db")
	if err := makeDatabase(db, 1e6); err != nil {
		t.Fatal(err)
	}
	to := target{DB: db, Replica: filepath.Join(dir, "replica")}
	writeObject(t, filepath.Join(to.Replica, firstObject), "page")
	if err := plantCommits(db, to, 5, aFewPages); err != nil {
		t.Fatal(err)
	}
	names, err := to.objects(0)
	if err != nil || len(names) != 5 {
		t.Fatalf("%v, %v", names, err)
	}
	if newest, err := to.newest(); err != nil || newest != 6 {
		t.Errorf("newest %v, %v, want 6", newest, err)
	}
	want, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		dec := ltx.NewDecoder(f)
		if err := dec.DecodeHeader(); err != nil {
			t.Fatal(err)
		}
		h := dec.Header()
		if h.MinTXID != ltx.TXID(2+i) || int64(h.Commit)*int64(h.PageSize) != int64(len(want)) {
			t.Errorf("%s: TXID %v, %d pages", name, h.MinTXID, h.Commit)
		}
		if info, err := f.Stat(); err != nil || info.ModTime().UnixMilli() != h.Timestamp {
			t.Errorf("%s: the file is not as old as the commit", name)
		}
		page := make([]byte, h.PageSize)
		var head ltx.PageHeader
		for dec.DecodePage(&head, page) == nil {
			at := int(head.Pgno-1) * len(page)
			if !slices.Equal(page, want[at:at+len(page)]) {
				t.Errorf("%s: page %d is another", name, head.Pgno)
			}
		}
		if err := dec.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

func TestSameContent(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exact := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "", false}, {"a", "aa", false},
		{exact, exact, true}, {exact, exact + "x", false}, {exact + "x", exact, false},
	} {
		err := sameContent(file("a", c.a), file("b", c.b))
		if (err == nil) != c.same {
			t.Errorf("%d and %d bytes: %v", len(c.a), len(c.b), err)
		}
	}
}

// The paced child makes all its commits, or fewer when it is told to stop.
func TestPacedCommitsEnd(t *testing.T) {
	b := quickBench(t, "none")
	b.Big = 1e6
	all, err := measureIn(b, func(dir string) (growth, error) { return b.walOf(b.target(plain, dir), 5, nil) })
	if err != nil || all.Ops != 5 || all.WAL == 0 {
		t.Errorf("%+v, %v", all, err)
	}
	told, err := measureIn(b, func(dir string) (growth, error) {
		return b.walOf(b.target(plain, dir), maxOps, func() error { return nil })
	})
	if err != nil || told.Ops == maxOps {
		t.Errorf("%+v, %v", told, err)
	}
}
