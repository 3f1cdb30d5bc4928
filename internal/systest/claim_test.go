package systest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// stranger is a place of another database whose replica is the prefix of p's.
func (p *place) stranger(suffixes ...string) *place {
	p.t.Helper()
	q := *p
	q.dir = tempDir(p.t)
	q.db = filepath.Join(q.dir, "app.db")
	for _, suffix := range suffixes {
		b, err := os.ReadFile(p.db + suffix)
		if err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(q.db+suffix, b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	return q.with("WF_DB=" + q.db)
}

// TestInvariant8_APrefixOfAnotherDatabaseIsLeftAlone opens databases that cannot
// prove that the prefix is theirs: nothing is put, and the text names the ways out.
func TestInvariant8_APrefixOfAnotherDatabaseIsLeftAlone(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, store := range []string{"file", "s3"} {
		for name, suffixes := range map[string][]string{"another database": nil, "a copy": {"", "-ledger"}, "a copy without ledger": {""}} {
			t.Run(store+"/"+name, func(t *testing.T) {
				owner := newPlace(t)
				if store == "s3" {
					owner.onS3(server, "bucket", strings.ReplaceAll(name, " ", "-"))
				}
				s := owner.client()
				s.exec("CREATE TABLE t(v)")
				s.exec("INSERT INTO t VALUES('owner')")
				s.confirm()
				s.end()
				before := owner.list()

				p := owner.stranger(suffixes...)
				s = p.client()
				s.exec("CREATE TABLE IF NOT EXISTS t(v)")
				s.exec("INSERT INTO t VALUES('stranger')")
				eventually(t, "the database is unclaimed", func() bool { return s.status("state") == "unclaimed" })
				waysOut := []string{"prefix of its own", "restore", "takeover=1"}
				s.fails("exec PRAGMA walferry_sync", waysOut...)
				s.fails("confirm", waysOut...)
				s.end()
				if lines := walferryLines(s.err.String()); len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "takeover=1") {
					t.Errorf("the log says: %q", lines)
				}
				r := p.shell(".open " + p.uri("&require=1"))
				if !strings.Contains(r.stderr, "unable to open database") || !strings.Contains(r.stderr, "require=1") {
					t.Errorf("require=1: stderr %q", r.stderr)
				}
				if after := owner.list(); !slices.Equal(before, after) {
					t.Fatalf("the prefix was changed: %v, was %v", after, before)
				}

				s = p.client("takeover=1")
				s.exec("INSERT INTO t VALUES('taken over')")
				s.confirm()
				s.end()
				p.comesBack()

				// The first owner finds out, and stays out.
				s = owner.client()
				s.exec("INSERT INTO t VALUES('owner again')")
				s.fails("exec PRAGMA walferry_sync", "takeover=1")
				s.end()
				p.comesBack()
			})
		}
	}
}

// TestClaim_ARestoredDatabaseGoesOn restores with the ledger and continues the
// history without a second snapshot.
func TestClaim_ARestoredDatabaseGoesOn(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.client()
	s.exec("CREATE TABLE t(v)")
	s.exec("INSERT INTO t VALUES(zeroblob(1000000))")
	s.end()
	before := p.newest()

	next := p.stranger()
	next.walferry("restore", "-o", next.db, next.replica).ok(t)
	s = next.client()
	s.exec("INSERT INTO t VALUES('went on')")
	s.confirm()
	s.end()
	if got := s.err.String(); len(walferryLines(got)) != 0 {
		t.Errorf("stderr: %s", got)
	}
	if pages, _ := p.after(before); pages == 0 || pages > 4 {
		t.Errorf("one row took %d pages", pages)
	}
	next.comesBack()
}
