package systest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/s3test"
)

// TestFault_ToolsAndTheStore runs what reads a replica while each kind of request fails in each way:
// a program succeeds with what is right, or ends with its code and says why; a restore that
// fails leaves nothing, and verify does not call a store at fault a replica that is damaged.
func TestFault_ToolsAndTheStore(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := newPlace(t).onS3(server, "bucket", "app")
	s := p.client("snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	s.exec("PRAGMA walferry_sync")
	for range 3 {
		s.exec("INSERT INTO t SELECT randomblob(3000) FROM (SELECT 1 UNION SELECT 2)")
		s.exec("PRAGMA walferry_sync")
	}
	s.end()
	image := p.image()
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	for _, kind := range []string{"GET", "GET list-type"} {
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			if !full() && name != "zeros" && !(name == "portal" && kind == "GET list-type") {
				continue
			}
			for _, tool := range []string{"restore", "ls", "verify"} {
				t.Run(fmt.Sprint(tool, " ", kind, " ", name), func(t *testing.T) {
					t.Parallel()
					toolFault(t, tab, server, p, image, tool, kind, name)
				})
			}
		}
	}
}

// on is a place in a subtest.
func on(t testing.TB, p *place) *place {
	q := *p
	q.t = t
	return &q
}

// tool is walferry where a store at fault may take it long: six tries of a minute.
func (p *place) tool(args ...string) result {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, artefact(p.t, "walferry"), args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.env, &stdout, &stderr, time.Second
	_ = cmd.Run()
	if ctx.Err() != nil {
		p.t.Fatalf("%q does not end\n%s", args, &stderr)
	}
	return result{stdout.String(), strings.TrimSpace(stderr.String()), cmd.ProcessState.ExitCode()}
}

// endsSoon ends the fault by itself, as one does that lasts some seconds.
func (f *flawed) endsSoon() *time.Timer {
	return time.AfterFunc(5*time.Second, func() { f.end() })
}

func toolFault(t *testing.T, tab *table, server *s3test.Server, p *place, image, tool, kind, name string) {
	f := newFlawed(t, server)
	out := tempDir(t)
	file := filepath.Join(out, "out.db")
	args := map[string][]string{"restore": {"restore", "-o", file, p.replica}, "ls": {"ls", p.replica}, "verify": {"verify", "-dir", out, p.replica}}[tool]
	f.begin(kind, ways[name])
	if name == "black hole" { // one that stays costs each try its minute
		defer f.endsSoon().Stop()
	}
	r := on(t, p).with("AWS_ENDPOINT_URL_S3=" + f.URL).tool(args...)
	hits, code, said := f.end(), r.code, r.stderr
	tab.add("%-8s %-13s %-11s %3d requests: exit %d: %s", tool, kind, name, hits, code, said)
	if strings.Contains(said, "panic") || strings.Contains(said, server.Secret) {
		t.Error(said)
	}
	left, _ := os.ReadDir(out)
	switch {
	case code == 0 && name == "portal":
		t.Error("it took a page that asks somebody to log in for a replica")
	case code == 0 && tool == "restore":
		mustEqual(t, "a restore that succeeds", file, image)
	case code == 0:
		if len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	case len(left) != 0:
		t.Errorf("it failed, and %v is left", left)
	case name == "portal" && !strings.Contains(said, "no store") && kind == "GET list-type":
		t.Errorf("exit status %d: %q", code, said)
	case tool != "verify" && (said == "" || code != 1):
		t.Errorf("exit status %d: %q", code, said)
	case tool == "verify" && code != 3 && name != "zeros" && name != "cut off":
		t.Errorf("exit status %d: %s%s", code, r.stdout, said)
	}
}
