package restore

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/ledger"
)

// commit gives the temporary files, which are complete and on disk, the
// target's name, the ledger unless it is of the past. A crash between any two steps leaves the old database, none, or the new
// one without a ledger: never a database beside the WAL or the ledger of another. Where
// it is to be fresh the ledger comes first, so that the new one is never without: others open it as
// soon as it has its name, and would begin a ledger that cannot prove whose the replica is.
func (t *target) commit(past bool) error {
	tmp := t.db.Name()
	switch {
	case t.fresh:
		if err := t.unclaimed(); err != nil {
			return err
		}
		if err := t.gone(); err != nil {
			return err
		}
		if err := t.clear(append(beside, "")); err != nil {
			return err
		}
	case t.force:
		unlock, err := t.claim()
		if err != nil {
			return err
		}
		defer unlock()
		if err := t.clear(beside); err != nil {
			return err
		}
	default:
		if err := t.vacant(); err != nil {
			return err
		}
	}
	if past {
		if err := t.rename(tmp, t.path); err != nil {
			return fmt.Errorf("rename database: %w", err)
		}
		return t.syncDir() // discard removes the ledger
	}
	before := ledger.StampOf(tmp)
	settled := settle(before.MtimeNs)
	if t.fresh {
		if err := t.rename(tmp+ledger.Suffix, t.path+ledger.Suffix); err != nil {
			return fmt.Errorf("rename ledger: %w", err)
		}
	}
	if err := t.rename(tmp, t.path); err != nil {
		if t.fresh { // it belongs to no database now, least of all to one that has appeared
			if err := t.ledger.Reset(t.path); err != nil {
				return err
			}
		}
		return fmt.Errorf("rename database: %w", err)
	}
	if err := t.stamp(before, settled); err != nil {
		return fmt.Errorf("%s is restored, but without its ledger: %w", t.path, err)
	}
	if t.fresh {
		return t.syncDir()
	}
	if err := t.rename(tmp+ledger.Suffix, t.path+ledger.Suffix); err != nil {
		return fmt.Errorf("%s is restored, but without its ledger: rename ledger: %w", t.path, err)
	}
	return t.syncDir()
}

// clear removes files that belong to the old database.
func (t *target) clear(suffixes []string) error {
	for _, suffix := range suffixes {
		if err := os.Remove(t.path + suffix); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove what belongs to the old database: %w", err)
		}
	}
	return t.syncDir()
}

// stamp records what the database file looks like, which at its first opening tells
// that nobody has written to it since. Somebody may have, from the moment it had its name;
// so the stamp is given only to the file that was written here: its time of modification is
// still that of before, and every write after settle has a later one.
func (t *target) stamp(before ledger.Stamp, settled bool) error {
	s := ledger.StampOf(t.path)
	settled = settle(s.CtimeNs) && settled
	after := ledger.StampOf(t.path)
	same := s == after && s.Dev == before.Dev && s.Ino == before.Ino && s.Size == before.Size && s.MtimeNs == before.MtimeNs
	if settled && same {
		t.ledger.Header().Stamp = after
	}
	return t.ledger.Sync()
}

// settle waits until the clock that files get their times from is past a time, so that
// whatever is written from now on gets another. It gives up after a while: the clock
// may be another machine's.
func settle(ns int64) bool {
	for range 100 {
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil {
			return false
		}
		if now.Nano() > ns {
			return true
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // the kernel's clock, not the tests'
	}
	return false
}

// rename replaces nothing unless forced, whatever has appeared meanwhile.
func (t *target) rename(from, to string) error {
	if t.force {
		return os.Rename(from, to)
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch err {
	case unix.EEXIST:
		return fmt.Errorf("%w: %s has appeared meanwhile", ErrExists, to)
	case unix.EINVAL, unix.ENOSYS: // the file system cannot
		return os.Rename(from, to)
	}
	return err
}

func (t *target) syncDir() error {
	d, err := os.Open(filepath.Dir(t.path))
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
