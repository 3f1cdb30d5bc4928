package systest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestOwner_FilesAreForThoseWhoHaveTheDatabase compares what walferry makes beside a
// database with what SQLite does, whatever the umask is. A replica is its owner's alone.
func TestOwner_FilesAreForThoseWhoHaveTheDatabase(t *testing.T) {
	for _, c := range []struct{ name, umask, mode string }{
		{"usual", "022", ""}, {"private", "077", ""}, {"a group's", "002", ""}, {"open", "000", ""},
		{"private database, open umask", "000", "600"}, {"open database, private umask", "077", "666"}, {"a group reads", "022", "640"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			owner := os.Geteuid()
			if owner == 0 && c.mode != "" {
				owner = 65534
			}
			p.python(`
umask, mode, owner = sys.argv[1:]
os.umask(int(umask, 8))
if mode:
    open(DB, "w").close()
    os.chmod(DB, int(mode, 8))
    if os.geteuid() == 0:
        os.chown(DB, int(owner), int(owner))
c = connect()
c.execute("CREATE TABLE t(v)")
while one(c, "PRAGMA journal_mode") != "wal": # switched by a commit that nobody met
    c.execute("INSERT INTO t VALUES(0)")
    one(c, "SELECT count(*) FROM t") # a connection learns of it with its next read
c.execute("INSERT INTO t VALUES(1)")
confirm(c)
want = os.stat(DB)
for suffix in ("-wal", "-shm", "-ledger"):
    is_ = os.stat(DB + suffix)
    assert (is_.st_mode, is_.st_uid, is_.st_gid) == (want.st_mode, want.st_uid, want.st_gid), (suffix, oct(is_.st_mode), oct(want.st_mode), is_.st_uid, want.st_uid)
c.close()
`, c.umask, c.mode, strconv.Itoa(owner))
			err := filepath.WalkDir(p.objects, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				fi, err := d.Info()
				want := fs.FileMode(0o600)
				if d.IsDir() {
					want = 0o700
				}
				if err == nil && fi.Mode().Perm() != want {
					t.Errorf("%s: mode %v", path, fi.Mode())
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(p.dir, "restored.db")
			shell := `umask ` + c.umask + ` && "$0" restore -o "$1" "$2"`
			run(t, p.dir, p.env, "", "/bin/sh", "-c", shell, artefact(t, "walferry"), out, p.replica).ok(t)
			run(t, p.dir, p.env, "", "/bin/sh", "-c", `umask `+c.umask+` && : > plain`).ok(t)
			plain, db, ledger := stat(t, filepath.Join(p.dir, "plain")), stat(t, out), stat(t, out+"-ledger")
			if want := plain.Mode() &^ 0o022; db.Mode() != want || ledger.Mode() != want {
				t.Errorf("restored with mode %v, its ledger %v, want %v", db.Mode(), ledger.Mode(), want)
			}
			if files, _ := filepath.Glob(filepath.Join(p.dir, ".*")); len(files) != 0 {
				t.Errorf("left: %q", files)
			}
			if c.mode == "" {
				return
			}
			// In the place of one that is there it takes that one's owner and mode.
			was := stat(t, p.db)
			run(t, p.dir, p.env, "", "/bin/sh", "-c", strings.Replace(shell, "-o", "-delta -o", 1), artefact(t, "walferry"), p.db, p.replica).ok(t)
			for _, name := range []string{p.db, p.db + "-ledger"} {
				if is := stat(t, name); is.Mode() != was.Mode() || is.Sys().(*syscall.Stat_t).Uid != was.Sys().(*syscall.Stat_t).Uid {
					t.Errorf("%s: mode %v, owner %d after a restore, before it %v", name, is.Mode(), is.Sys().(*syscall.Stat_t).Uid, was.Mode())
				}
			}
		})
	}
}

func stat(t *testing.T, name string) fs.FileInfo {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}
