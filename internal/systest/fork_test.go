package systest

import "testing"

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
