package systest

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestFault_CompactAndTheStore merges and removes while each kind of request fails in each way: it
// succeeds, or ends with 1 and says why, and either way leaves a history that restores, that
// the application goes on with, and that the next compact brings into order.
func TestFault_CompactAndTheStore(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	usual := map[string]bool{
		"PUT lost reply": true, "PUT portal": true, "GET zeros": true, "GET list-type cut off": true, "GET 404": true,
		"POST delete lost reply": true, "POST delete 500": true, "POST uploadId done, 500": true,
	}
	n := 0
	for _, kind := range []string{"PUT", "GET", "GET list-type", "POST delete", "DELETE", "POST uploads", "PUT partNumber", "POST uploadId", "*"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if n++; !full() && !usual[kind+" "+name] {
				continue
			}
			prefix := fmt.Sprint("compact", n)
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				compactFault(t, tab, newPlace(t).onS3(server, "bucket", prefix), server, kind, name)
			})
		}
	}
}

func compactFault(t *testing.T, tab *table, p *place, server *s3test.Server, kind, name string) {
	f := newFlawed(t, server)
	bytes := 3000
	if kind == "POST uploads" || kind == "PUT partNumber" || kind == "POST uploadId" {
		bytes = 17 << 20 // two of which are merged into what goes up in parts
	}
	s := p.client("snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	s.shipNow()
	for range 3 {
		s.exec(fmt.Sprintf("INSERT INTO t VALUES(randomblob(%d))", bytes))
		s.shipNow()
	}
	if kind == "DELETE" { // which removes marks
		s.get("SELECT walferry_mark('m')")
	}
	s.end()
	tmp := tempDir(t)
	compact := func(p *place) result {
		return p.with("TMPDIR="+tmp).tool("compact", "-snapshot", "-retention", "1ms", "-l0-retention", "1ms", "-mark-retention", "1ms", p.replica)
	}

	f.begin(kind, ways[name])
	if name == "black hole" || name == "10 KB/s" { // one that stays costs each try its minutes
		defer f.endsSoon().Stop()
	}
	r := compact(p.with("AWS_ENDPOINT_URL_S3=" + f.URL))
	hits := f.end()
	tab.add("%-15s %-12s %3d requests: exit %d: %s", kind, name, hits, r.code, r.stderr)
	switch {
	case strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, server.Secret):
		t.Error(r.stderr)
	case r.code != 0 && (r.code != 1 || r.stderr == ""):
		t.Errorf("exit status %d: %q", r.code, r.stderr)
	case r.code == 0 && r.stderr != "":
		t.Errorf("it succeeds, and says %q", r.stderr)
	case hits == 0:
		t.Error("no request has met the fault")
	}
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("%v is left in TMPDIR", left)
	}

	p.walferry("verify", p.replica).ok(t)
	p.comesBack()
	if r := compact(p); r.code != 0 {
		t.Errorf("the next compact ends with %d: %s", r.code, r.stderr)
	}
	p.goOn("")
	p.comesBack()
}
