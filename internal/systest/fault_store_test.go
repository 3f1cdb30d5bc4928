package systest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestFault_TheStore lets each kind of request fail in each way while a database is opened
// again and written to. No commit fails or waits, the status tells the truth, nobody is fenced,
// and when the fault is over everything is shipped.
func TestFault_TheStore(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	usual := map[string]bool{
		"PUT lost reply": true, "PUT done, 412": true, "PUT 412": true, "PUT portal": true, "PUT black hole": true, "PUT skewed": true,
		"GET zeros": true, "GET 404": true, "GET portal": true, "GET list-type cut off": true, "GET list-type 500": true,
		"POST uploadId lost reply": true,
	}
	n := 0
	for _, kind := range []string{"PUT", "GET", "GET list-type", "POST uploads", "PUT partNumber", "POST uploadId", "POST delete", "*"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if n++; !full() && !usual[kind+" "+name] {
				continue
			}
			prefix := fmt.Sprint("app", n)
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				storeFault(t, tab, server, prefix, kind, name)
			})
		}
	}
}

func storeFault(t *testing.T, tab *table, server *s3test.Server, prefix, kind, name string) {
	f := newFlawed(t, server)
	p := newPlace(t).onS3(server, "bucket", prefix).with("AWS_ENDPOINT_URL_S3=" + f.URL)
	params := []string{"close_timeout=5s"}
	parts := kind == "POST uploads" || kind == "PUT partNumber" || kind == "POST uploadId"
	late := kind == "POST delete"
	if late {
		params = append(params, "snapshot_interval=1s", "l0_retention=1s", "retention=1s")
	}
	s := p.client(params...)
	s.exec("CREATE TABLE t(v)")
	s.exec("PRAGMA walferry_sync")
	s.end()

	f.begin(kind, ways[name])
	s = p.client(params...)
	rows := 0
	insert := func(bytes int) {
		s.exec(fmt.Sprintf("INSERT INTO t VALUES(randomblob(%d))", bytes))
		rows++
	}
	if parts {
		insert(34 << 20)
	}
	for range 20 {
		insert(100)
	}
	told := ""
	eventually(t, "the fault is met, and told or overcome", func() bool {
		if late {
			insert(100)
		}
		told = s.told()
		return told != "" && f.hits() > 0 && (!late || s.status("keep_error") != "" || told == "shipped" && f.hits() > 2)
	})
	for range 20 {
		insert(100)
	}
	if got := s.told(); got == "fenced" || got == "unclaimed" || told == "fenced" || told == "unclaimed" {
		t.Fatalf("the status says %s: %s", got, s.status("cause"))
	}
	hits := f.end()
	p.recovers(s, rows)
	tab.add("%-15s %-12s %4d requests: %s", kind, name, hits, told)
}

// told is what the status says of a store at fault: its state and cause, "behind" where nothing
// is known yet but that the store lacks something, "shipped" where it lacks nothing; empty
// while a commit is young.
func (s client) told() string {
	s.t.Helper()
	state, cause, lag := s.status("state"), s.status("cause"), s.status("lag_ms")
	switch {
	case state == "fenced" || state == "unclaimed":
		return state
	case state == "unreachable" || state == "refused":
		if cause == "" {
			s.t.Errorf("the status says %s and not why", state)
		}
		return state + ": " + cause
	case lag == "0":
		return "shipped"
	case len(lag) > 3:
		return "behind"
	}
	return ""
}
