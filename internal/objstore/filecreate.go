package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A replica holds what the database holds, so that it is its owner's alone.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// copyStep is how many bytes are copied between two looks at the context.
const copyStep = 1 << 20

// Create is part of Store. The bytes go to a file without a name, which gets its
// name, once they are on the disk, by link(2): that fails where the name is taken, and
// a crash before it leaves nothing behind.
func (s *fileStore) Create(ctx context.Context, o Object, body Body, m Meta, _ func(string)) error {
	s.tell(body.Size())
	err := s.create(ctx, s.level(o.Level), o.Name(), body, m)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("create %v: %w", o, ErrExist)
	}
	return s.fail("create", o, err)
}

func (s *fileStore) create(ctx context.Context, dir, name string, body Body, m Meta) error {
	final := filepath.Join(dir, name)
	if _, err := os.Lstat(final); err == nil {
		return fs.ErrExist // spares the copy; the link decides
	}
	if err := s.makeDir(dir); err != nil {
		return err
	}
	f, err := openTemp(dir)
	if err != nil {
		return err
	}
	defer f.discard()
	if err := copyBody(ctx, f.File, body); err != nil {
		return err
	}
	if err := stamp(f.File, m); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.link(final); err != nil {
		return err
	}
	return syncDir(dir)
}

func copyBody(ctx context.Context, w io.Writer, body Body) error {
	for off := int64(0); off < body.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.Copy(w, io.NewSectionReader(body, off, min(copyStep, body.Size()-off)))
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		off += n
	}
	return ctx.Err()
}

// stamp gives a file its metadata. What is beside the time is a help and not a promise: a
// file system without extended attributes does without.
func stamp(f *os.File, m Meta) error {
	for _, attr := range []struct {
		name, value string
		known       bool
	}{{xattrChecksum, fmt.Sprintf("%016x", m.Checksum), m.Checksum != 0}, {xattrWindow, m.Window.String(), m.Window != Window{}}} {
		if !attr.known {
			continue
		}
		switch err := unix.Fsetxattr(int(f.Fd()), attr.name, []byte(attr.value), 0); err {
		case nil, unix.ENOTSUP, unix.ENOSYS, unix.EPERM, unix.E2BIG:
		default:
			return fmt.Errorf("set %s: %w", attr.name, err)
		}
	}
	if m.Timestamp.IsZero() {
		m.Timestamp = time.Now()
	}
	t := unix.NsecToTimeval(m.Timestamp.UnixNano())
	if err := unix.Futimes(int(f.Fd()), []unix.Timeval{t, t}); err != nil {
		return fmt.Errorf("set its time: %w", err)
	}
	return nil
}

// tempFile is a file on its way to a name.
type tempFile struct {
	*os.File
	named bool // it has a hidden name for now
}

// openTemp makes a file without a name, or, where the file system or a missing
// /proc does not allow that, one with a hidden name.
func openTemp(dir string) (tempFile, error) {
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, fileMode)
		if err == nil {
			return tempFile{os.NewFile(uintptr(fd), filepath.Join(dir, "unnamed")), false}, nil
		}
		if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.EINVAL {
			return tempFile{}, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
	}
	return openNamed(dir)
}

func openNamed(dir string) (tempFile, error) {
	f, err := os.CreateTemp(dir, ".walferry-*") // with mode 0600
	return tempFile{f, true}, err
}

// link gives the file its name unless that is taken, which is fs.ErrExist.
func (t *tempFile) link(final string) error {
	if !t.named {
		old := fmt.Sprintf("/proc/self/fd/%d", t.Fd())
		err := unix.Linkat(unix.AT_FDCWD, old, unix.AT_FDCWD, final, unix.AT_SYMLINK_FOLLOW)
		return pathError("link", final, err)
	}
	err := unix.Link(t.Name(), final)
	switch err {
	case unix.EPERM, unix.ENOTSUP, unix.ENOSYS, unix.EMLINK: // no links here, as on FAT
		err = unix.Renameat2(unix.AT_FDCWD, t.Name(), unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
		t.named = err != nil
	}
	return pathError("link", final, err)
}

// discard frees the file; what it was linked to stays.
func (t *tempFile) discard() {
	if t.named {
		_ = os.Remove(t.Name())
	}
	_ = t.Close() // its bytes are on the disk since Sync, or nobody wants them
}

// pathError keeps a nil error nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// makeDir makes a level's directory and those above it. All of their entries are on
// the disk afterwards, also those that another process made and did not sync.
func (s *fileStore) makeDir(dir string) error {
	if _, ok := s.made.Load(dir); ok {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
	}
	for _, d := range []string{s.dir, filepath.Dir(dir), dir} {
		if err := ensureDir(d); err != nil {
			return err
		}
	}
	s.made.Store(dir, nil)
	return nil
}

func ensureDir(dir string) error {
	err := os.Mkdir(dir, dirMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := ensureDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, dirMode)
	}
	existed := errors.Is(err, fs.ErrExist)
	if err != nil && !existed {
		if st, serr := os.Stat(dir); serr != nil || !st.IsDir() { // a read-only parent may answer before it looks
			return err
		}
		existed = true
	}
	err = syncDir(filepath.Dir(dir))
	if existed && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL)) {
		return nil // not ours to sync
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
