package systest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// top is the repository's directory.
var top = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	panic("no go.mod above the working directory")
})

// missing ends a test that lacks something: a failure with the way to mend it,
// but a skip with -short.
func missing(t testing.TB, what, hint string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("%s is missing: run %s", what, hint)
	}
	t.Fatalf("%s is missing: run %s", what, hint)
}

// artefact is a file of dist/.
func artefact(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(top(), "dist", name)
	if _, err := os.Stat(path); err != nil {
		missing(t, "dist/"+name, "make build")
	}
	return path
}

func extension(t testing.TB) string { return artefact(t, "walferry.so") }

// litestream is the program whose replicas walferry shares.
func litestream(t testing.TB) string {
	t.Helper()
	path := os.Getenv("WALFERRY_LITESTREAM")
	if path == "" {
		path = filepath.Join(top(), "dist", "tools", "litestream")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "litestream", "make tools")
	}
	return path
}

// tool is a program of the distribution. probe are arguments with which it
// succeeds where it can do what the tests ask of it.
func tool(t testing.TB, name string, probe ...string) string {
	t.Helper()
	// A program earlier on PATH may be built without what is needed: look in
	// the distribution's directory first.
	for _, dir := range append([]string{"/usr/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if len(probe) == 0 || exec.Command(path, probe...).Run() == nil {
			return path
		}
	}
	missing(t, name+" with SQLite", "make tools")
	return ""
}

func python(t testing.TB) string {
	t.Helper()
	return tool(t, "python3", "-c", "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)")
}

func sqlite3Shell(t testing.TB) string {
	t.Helper()
	return tool(t, "sqlite3", "-version")
}

// script is a file of testdata.
func script(name string) string {
	return filepath.Join(top(), "internal", "systest", "testdata", name)
}

// environment is that of the test without what would change walferry's mind.
func environment(home string, more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); name != "HOME" && !strings.HasPrefix(name, "WALFERRY_") &&
			!strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "LITESTREAM_") {
			env = append(env, kv)
		}
	}
	env = append(env, "HOME="+home, "AWS_EC2_METADATA_DISABLED=true", "PYTHONDONTWRITEBYTECODE=1")
	return append(env, more...)
}
