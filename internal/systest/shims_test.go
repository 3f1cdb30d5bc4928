package systest

import (
	"os"
	"strings"
	"testing"
)

// TestShims_OtherVFSsUnderAndOver has a C program open its database through other VFSs
// below walferry, and through one above, also such a one that knows its files by other names
// than SQLite. What has no shared memory passes through, and
// the status names it.
func TestShims_OtherVFSsUnderAndOver(t *testing.T) {
	program := compile(t, "shims.c", "-lsqlite3")
	for below, mode := range map[string]string{"through": "wal", "unix-excl": "wal", "unix-dotfile": "delete", "unix-none": "delete"} {
		for _, over := range []string{"none", "over", "names"} {
			t.Run(below+" under, "+over, func(t *testing.T) {
				t.Parallel()
				p := newPlace(t)
				r := run(t, p.dir, p.env, "", program, extension(t), below, over, strings.Replace(p.uri(""), "vfs=walferry&", "", 1))
				if r.code != 0 {
					t.Fatalf("exit status %d\n%s%.3000s", r.code, r.stdout, r.stderr)
				}
				if both := below == "through" || over != "none"; both == strings.Contains(r.stderr, "calls 0\n") {
					t.Errorf("the shim was not used, or used where it should not be: %s", r.stderr)
				}
				lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
				if len(lines) != 5 || lines[0] != "50" || lines[1] != mode || lines[3] != "51" {
					t.Fatalf("%s", r.stdout)
				}
				s := parseStatus(t, lines[4])
				if mode == "wal" {
					if s["state"] != "shipping" {
						t.Errorf("status %v", s)
					}
					p.comesBack()
					return
				}
				if cause, _ := s["cause"].(string); s["state"] != "off" || !strings.Contains(cause, below) || !strings.Contains(lines[2], below) {
					t.Errorf("status %v, sync: %s", s, lines[2])
				}
				if exists(p.objects) || exists(p.db+"-ledger") {
					t.Error("something of the replication was made")
				}
			})
		}
	}
}

// TestShims_LoadedAgain loads the extension for another connection, as programs do for each. A
// VFS above walferry that is the default by then stays there; where SQLite was shut down
// meanwhile, and its own VFS is the default, walferry becomes it again.
func TestShims_LoadedAgain(t *testing.T) {
	program := compile(t, "shims.c", "-lsqlite3")
	for _, meanwhile := range []string{"again", "shutdown"} {
		t.Run(meanwhile, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p = p.with("WALFERRY_DEFAULT=1", "WALFERRY_REPLICA="+p.replica)
			r := run(t, p.dir, p.env, "", program, extension(t), "unix", meanwhile, strings.Replace(p.uri(""), "vfs=walferry&", "", 1)).ok(t)
			if over := meanwhile == "again"; over == strings.Contains(r.stderr, "calls 0\n") {
				t.Error("the VFS above is bypassed, or used where there is none")
			}
			if lines := strings.Split(strings.TrimSpace(r.stdout), "\n"); parseStatus(t, lines[len(lines)-1])["state"] != "shipping" {
				t.Errorf("status %s", lines[len(lines)-1])
			}
			p.comesBack()
		})
	}
}

// TestShims_AnEncryptedDatabaseShips has its pages encrypted above walferry, as SQLCipher and
// others do. Nothing of it is readable without the key, and nothing has to be: what is
// restored opens with it.
func TestShims_AnEncryptedDatabaseShips(t *testing.T) {
	t.Parallel()
	program := compile(t, "shims.c", "-lsqlite3")
	p := newPlace(t)
	for round, rows := range []string{"51", "102"} {
		r := run(t, p.dir, p.env, "", program, extension(t), "unix", "secret", strings.Replace(p.uri(""), "vfs=walferry&", "", 1)).ok(t)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		if s := parseStatus(t, lines[len(lines)-1]); s["state"] != "shipping" {
			t.Fatalf("status %v", s)
		}
		if len(r.errors()) != 0 {
			t.Errorf("the log says %q", r.errors())
		}
		out := p.restored()
		mustEqual(t, "restore", out, p.db)
		mustEqual(t, "litestream's restore", p.byLitestream(), p.db)
		if b, _ := os.ReadFile(out); strings.Contains(string(b), "SQLite format 3") || strings.Contains(string(b), "CREATE TABLE") {
			t.Error("it is readable without the key")
		}
		if got := run(t, p.dir, p.env, "", program, "read", out).ok(t).stdout; got != rows+"\nok\n" {
			t.Errorf("round %d: with the key it reads %q", round, got)
		}
	}
}
