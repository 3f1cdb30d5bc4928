package vfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/restore"
)

// bringBack is restore=auto: where a database is gone and the replica holds one, it is
// restored before the open goes on. One process does it, and the others wait for it. If
// the replica holds nothing the open makes a new database. Whatever else goes wrong is
// an error, since an empty database in the place of the real one would soon be taken for it.
//
// The database is never opened here: to close it would drop this process's locks.
func (p *process) bringBack(path string, o options) (err error) {
	if !o.restore || !isGone(path) || p.hasOpen(path) {
		return nil
	}
	if why := p.whyBroken(); why != "" {
		return fmt.Errorf("restore=auto: the database is gone and cannot be restored: %s", why)
	}
	defer p.caught(&err)
	cext.SetLogLevel(o.logLevel)
	unlock, err := lockRestore(path)
	if err != nil {
		return fmt.Errorf("restore=auto: %w", err)
	}
	defer unlock()
	if !isGone(path) {
		return nil
	}
	sweep(path)
	store, err := newStore(o.replica, o.store)
	if err != nil {
		return err
	}
	r, err := restore.Restore(context.Background(), store, path, restore.Options{Fresh: true, Descriptors: descriptors})
	switch {
	case err == nil:
		cext.Log(cext.LogInfo, fmt.Sprintf("%s: restored %s at TXID %s from %s in %v", path, humanize.Bytes(uint64(r.Size())), r.TXID, o.replica, r.Duration.Round(time.Millisecond)))
	case errors.Is(err, history.ErrNothing):
		cext.Log(cext.LogInfo, fmt.Sprintf("%s: there is nothing to restore at %s: a new database begins", path, o.replica))
	case (errors.Is(err, restore.ErrExists) || errors.Is(err, restore.ErrInUse)) && !isGone(path):
		// Another process has begun the database: what it has shipped is the replica's
		// content. Or one that does not restore was faster.
		cext.Log(cext.LogInfo, fmt.Sprintf("%s: restore=auto: %v", path, err))
	default:
		return fmt.Errorf("restore=auto: the database is gone and could not be restored: %w (restore=off begins a new one)", err)
	}
	return nil
}

// descriptors are closed in a forked child.
var descriptors = ledger.Descriptors{Open: cext.OpenLockFD, Close: cext.CloseLockFD}

// isGone reports that there is no database, or an empty file.
func isGone(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return fi.Mode().IsRegular() && fi.Size() == 0
}

// hasOpen reports that this process uses the database. Where that is gone all the same
// it is one that has just begun.
func (p *process) hasOpen(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.databases[path] != nil
}

// hidden is how the files of a restore under way begin, as internal/restore has it.
func hidden(path string) string { return "." + filepath.Base(path) + ".walferry-restore-" }

// lockRestore waits until no other process restores the database. The lock is the kernel's,
// so that it ends with whoever holds it; its file is removed with it.
func lockRestore(path string) (unlock func(), err error) {
	name := filepath.Join(filepath.Dir(path), hidden(path)+"lock")
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the restore: %w", err)
		}
		f.Close()
		fd, err := cext.OpenLockFD(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever held it has just removed it
		}
		if err != nil {
			return nil, fmt.Errorf("lock the restore: %w", err)
		}
		if err := flock(fd); err != nil {
			cext.CloseLockFD(fd)
			return nil, fmt.Errorf("lock the restore: %w", err)
		}
		var mine, there unix.Stat_t
		if unix.Fstat(fd, &mine) == nil && unix.Stat(name, &there) == nil && mine.Dev == there.Dev && mine.Ino == there.Ino {
			return func() {
				_ = os.Remove(name) // what is left is taken by the next one
				cext.CloseLockFD(fd)
			}, nil
		}
		cext.CloseLockFD(fd) // the lock of a file that its owner has removed
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// sweep removes what restores have left that were killed: those under way hold their
// ledger's lock. What it cannot remove is only in the way of the disk's space.
func sweep(path string) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	left := regexp.MustCompile("^" + regexp.QuoteMeta(hidden(path)) + "[A-Z2-7]{12}$")
	for _, e := range entries {
		if !left.MatchString(e.Name()) {
			continue
		}
		tmp := filepath.Join(dir, e.Name())
		l, err := ledger.OpenReadOnly(tmp)
		if err != nil {
			continue // none yet, or not of this version
		}
		locked := l.Locked()
		l.Close()
		if !locked {
			_ = os.Remove(tmp)
			_ = os.Remove(tmp + ledger.Suffix)
		}
	}
}
