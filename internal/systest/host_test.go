package systest

import (
	"path/filepath"
	"strings"
	"testing"
)

// compile builds a C program of testdata.
func compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(tempDir(t), strings.TrimSuffix(source, ".c"))
	args := append([]string{"-Wall", "-Wextra", "-Werror", "-O1", "-o", out, script(source)}, flags...)
	run(t, filepath.Dir(out), environment(filepath.Dir(out)), "", tool(t, "gcc"), args...).ok(t)
	return out
}

// TestHost_TheEntryPointKeepsSQLitesRules calls the entry point from a C program as
// no SQLite does: without a place for the message, and with a SQLite that says
// that it is another version than it is.
func TestHost_TheEntryPointKeepsSQLitesRules(t *testing.T) {
	t.Parallel()
	host := compile(t, "host.c", "-lsqlite3", "-ldl")
	for _, c := range []struct {
		name, version string
		code          string
		says          []string
	}{
		{"its own version", "", "256", nil},
		{"one older than the oldest", "3.40.0", "1", []string{"3.40.1", "3.40.0"}},
		{"one from long ago", "3.7.17", "1", []string{"3.40.1", "3.7.17"}},
		{"without the WAL-reset bug", "3.51.3", "256", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			r := run(t, p.dir, p.env, "", host, extension(t), c.version).ok(t)
			code, text, _ := strings.Cut(strings.TrimSpace(r.stdout), " ")
			if code != c.code {
				t.Errorf("the entry point returned %s, want %s: %s", code, c.code, text)
			}
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("the message %q does not name %s", text, want)
				}
			}
			if warned := strings.Count(r.stderr, "WAL-reset bug"); (c.version == "") != (warned == 1) {
				t.Errorf("the WAL-reset warning came %d times: %s", warned, r.stderr)
			}
		})
	}
}
