package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestC_AProgramLinksTheInstalledLibrary installs below a directory, as a packager
// does, and builds and runs a program with what pkg-config says.
func TestC_AProgramLinksTheInstalledLibrary(t *testing.T) {
	t.Parallel()
	artefact(t, "libwalferry.a")
	p := newPlace(t)
	root := tempDir(t)
	prefix := fmt.Sprintf("/opt/walferry%d", os.Getpid()) // not that of an earlier install
	// The variables of a make that runs the tests are not for this one.
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS") })
	install := run(t, top(), env, "", tool(t, "make"), "--no-print-directory", "install", "PREFIX="+prefix, "DESTDIR="+root).ok(t)
	for _, name := range []string{"bin/walferry", "lib/walferry.so", "lib/libwalferry.a", "include/walferry.h", "lib/pkgconfig/walferry.pc"} {
		if !exists(filepath.Join(root, prefix, name)) {
			t.Errorf("%s was not installed:\n%s%s", name, install.stdout, install.stderr)
		}
	}
	env = append(p.env, "PKG_CONFIG_PATH="+filepath.Join(root, prefix, "lib/pkgconfig"), "PKG_CONFIG_SYSROOT_DIR="+root)
	pkgConfig := func(args ...string) string {
		return strings.TrimSpace(run(t, p.dir, env, "", tool(t, "pkg-config"), append(args, "walferry")...).ok(t).stdout)
	}
	pc, err := os.ReadFile(filepath.Join(root, prefix, "lib/pkgconfig/walferry.pc"))
	if err != nil || !strings.HasPrefix(string(pc), "prefix="+prefix+"\n") {
		t.Fatalf("after make install PREFIX=%s walferry.pc is %v\n%s", prefix, err, pc)
	}
	out := filepath.Join(p.dir, "app")
	args := []string{"-Wall", "-Wextra", "-Werror", "-o", out, script("app.c")}
	args = append(args, strings.Fields(pkgConfig("--cflags", "--libs"))...)
	run(t, p.dir, env, "", tool(t, "gcc"), args...).ok(t)

	r := run(t, p.dir, p.env, "", out, p.uri("")).ok(t)
	if want := pkgConfig("--modversion") + "\n1\n"; r.stdout != want || len(r.errors()) != 0 {
		t.Errorf("stdout %q, want %q; stderr %q", r.stdout, want, r.stderr)
	}
	p.comesBack()
	if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "first,last" {
		t.Errorf("restored %q", got)
	}
}
