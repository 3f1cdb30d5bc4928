package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The system's, save in tests.
var fdatasync, fsync = unix.Fdatasync, unix.Fsync

// walSync makes what a batch has read safe from a power cut: with it the store
// is never ahead of what the machine comes back with (sync_before_ship). One
// goroutine uses it.
//
// What was read lies in the WAL, or in the database since a checkpoint has
// moved it there. The WAL is synced here, by a descriptor of our own: SQLite
// takes no lock on that file, which a close would drop. The database is not, and
// need not be: a checkpoint syncs the WAL before it moves a frame, and the
// database before it lets the WAL restart or be deleted, so what is not in the
// WAL any more is safe already. That holds with synchronous=NORMAL and above. With
// OFF, in whichever program checkpoints, SQLite itself does not know what a power
// cut leaves, and nothing here could tell.
type walSync struct {
	database string
	named    walID // of the WAL whose name is known to be on the disk
}

// walID tells a WAL from one that has taken its place, be it in the same inode.
type walID struct {
	ino  uint64
	born unix.StatxTimestamp
}

func (w *walSync) sync() error {
	if err := w.try(); err != nil {
		return fmt.Errorf("sync_before_ship: nothing is put before the WAL is on the disk, and that failed; look at the disk: %w", err)
	}
	return nil
}

func (w *walSync) try() error {
	f, err := os.Open(w.database + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		w.named = walID{} // the next may get the same inode in the same tick of the clock
		return nil        // a last close has checkpointed all of it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	id := walID{st.Ino, st.Btime}
	if id == w.named && st.Mask&unix.STATX_BTIME != 0 {
		return nil
	}
	// A new WAL: SQLite syncs the directory with its own first sync of the
	// file, which a connection with synchronous=OFF leaves out.
	dir, err := os.Open(filepath.Dir(w.database))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fsync(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	w.named = id
	return nil
}
