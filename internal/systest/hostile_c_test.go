package systest

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// TestHostile_TheCCodeReadsAnything lets what runs on the commit path meet random shared memory,
// under the sanitizers. WALFERRY_TEST_ROUNDS is how often.
func TestHostile_TheCCodeReadsAnything(t *testing.T) {
	t.Parallel()
	cext := filepath.Join(top(), "cext")
	program := compile(t, "hostile.c", "-g", "-std=gnu11", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I"+cext,
		filepath.Join(cext, "mark.c"), filepath.Join(cext, "db.c"), filepath.Join(cext, "walindex.c"), "-lsqlite3", "-lpthread")
	p, seed := newPlace(t), rand.Uint32()
	if r := run(t, p.dir, p.env, "", program, p.db, fmt.Sprint(seed), fmt.Sprint(rounds(t, 40))); r.code != 0 || r.stdout != "done\n" {
		t.Errorf("seed %d: exit status %d: %s", seed, r.code, r.stderr)
	}
}
