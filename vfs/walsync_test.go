package vfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// recordSyncs notes what is synced, by name, until the test ends. fail, if it
// returns an error, decides about each.
func recordSyncs(t *testing.T, fail func(name string) error) *[]string {
	t.Helper()
	var names []string
	record := func(then func(int) error) func(int) error {
		return func(fd int) error {
			name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil {
				t.Error(err)
			}
			names = append(names, filepath.Base(name))
			if err := fail(name); err != nil {
				return err
			}
			return then(fd)
		}
	}
	fdatasync, fsync = record(unix.Fdatasync), record(unix.Fsync)
	t.Cleanup(func() { fdatasync, fsync = unix.Fdatasync, unix.Fsync })
	return &names
}

func TestTheWALAndItsNameAreSynced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	failing := ""
	synced := recordSyncs(t, func(name string) error {
		if failing != "" && strings.HasSuffix(name, failing) {
			return unix.EIO
		}
		return nil
	})
	w := walSync{database: filepath.Join(dir, "app.db")}
	step := func(what string, wantErr bool, want ...string) {
		t.Helper()
		*synced = nil
		err := w.sync()
		if (err != nil) != wantErr || wantErr && (!errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "sync_before_ship")) {
			t.Errorf("%s: error %v", what, err)
		}
		if !slices.Equal(*synced, want) {
			t.Errorf("%s: synced %q, want %q", what, *synced, want)
		}
	}
	write := func() {
		t.Helper()
		if err := os.WriteFile(w.database+"-wal", []byte("frames"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	step("no WAL", false)
	write()
	step("a new WAL", false, "app.db-wal", "dir")
	step("the same WAL", false, "app.db-wal")
	failing = "-wal"
	step("a disk that fails", true, "app.db-wal")
	failing = ""
	step("one that works again", false, "app.db-wal")
	os.Remove(w.database + "-wal")
	step("after a last close", false)
	write()
	failing = "dir"
	step("a directory that fails", true, "app.db-wal", "dir")
	failing = ""
	step("one that works again", false, "app.db-wal", "dir")
}
