package systest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestFault_AStandbyAndTheStore follows a replica while each kind of request fails in each way: the
// follower stays, says what is the matter, and its database is a state of the source all
// the time; when the fault is over it is the newest, and the end of the follower is a success.
func TestFault_AStandbyAndTheStore(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	usual := map[string]bool{"GET zeros": true, "GET list-type portal": true, "GET 404": true, "GET list-type cut off": true, "* reset": true}
	n := 0
	for _, kind := range []string{"GET", "GET list-type", "*"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if n++; !full() && !usual[kind+" "+name] {
				continue
			}
			prefix := fmt.Sprint("standby", n)
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				standbyFault(t, tab, newPlace(t).onS3(server, "bucket", prefix), server, kind, name)
			})
		}
	}
}

func standbyFault(t *testing.T, tab *table, p *place, server *s3test.Server, kind, name string) {
	f := newFlawed(t, server)
	s := p.client("snapshot_interval=0")
	rows := 0
	insert := func() {
		s.exec("INSERT INTO t SELECT randomblob(3000) FROM (SELECT 1 UNION SELECT 2)")
		rows += 2
		s.shipNow()
	}
	s.exec("CREATE TABLE t(v)")
	insert()

	standby := filepath.Join(tempDir(t), "standby.db")
	env := append(slices.Clip(p.env), "AWS_ENDPOINT_URL_S3="+f.URL)
	follower := start(t, p.dir, env, artefact(t, "walferry"), "restore", "-f", "-q", "-follow-interval", "50ms", "-o", standby, p.replica)
	at := func() int {
		n := 0
		text := p.query(standby, "PRAGMA integrity_check; SELECT count(*) FROM t")
		if _, err := fmt.Sscanf(text, "ok\n%d", &n); err != nil || n > rows || n%2 != 0 {
			t.Fatalf("the standby says %q, of %d rows", text, rows)
		}
		return n
	}
	eventually(t, "the standby follows", func() bool { return exists(standby) && at() == rows })

	f.begin(kind, ways[name])
	told := ""
	eventually(t, "the fault is met, and told or overcome", func() bool {
		if rows < 20 { // a slow link is to be overcome
			insert()
		}
		at()
		for waits := true; waits; {
			select {
			case line, ok := <-follower.lines:
				if !ok {
					t.Fatalf("the follower has ended: %v\n%s", follower.cmd.ProcessState, follower.err.String())
				}
				if told == "" && (strings.Contains(line, " unreachable: ") || strings.Contains(line, " waiting: ")) {
					told = line
				}
			default:
				waits = false
			}
		}
		if name == "black hole" { // it is told of after a minute
			return f.hits() > 0
		}
		// More than one, so that it looks once more at what it knows.
		return f.hits() > 5 && (told != "" || at() == rows)
	})
	hits := f.end()
	insert()
	eventually(t, "the standby is the newest state", func() bool { return at() == rows })
	follower.cmd.Process.Signal(syscall.SIGTERM)
	follower.finish()
	left, err := os.ReadDir(filepath.Dir(standby))
	if err != nil || len(left) != 2 || left[0].Name() != "standby.db" || left[1].Name() != "standby.db-follow" {
		t.Errorf("%v, %v", left, err)
	}
	tab.add("%-13s %-12s %4d requests: %s", kind, name, hits, told)
	if said := follower.err.String(); said != "" || strings.Contains(told, server.Secret) {
		t.Errorf("it says %q, %q", told, said)
	}
	if told != "" && !strings.Contains(told, "since now: ") {
		t.Errorf("%q does not say why", told)
	}
	s.end()
	for _, sql := range []string{"SELECT quote(v) FROM t", "SELECT sql FROM sqlite_schema"} {
		if p.query(standby, sql) != p.query(p.db, sql) {
			t.Errorf("the standby is not the source: %s", sql)
		}
	}
}

// TestFault_AStandbyBeginsDuringAnOutage has no standby yet: the follower ends with the cause and
// leaves nothing, or outlasts the fault; a later one succeeds.
func TestFault_AStandbyBeginsDuringAnOutage(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := newPlace(t).onS3(server, "bucket", "app")
	s := p.client("snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	s.exec("INSERT INTO t VALUES(1)")
	s.end()
	for _, kind := range []string{"GET", "GET list-type"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if !full() && name != "403" && name != "portal" {
				continue
			}
			if name == "done, 412" || name == "lost reply" || name == "done, 500" { // as others to what reads
				continue
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				p := on(t, p)
				f := newFlawed(t, server)
				standby := filepath.Join(tempDir(t), "standby.db")
				f.begin(kind, ways[name])
				if name == "black hole" || name == "10 KB/s" { // the first costs each try its minute, the other is no fault
					defer f.endsSoon().Stop()
				}
				env := append(slices.Clip(p.env), "AWS_ENDPOINT_URL_S3="+f.URL)
				follower := start(t, p.dir, env, artefact(t, "walferry"), "restore", "-f", "-q", "-o", standby, p.replica)
				eventually(t, "it fails or follows", func() bool {
					select {
					case <-follower.ended:
						return true
					default:
						return exists(standby)
					}
				})
				f.end()
				if exists(standby) {
					follower.expect("")
				} else if code := follower.cmd.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(follower.err.String(), "walferry: ") {
					t.Errorf("it ends with %d: %s", code, follower.err.String())
				} else if left, _ := os.ReadDir(filepath.Dir(standby)); len(left) != 0 {
					t.Errorf("%v is left", left)
				} else {
					follower = start(t, p.dir, env, artefact(t, "walferry"), "restore", "-f", "-q", "-o", standby, p.replica)
					follower.expect("")
				}
				follower.cmd.Process.Signal(syscall.SIGTERM)
				follower.finish()
				if got := p.query(standby, "SELECT v FROM t"); got != "1" {
					t.Errorf("the standby holds %q", got)
				}
			})
		}
	}
}
