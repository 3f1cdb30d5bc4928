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

func toolFault(t *testing.T, tab *table, server *s3test.Server, p *place, image, tool, kind, name string) {
	f := newFlawed(t, server)
	out := tempDir(t)
	file := filepath.Join(out, "out.db")
	args := map[string][]string{"restore": {"restore", "-o", file, p.replica}, "ls": {"ls", p.replica}, "verify": {"verify", "-dir", out, p.replica}}[tool]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // six tries of a minute
	defer cancel()
	cmd := exec.CommandContext(ctx, artefact(t, "walferry"), args...)
	var stdout, stderr bytes.Buffer
	cmd.Env = append(slices.Clip(p.env), "AWS_ENDPOINT_URL_S3="+f.URL)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	f.begin(kind, ways[name])
	if name == "black hole" { // one that stays costs each try its minute
		defer time.AfterFunc(5*time.Second, func() { f.end() }).Stop()
	}
	_ = cmd.Run()
	if ctx.Err() != nil {
		t.Fatal("it does not end")
	}
	hits, code, said := f.end(), cmd.ProcessState.ExitCode(), strings.TrimSpace(stderr.String())
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
		t.Errorf("exit status %d: %s%s", code, &stdout, said)
	}
}
