package systest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestReadme_TheBucketIsQueriedAsItSays runs what the README shows, as it is but for the places and the
// moment.
func TestReadme_TheBucketIsQueriedAsItSays(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(top(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Query the bucket\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```(sh|python)\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks, want 3: the shell, Python, two moments", len(blocks))
	}
	p := newPlace(t)
	p.shell(".open "+p.uri(""), "CREATE TABLE t(x);", "INSERT INTO t VALUES('hello');", "PRAGMA walferry_sync;").ok(t)
	then := time.Now().UTC().Format(time.RFC3339Nano)
	p.shell(".open "+p.uri(""), "INSERT INTO t VALUES('world');", "PRAGMA walferry_sync;").ok(t)
	adapt := strings.NewReplacer("file:///tmp/replica", p.replica, "dist/walferry", strings.TrimSuffix(extension(t), ".so"), "yesterday 18:00", then)
	for i, want := range []string{"2\n", "2\n", "world\n"} {
		program := adapt.Replace(blocks[i][2])
		var r result
		if blocks[i][1] == "python" {
			r = run(t, p.dir, p.env, "", python(t), "-c", program)
		} else {
			r = run(t, p.dir, p.env, program, tool(t, "sh"))
		}
		if r.ok(t); r.stdout != want || len(r.errors()) != 0 {
			t.Errorf("%s\nstdout %q, stderr %q; want %q", program, r.stdout, r.stderr, want)
		}
	}
}
