package systest

import (
	"strings"
	"testing"
)

// TestFork_TheParentShipsWhatAChildCommits also holds that a child has no lock of
// the shipper's, never hangs and ends well (invariant 11).
func TestFork_TheParentShipsWhatAChildCommits(t *testing.T) {
	for how, rows := range map[string]string{"fork": "480", "multiprocessing": "80", "exit": "20"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			child := p.start("fork.py", how)
			if got := child.expect("done"); got != rows {
				t.Errorf("the children committed %s rows, want %s", got, rows)
			}
			child.finish()
			p.comesBack()
			if got := p.query(p.restored(), "SELECT count(*) FROM t WHERE v >= 0"); got != rows {
				t.Errorf("%s of %s rows came back", got, rows)
			}
		})
	}
}

// TestInvariant11_NoConnectionOfOursIsOpenAtFork forks a C program between batches
// that follow each other at once, and looks at its locks from within the fork.
func TestInvariant11_NoConnectionOfOursIsOpenAtFork(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := run(t, p.dir, p.env, "", compile(t, "forker.c", "-lsqlite3", "-ldl", "-lpthread"), extension(t), p.uri("&interval=10ms")).ok(t)
	if r.stdout != "" || len(r.errors()) != 0 {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	p.comesBack()
}

// TestFork_AnOrphanSaysThatNobodyShips outlives the parent whose shipper took care of it. What
// it commits is marked and in the WAL; its status tells that nobody ships, and what helps.
func TestFork_AnOrphanSaysThatNobodyShips(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	child := p.start("orphan.py", "orphan")
	if s := parseStatus(t, child.expect("living")); s["state"] != "child" || !strings.Contains(s["cause"].(string), "before the fork ships") {
		t.Errorf("status while the parent lives: %v", s)
	}
	s := parseStatus(t, child.expect("orphaned"))
	if cause := s["cause"].(string); s["state"] != "child" || !strings.Contains(cause, "has ended") || !strings.Contains(cause, "nothing ships") {
		t.Errorf("status of the orphan: %v", s)
	}
	if got := child.expect("wait"); got != "0" {
		t.Errorf("walferry_wait is %s", got)
	}
	if got := child.expect("sync"); !strings.Contains(got, "no process ships this database") {
		t.Errorf("walferry_sync: %s", got)
	}
	other := p.client()
	other.get("SELECT count(*) FROM t")
	other.shipNow()
	if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "2" {
		t.Errorf("%s rows of the orphan were shipped by the next open", got)
	}
	child.send("")
	if s := parseStatus(t, child.expect("shipped")); !strings.Contains(s["cause"].(string), "ships") {
		t.Errorf("status while another process ships: %v", s)
	}
	other.end()
	p.comesBack()
}

// TestFork_AConnectionOfTheParentsIsNoWorseThanWithSQLite is used by children, which SQLite
// forbids: what it answers is what it answers without walferry.
func TestFork_AConnectionOfTheParentsIsNoWorseThanWithSQLite(t *testing.T) {
	t.Parallel()
	answers := map[string]string{}
	for _, how := range []string{"plain", "walferry"} {
		p := newPlace(t)
		s := p.start("orphan.py", "inherited", how)
		answers[how] = s.expect("answers")
		s.expect("done")
		s.finish()
		if how == "walferry" {
			p.comesBack()
		}
	}
	if answers["plain"] != answers["walferry"] {
		t.Errorf("plain SQLite: %s\nwalferry:     %s", answers["plain"], answers["walferry"])
	}
}
