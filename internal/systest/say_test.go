package systest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSay_AnErrorGoesToStderrAndToSQLitesLog looks at both places, and that stdout
// is left alone.
func TestSay_AnErrorGoesToStderrAndToSQLitesLog(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	log := filepath.Join(p.dir, "sqlite.log")
	r := p.shell(".log "+log, ".open "+p.uri("&interval=x"))
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	const text = `option interval="x": allowed is a duration from 10ms to 1h, such as 1s`
	for where, said := range map[string]string{"stderr": r.stderr, "sqlite3_log": string(b)} {
		if n := strings.Count(said, text); n != 1 {
			t.Errorf("%s has the text %d times: %q", where, n, said)
		}
	}
	if r.stdout != "" {
		t.Errorf("stdout: %q", r.stdout)
	}
}

func TestSay_TheLogHasLevels(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]struct {
		warning, errors bool
		info            bool
	}{"off": {}, "error": {warning: true, errors: true}, "info": {warning: true, errors: true, info: true}, "debug": {warning: true, errors: true, info: true}} {
		p := newPlace(t).with("WALFERRY_LOG=" + level)
		r := p.shell(".open "+p.uri(""), "CREATE TABLE t(v);", "PRAGMA walferry_sync;", ".open "+p.uri("&interval=x"))
		for text, wanted := range map[string]bool{"WAL-reset bug": want.warning, "cannot open": want.errors, "shipping to": want.info} {
			if strings.Contains(r.stderr, text) != wanted {
				t.Errorf("log=%s: %q on stderr is not %v: %q", level, text, wanted, r.stderr)
			}
		}
		if r.stdout != "0000000000000002\n" {
			t.Errorf("log=%s: stdout %q", level, r.stdout)
		}
	}
}

func TestStatus_TheCommandLineReadsTheLedger(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if r := p.walferry("status", p.db); r.code != 1 || !strings.Contains(r.stderr, "has no ledger") {
		t.Errorf("without a ledger: code %d, %q", r.code, r.stderr)
	}
	s := p.client()
	s.exec("CREATE TABLE t(v)")
	s.confirm()
	own := parseStatus(t, s.get("PRAGMA walferry_status"))
	read := p.status()
	for _, name := range statusFields {
		if _, ok := read[name]; !ok {
			t.Errorf("the command's JSON has no %s", name)
		}
	}
	for _, name := range []string{"state", "database_id", "txid", "replica", "interval_ms", "shipper_pid"} {
		if own[name] != read[name] {
			t.Errorf("%s is %v to the process and %v to the command", name, own[name], read[name])
		}
	}
	if text := p.walferry("status", p.db).ok(t).stdout; !strings.Contains(text, "process "+s.pid()) || !strings.Contains(text, p.replica) {
		t.Errorf("status: %s", text)
	}
	s.end()
	if text := p.walferry("status", p.db).ok(t).stdout; !strings.Contains(text, "none: no program") || !strings.Contains(text, "nothing") {
		t.Errorf("status after the close: %s", text)
	}
	if state := p.status()["state"]; state != "stopped" {
		t.Errorf("nobody ships, and the state is %v", state)
	}
}

// TestSay_AReplicaThatCannotBeADirectory holds the status and require=1 of a file
// store that is wrong.
func TestSay_AReplicaThatCannotBeADirectory(t *testing.T) {
	t.Parallel()
	for what, dir := range map[string]func(p *place) string{
		"below a file":           func(p *place) string { return p.db + "/replica" },
		"where nobody may write": func(p *place) string { return "/proc/walferry" },
	} {
		p := newPlace(t)
		p.plain(".open "+p.db, "CREATE TABLE t(v);").ok(t)
		p.replica = "file://" + dir(p)
		p = p.with("WF_REPLICA=" + p.replica)
		s := p.client("close_timeout=100ms")
		s.exec("INSERT INTO t VALUES(1)")
		eventually(t, "the status has a cause", func() bool { return s.status("cause") != "None" })
		if got := s.status("replica"); got != p.replica {
			t.Errorf("%s: the status says replica=%q", what, got)
		}
		s.fails("exec PRAGMA walferry_sync", strings.TrimPrefix(p.replica, "file://"))
		s.end()
		r := p.shell(".open " + p.uri("&require=1&close_timeout=0"))
		if !strings.Contains(r.stderr, "unable to open database") || !strings.Contains(strings.Join(r.errors(), "\n"), "require=1") {
			t.Errorf("%s: require=1: stderr %q", what, r.stderr)
		}
	}
}
