package systest

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestWalReset_ADatabaseUnderWalferryIsSaferThanWithout forces the interleaving of
// the WAL-reset bug on the machine's SQLite, without walferry, where one that has the
// bug loses commits, and with it.
func TestWalReset_ADatabaseUnderWalferryIsSaferThanWithout(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	program := compile(t, "walreset.c", "-lsqlite3")
	plain := run(t, p.dir, p.env, "", program, filepath.Join(p.dir, "plain.db")).ok(t)
	switch has := p.query(":memory:", "SELECT sqlite_version()"); has {
	case "3.40.1": // Debian 12's
		if !strings.HasPrefix(plain.stdout, "lost: ") {
			t.Errorf("plain SQLite %s was to lose commits, or this test tests nothing: %s", has, plain.stdout)
		}
	default:
		t.Logf("plain SQLite %s: %s", has, plain.stdout)
	}
	shipped := run(t, p.dir, p.env, "", program, p.db, extension(t), "replica="+p.replica).ok(t)
	if shipped.stdout != "sound\n" {
		t.Errorf("under walferry: %s%s", shipped.stdout, shipped.stderr)
	}
	p.comesBack()
}
