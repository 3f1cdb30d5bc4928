package systest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestFault_AReplicaThatIsRead lets each kind of request fail in each way while a replica is queried. A
// query is right, or an error in time whose cause the status tells; when the fault is over the
// same connection goes on.
func TestFault_AReplicaThatIsRead(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := filled(t, server, "app")
	const sql = "SELECT count(*) || '|' || sum(v) || '|' || sum(length(b)) || '|' || max(hex(b)) FROM t"
	want := p.query(p.restored(), sql)
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	usual := []string{"reset", "black hole", "403", "404", "500", "slow down", "truncated", "cut off", "zeros", "10 KB/s", "portal", "no bucket"}
	for _, kind := range []string{"GET", "GET list-type", "*"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if !full() && (kind == "*" && name != "black hole" || !slices.Contains(usual, name) || kind != "GET" && name == "10 KB/s") {
				continue
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				readingFault(t, tab, server, p, kind, name, sql, want)
			})
		}
	}
}

func readingFault(t *testing.T, tab *table, server *s3test.Server, p *place, kind, name, sql, want string) {
	f := newFlawed(t, server)
	q := *p.with("AWS_ENDPOINT_URL_S3=" + f.URL)
	q.t = t
	s := q.reading("timeout=2s", "cache_size=1MB")
	if got := s.get(sql); got != want {
		t.Fatalf("%.50s, want %.50s", got, want)
	}
	f.begin(kind, ways[name])
	got, ok := s.try("get " + sql)
	state, cause := s.status("state"), s.status("cause")
	hits := f.end()
	switch {
	case hits == 0:
		t.Error("the fault was not met")
	case ok && got != want:
		t.Errorf("a wrong answer: %.50s, want %.50s", got, want)
	case ok && (state != "reading" || cause != ""):
		t.Errorf("all is well, and the status says %s: %s", state, cause)
	case !ok && !strings.Contains(got, "disk I/O error"):
		t.Errorf("the error is %q", got)
	case !ok && (state == "reading" || cause == "" || s.status("last_error") != cause || s.status("error_time") == ""):
		t.Errorf("the status says %s: %q", state, cause)
	case strings.Contains(cause, server.Secret):
		t.Error("the cause has the secret")
	}
	tab.add("%-15s %-12s %4d requests: %s: %s", kind, name, hits, state, cause)
	if got := s.get(sql); got != want || s.status("state") != "reading" || s.status("cause") != "" {
		t.Errorf("after the fault: %.50s, the status says %s: %s", got, s.status("state"), s.status("cause"))
	}
	s.end()
}

// TestFault_AnOpenOfAReplica meets each fault with its first request, and another connection of the
// process does not notice.
func TestFault_AnOpenOfAReplica(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := filled(t, server, "app")
	f := newFlawed(t, server)
	for _, name := range []string{"reset", "black hole", "403", "404", "500", "portal", "no bucket", "zeros"} {
		kind := "*"
		if name == "404" || name == "zeros" {
			kind = "GET"
		}
		f.begin(kind, ways[name])
		r := p.with("AWS_ENDPOINT_URL_S3="+f.URL).shell(
			".open 'file:a?vfs=walferry-replica&replica="+p.replica+"&endpoint="+server.Endpoint+"&cache_size=1MB'",
			"SELECT count(*) FROM t;",
			"ATTACH 'file:b?vfs=walferry-replica&replica="+p.replica+"&timeout=1s' AS b;",
			"SELECT sum(v) IS NOT NULL FROM t;",
		)
		hits := f.end()
		lines := r.errors()
		if r.stdout != "3000\n1\n" || hits == 0 || len(lines) != 1 || !strings.HasPrefix(lines[0], "cannot open replica b: ") || !strings.Contains(r.stderr, "unable to open database") {
			t.Errorf("%s, met %d times: stdout %q, stderr %q", name, hits, r.stdout, r.stderr)
		}
	}
	if r := p.shell(".open 'file:a?vfs=walferry-replica&replica=s3://bucket/other'"); !strings.Contains(fmt.Sprint(r.errors()), "no database") {
		t.Errorf("a prefix with nothing in it: %q", r.stderr)
	}
}

// TestReading_TheStoreIsAwayForLong stops it while connections are open, and starts it again.
func TestReading_TheStoreIsAwayForLong(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := filled(t, server, "app")
	s, idle := p.reading("timeout=1s", "cache_size=1MB"), p.reading("timeout=1s")
	want := s.get("SELECT sum(v) FROM t")
	s.exec("BEGIN") // what is in memory can be read still
	s.get("SELECT v FROM t WHERE id = 5")
	server.Stop()
	if got := s.get("SELECT v FROM t WHERE id = 5"); got == "" {
		t.Error("a page that was read in the transaction is not there any more")
	}
	s.exec("COMMIT")
	for range 2 {
		s.fails("get SELECT sum(v) FROM t", "disk I/O error")
		if state, cause := s.status("state"), s.status("cause"); state != "unreachable" || !strings.Contains(cause, server.Endpoint[len("http://"):]) {
			t.Errorf("the status says %s: %s", state, cause)
		}
	}
	server.Start(t)
	if got := s.get("SELECT sum(v) FROM t"); got != want || s.status("state") != "reading" {
		t.Errorf("%s, want %s", got, want)
	}
	if got := idle.get("SELECT sum(v) FROM t"); got != want || idle.status("last_error") != "" {
		t.Errorf("the connection that did not meet it: %s, want %s; %s", got, want, idle.status("last_error"))
	}
	s.end()
	idle.end()
}
