package systest

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestDefault_AProgramThatKnowsNothingIsReplicated opens databases by their plain
// names; each goes to a prefix of its own.
func TestDefault_AProgramThatKnowsNothingIsReplicated(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with("WALFERRY_DEFAULT=1", "WALFERRY_INTERVAL=50ms")
	p = p.with("WALFERRY_REPLICA=" + p.replica + "/{name}")
	p.python(`
a, b = plain(), plain(DB + "2")
for c in (a, b):
    c.execute("CREATE TABLE t(v)")
    c.execute("INSERT INTO t VALUES(1)")
    confirm(c)
m = plain(":memory:")
m.execute("CREATE TABLE t(v)")
t = plain("")
t.execute("CREATE TABLE t(v)")
for c in (a, b, m, t):
    c.close()
`)
	for _, name := range []string{"app.db", "app.db2"} {
		q := *p
		q.db, q.objects, q.replica = filepath.Join(p.dir, name), filepath.Join(p.objects, name), p.replica+"/"+name
		q.comesBack()
	}
}

func TestDefault_WithoutAReplicaTheLoadFails(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with("WALFERRY_DEFAULT=1")
	r := p.shell(".open plain.db", "CREATE TABLE t(v);")
	if !strings.Contains(r.stderr, "WALFERRY_REPLICA") || !strings.Contains(r.stderr, "file:///") {
		t.Errorf("the load does not say what is missing: %q", r.stderr)
	}
	if exists(filepath.Join(p.dir, "plain.db-ledger")) {
		t.Error("walferry is at work although its load failed")
	}
}

// What concerns the process is refused at the load, what concerns a database at its
// open: it may not be there before that.
func TestDefault_AWrongVariableFailsTheLoadOrTheOpen(t *testing.T) {
	t.Parallel()
	for variable, allowed := range map[string]string{
		"WALFERRY_DEFAULT=maybe":       `WALFERRY_DEFAULT="maybe": allowed is 0 or 1`,
		"WALFERRY_LOG=loud":            `WALFERRY_LOG="loud": allowed is off, error, info, debug`,
		"WALFERRY_INTERVAL=soon":       `WALFERRY_INTERVAL="soon": allowed is a duration from 10ms to 1h`,
		"WALFERRY_CLOSE_TIMEOUT=never": `WALFERRY_CLOSE_TIMEOUT="never": allowed is a duration`,
		"WALFERRY_WAL=perhaps":         `WALFERRY_WAL="perhaps": allowed is auto, keep`,
		"WALFERRY_TAKEOVER=2":          `WALFERRY_TAKEOVER="2": allowed is 0 or 1`,
		"WALFERRY_REQUIRE=x":           `WALFERRY_REQUIRE="x": allowed is 0 or 1`,
	} {
		p := newPlace(t).with(variable)
		r := p.shell(".open "+p.uri(""), "CREATE TABLE t(v);")
		if !strings.Contains(r.stderr, allowed) {
			t.Errorf("%s: stderr %q does not say %q", variable, r.stderr, allowed)
		}
		if exists(p.db) {
			t.Errorf("%s: a database was made", variable)
		}
	}
}
