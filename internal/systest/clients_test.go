package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// reader is a program of somebody else's that loads the extension, opens a URI and prints a query's
// first value. Its arguments are those three.
type reader struct {
	name    string
	command func(t *testing.T) []string
}

// readers are those that open URIs.
func readers() []reader {
	interpreter := func(program, source string, probe ...string) reader {
		return reader{program, func(t *testing.T) []string { return []string{tool(t, program, probe...), script(source)} }}
	}
	return []reader{
		{"python", func(t *testing.T) []string { return []string{python(t), script("read.py")} }},
		interpreter("perl", "read.pl", "-e", "use DBD::SQLite"),
		interpreter("tclsh", "read.tcl"),
		interpreter("ruby", "read.rb", "-e", "require 'sqlite3'"),
		{"node", func(t *testing.T) []string { return []string{npm(t, "node"), script("read.mjs")} }},
		{"deno", func(t *testing.T) []string { return []string{npm(t, "deno"), "run", "--allow-all", script("read.mjs")} }},
	}
}

// npm is a program of those that make tools installs.
func npm(t *testing.T, name string) string {
	t.Helper()
	return artefact(t, filepath.Join("tools", "clients", "node_modules", ".bin", name))
}

// newBucket ships two states to a bucket: ten rows, and as many again.
func newBucket(t *testing.T) (p *place, first string) {
	t.Helper()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p = newPlace(t).onS3(server, "bucket", "app")
	const rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10) INSERT INTO t(v) SELECT i FROM n;"
	r := p.shell(".open "+p.uri(""), "CREATE TABLE t(id INTEGER PRIMARY KEY, v);", rows, "PRAGMA walferry_sync;", rows, "PRAGMA walferry_sync;").ok(t)
	return p, strings.Fields(r.stdout)[0]
}

// replicaURI opens the place's replica, under another name than the database's.
func (p *place) replicaURI(params string) string {
	return "file:reports?vfs=walferry-replica&replica=" + p.replica + params
}

// TestClients_ReadTheReplica runs a query in each client against the bucket: now, and as it was.
func TestClients_ReadTheReplica(t *testing.T) {
	p, first := newBucket(t)
	const query = "SELECT count(*) || ' ' || sum(v) FROM t"
	load := strings.TrimSuffix(extension(t), ".so")
	for _, c := range readers() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			command := c.command(t)
			for params, want := range map[string]string{"": "20 110\n", "&txid=" + first: "10 55\n"} {
				args := append(command[1:len(command):len(command)], load, p.replicaURI(params), query)
				r := run(t, p.dir, p.env, "", command[0], args...).ok(t)
				if r.stdout != want || len(r.errors()) != 0 {
					t.Errorf("with %q: stdout %q, stderr %q; want %q", params, r.stdout, r.stderr, want)
				}
			}
		})
	}
	// Java by a shell of its own, since to compile takes more than to run.
	t.Run("java", func(t *testing.T) {
		t.Parallel()
		script := fmt.Sprintf("SELECT load_extension('%s');\n!connect jdbc:sqlite:%s x x\n%s;\n!quit\n", load, p.replicaURI(""), query)
		jars := "/usr/share/java/jline.jar:/usr/share/java/sqlline.jar:/usr/share/java/sqlite-jdbc.jar"
		r := run(t, p.dir, p.env, script, tool(t, "java"), "-cp", jars, "sqlline.SqlLine", "-u", "jdbc:sqlite::memory:?enable_load_extension=true", "-n", "x", "-p", "x").ok(t)
		if !strings.Contains(r.stdout, "20 110") {
			t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
		}
	})
	for _, file := range []string{"reports", "reports-journal", "reports-wal"} {
		if _, err := os.Stat(filepath.Join(p.dir, file)); err == nil {
			t.Errorf("%s is there", file)
		}
	}
}
