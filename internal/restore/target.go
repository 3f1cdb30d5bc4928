package restore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/ledger"
)

// beside are the files that belong to a database by their names.
var beside = []string{ledger.Suffix, "-wal", "-shm", "-journal"}

// target is where the database goes, and the temporary files that become it.
type target struct {
	path  string // with symbolic links followed, as SQLite does
	force bool
	fresh bool        // as Options has it
	old   fs.FileInfo // of the file that is replaced, nil if there is none

	descriptors ledger.Descriptors

	db     *os.File
	ledger *ledger.Ledger
	role   *ledger.Lock
}

// newTarget looks whether out may be written, and writes nothing.
func newTarget(out string, force, fresh bool) (*target, error) {
	path, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	t := &target{path: path, force: force, fresh: fresh && !force}
	t.old, err = os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at target: %w", err)
	}
	if t.old != nil && t.old.IsDir() {
		return nil, fmt.Errorf("%w: %s is a directory; name a file in it", ErrExists, out)
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("look at target's directory: %w", err)
	} else if !dir.IsDir() {
		return nil, fmt.Errorf("look at target's directory: %s is none", filepath.Dir(path))
	}
	switch {
	case t.fresh: // a process may be at it; that matters only if there is something to restore
		return t, t.gone()
	case !force:
		return t, t.vacant()
	}
	unlock, err := t.claim()
	if err != nil {
		return nil, err
	}
	unlock()
	return t, nil
}

// vacant is nil if neither the target nor a file that belongs to it exists.
func (t *target) vacant() error {
	var there []string
	for _, suffix := range append([]string{""}, beside...) {
		if _, err := os.Lstat(t.path + suffix); err == nil {
			there = append(there, filepath.Base(t.path)+suffix)
		}
	}
	if there == nil {
		return nil
	}
	return fmt.Errorf("%w: %s in %s; give another name, or -force to replace it",
		ErrExists, strings.Join(there, ", "), filepath.Dir(t.path))
}

// gone is nil if there is no database but at most what one that is lost has left.
func (t *target) gone() error {
	if fi, err := os.Lstat(t.path); err == nil && (!fi.Mode().IsRegular() || fi.Size() > 0) {
		return fmt.Errorf("%w: %s", ErrExists, t.path)
	}
	return nil
}

// unclaimed is nil if no process ships the database.
func (t *target) unclaimed() error {
	l, err := ledger.OpenReadOnly(t.path)
	if err != nil {
		return nil
	}
	defer l.Close()
	if l.Locked() {
		return fmt.Errorf("%w: a process replicates %s; stop it first", ErrInUse, t.path)
	}
	return nil
}

// Bytes of a database file that SQLite locks: every connection that reads, and in WAL
// mode every one that is open, holds a lock on some of them.
const (
	lockStart = 0x40000000
	lockBytes = 512
)

// claim locks the database that is to be replaced against every SQLite until
// unlock is called, or returns ErrInUse.
//
// To close the file drops every lock that this process holds on it through
// SQLite: so this package is not for processes that have the target open themselves.
func (t *target) claim() (unlock func(), err error) {
	if err := t.unclaimed(); err != nil {
		return nil, err
	}
	if t.old == nil || !t.old.Mode().IsRegular() {
		return func() {}, nil
	}
	f, err := os.OpenFile(t.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock the database that is to be replaced: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: lockStart, Len: lockBytes}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err {
	case nil:
		return func() { f.Close() }, nil
	case unix.EAGAIN, unix.EACCES:
		f.Close()
		return nil, fmt.Errorf("%w: a process has %s open; stop it first", ErrInUse, t.path)
	default:
		f.Close()
		return nil, fmt.Errorf("lock the database that is to be replaced: %w", err)
	}
}

func (t *target) create() (b *builder, err error) {
	if t.fresh {
		if err := t.unclaimed(); err != nil {
			return nil, err
		}
	}
	mode := fs.FileMode(0o644) // SQLite's own; the umask takes its part
	if t.old != nil {
		mode = 0o600 // until it has the owner of the old one
	}
	name := fmt.Sprintf(".%s.walferry-restore-%s", filepath.Base(t.path), rand.Text()[:12])
	tmp := filepath.Join(filepath.Dir(t.path), name)
	if t.db, err = os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if t.old != nil && t.old.Mode().IsRegular() {
		if st, ok := t.old.Sys().(*syscall.Stat_t); ok {
			_ = t.db.Chown(int(st.Uid), int(st.Gid)) // only root may give a file away
		}
		if err := t.db.Chmod(t.old.Mode().Perm()); err != nil {
			return nil, fmt.Errorf("create database: %w", err)
		}
	}
	if t.ledger, err = ledger.Open(tmp); err != nil {
		return nil, err
	}
	if t.role, err = t.ledger.TryLock(t.descriptors); err != nil {
		return nil, err
	}
	if err := t.ledger.Reset(tmp); err != nil {
		return nil, err
	}
	return &builder{db: t.db, ledger: t.ledger, lasting: true}, nil
}

func (t *target) discard() {
	if t.role != nil {
		t.role.Unlock()
	}
	if t.ledger != nil {
		t.ledger.Close()
	}
	if t.db != nil {
		t.db.Close()
		os.Remove(t.db.Name())
		os.Remove(t.db.Name() + ledger.Suffix)
	}
	t.role, t.ledger, t.db = nil, nil, nil
}
