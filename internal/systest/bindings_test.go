package systest

import (
	"strings"
	"testing"
)

// TestBindings_OfTheDistributionLoadTheExtension runs one program in each language:
// load, open, write, wait for the token, write again, close.
func TestBindings_OfTheDistributionLoadTheExtension(t *testing.T) {
	for _, b := range []struct{ program, source, probe string }{
		{"perl", "app.pl", "use DBD::SQLite"},
		{"tclsh", "app.tcl", ""},
		{"ruby", "app.rb", "require 'sqlite3'"},
	} {
		t.Run(b.program, func(t *testing.T) {
			t.Parallel()
			var probe []string
			if b.probe != "" {
				probe = []string{"-e", b.probe}
			}
			interpreter := tool(t, b.program, probe...)
			p := newPlace(t)
			r := run(t, p.dir, p.env, "", interpreter, script(b.source), strings.TrimSuffix(extension(t), ".so"), p.uri("")).ok(t)
			if r.stdout != "1\n" || len(r.errors()) != 0 {
				t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
			}
			p.comesBack()
			if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "first,last" {
				t.Errorf("restored %q", got)
			}
		})
	}
}
