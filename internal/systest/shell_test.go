package systest

import (
	"regexp"
	"strings"
	"testing"
)

// statusFields are those that the status always has; a cause and the last error
// come with trouble only.
var statusFields = []string{"state", "database_id", "txid", "window", "durable", "lag_ms", "pending_pages",
	"replica", "interval_ms", "batches", "bytes", "requests", "shipper_pid", "heartbeat_ms", "conditional_writes"}

var isTXID = regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString

func TestShell_ADatabaseShipsAndComesBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := p.shell(
		".open "+p.uri(""),
		"CREATE TABLE t(id INTEGER PRIMARY KEY, v);",
		"INSERT INTO t(v) VALUES('a'),('b');",
		"SELECT walferry_wait(walferry_token(), 30000);",
		"SELECT walferry_txid();",
		"INSERT INTO t(v) VALUES('c');",
		"PRAGMA walferry_sync;",
		"PRAGMA walferry_status;",
		"SELECT walferry_version();",
		"INSERT INTO t(v) VALUES('last');",
	).ok(t)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) != 5 {
		t.Fatalf("stdout has more or less than what was asked for:\n%s", r.stdout)
	}
	if lines[0] != "1" || !isTXID(lines[1]) || !isTXID(lines[2]) || lines[1] >= lines[2] {
		t.Errorf("wait, txid, sync: %q", lines[:3])
	}
	s := parseStatus(t, lines[3])
	for _, name := range statusFields {
		if _, ok := s[name]; !ok {
			t.Errorf("the status has no %s", name)
		}
	}
	for name, want := range map[string]any{"state": "shipping", "txid": lines[2], "replica": p.replica, "interval_ms": 50.0, "lag_ms": 0.0, "pending_pages": 0.0} {
		if s[name] != want {
			t.Errorf("status: %s is %v, want %v", name, s[name], want)
		}
	}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(lines[4]) {
		t.Errorf("version %q", lines[4])
	}
	p.comesBack()
	if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "a,b,c,last" {
		t.Errorf("restored rows: %s", got)
	}
}

func TestShell_ACloseLeavesNothingToCompare(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.shell(".open "+p.uri(""), "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);", "PRAGMA walferry_sync;").ok(t)
	if s := p.status(); s["all_pending"] != false || s["pending_pages"] != 0.0 || s["lag_ms"] != 0.0 {
		t.Errorf("after a clean close: %v", s)
	}
}

func TestShell_ACheckpointLeavesNothingToCompare(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
		p := newPlace(t)
		r := p.shell(".open "+p.uri("&interval=1h"), "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);", "PRAGMA walferry_sync;",
			"PRAGMA wal_checkpoint("+mode+");", "PRAGMA walferry_status;").ok(t)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		if s := parseStatus(t, lines[len(lines)-1]); s["all_pending"] != false {
			t.Errorf("after a checkpoint %s every page is to be compared", mode)
		}
	}
}

func TestShell_LoadingTwiceIsHarmless(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	load := ".load " + strings.TrimSuffix(extension(t), ".so")
	r := p.shell(load, ".open "+p.uri(""), load, "CREATE TABLE t(v);", load, ".open "+p.uri(""), "INSERT INTO t VALUES(1);").ok(t)
	if r.stdout != "" {
		t.Errorf("stdout: %s", r.stdout)
	}
	if n := strings.Count(r.stderr, "WAL-reset bug"); n != 1 {
		t.Errorf("the WAL-reset warning stands %d times on stderr:\n%s", n, r.stderr)
	}
	if lines := r.errors(); len(lines) != 0 {
		t.Errorf("stderr: %q", lines)
	}
	p.comesBack()
}

func TestShell_OtherOpensGoOnAsBefore(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, name := range []string{":memory:", "plain.db", "''", "file:other.db?vfs=unix-none", "file:dot.db?vfs=unix-dotfile",
		"file:excl.db?vfs=unix-excl", "file:/m?vfs=memdb", "file:shared?mode=memory&cache=shared", "file:read.db?vfs=unix"} {
		r := p.shell(".open "+name, "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);", "SELECT count(*) FROM t;", "SELECT walferry_version() IS NOT NULL;").ok(t)
		if r.stdout != "1\n1\n" || len(r.errors()) != 0 || strings.Contains(r.stderr, "rror") {
			t.Errorf("%s: stdout %q, stderr %q", name, r.stdout, r.stderr)
		}
	}
}
