package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"
)

// Meta's checksum, as 16 hexadecimal digits, and its window. The time is the file's own, as
// Litestream reads it.
const (
	xattrChecksum = "user.walferry.checksum"
	xattrWindow   = "user.walferry.window"
)

// fileStore keeps a replica as <dir>/ltx/<level>/<name>.
type fileStore struct {
	dir  string
	tell func(int64)

	made sync.Map // directories whose entry this process knows to be on the disk
}

func newFileStore(dir string, tell func(int64)) *fileStore {
	if tell == nil {
		tell = func(int64) {}
	}
	return &fileStore{dir: dir, tell: tell}
}

// String is part of Store.
func (s *fileStore) String() string {
	u := url.URL{Scheme: "file", Path: s.dir}
	return u.String()
}

func (s *fileStore) level(n int) string { return filepath.Join(s.dir, "ltx", strconv.Itoa(n)) }

func (s *fileStore) path(o Object) string { return filepath.Join(s.level(o.Level), o.Name()) }

// List is part of Store.
func (s *fileStore) List(ctx context.Context, level int, from ltx.TXID) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list level %d: %w", level, err)
	}
	s.tell(0)
	entries, err := os.ReadDir(s.level(level))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.fail("list", fmt.Sprintf("level %d", level), err)
	}
	var objs []Object
	for _, e := range entries {
		o, ok := parseName(level, e.Name())
		if !ok || o.Min < from || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, s.fail("list", fmt.Sprintf("level %d", level), err)
		}
		o.Size, o.ModTime, o.Tag = info.Size(), info.ModTime(), tagOf(info)
		objs = append(objs, o)
	}
	sortObjects(objs)
	return objs, nil
}

// Open is part of Store.
func (s *fileStore) Open(ctx context.Context, o Object, off, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open %v: %w", o, err)
	}
	s.tell(0)
	// Without waiting, should somebody have put a pipe there.
	f, err := os.OpenFile(s.path(o), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, s.fail("open", o, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		err = is(o, tagOf(info))
	}
	if err == nil && n != 0 && off >= info.Size() {
		err = ErrRange // as a bucket answers, so that no one relies on a directory
	}
	if err != nil {
		f.Close()
		return nil, s.fail("open", o, err)
	}
	if n < 0 {
		n = info.Size() - off
	}
	return fileReader{io.NewSectionReader(f, off, n), f}, nil
}

// tagOf is a file's tag. Of numbers alone a file system gives those of removed files again.
func tagOf(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x-%x", st.Ino, info.ModTime().UnixNano())
}

type fileReader struct {
	io.Reader
	io.Closer
}

// Meta is part of Store.
func (s *fileStore) Meta(ctx context.Context, o Object) (Meta, error) {
	if err := ctx.Err(); err != nil {
		return Meta{}, fmt.Errorf("read metadata of %v: %w", o, err)
	}
	s.tell(0)
	info, err := os.Stat(s.path(o))
	if err == nil {
		err = is(o, tagOf(info))
	}
	if err != nil {
		return Meta{}, s.fail("read metadata of", o, err)
	}
	m := Meta{Timestamp: info.ModTime().UTC()}
	m.Checksum, _ = strconv.ParseUint(s.attribute(o, xattrChecksum), 16, 64)
	m.Window = parseWindow(s.attribute(o, xattrWindow))
	return m, nil
}

// attribute is empty where there is none.
func (s *fileStore) attribute(o Object, name string) string {
	var b [64]byte
	n, err := unix.Getxattr(s.path(o), name, b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// Remove is part of Store.
func (s *fileStore) Remove(ctx context.Context, o Object) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("remove %v: %w", o, err)
	}
	s.tell(0)
	return s.remove(s.level(o.Level), o.Name(), o)
}

func (s *fileStore) remove(dir, name string, noun any) error {
	err := os.Remove(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return s.fail("remove", noun, err)
	}
	return nil
}

// RemoveAll is part of Store. A level's directory is synced once.
func (s *fileStore) RemoveAll(ctx context.Context, objs []Object) error {
	left := new(leftovers)
	var levels []int
	for _, o := range objs {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("remove %v: %w", o, err)
		}
		s.tell(0)
		err := os.Remove(s.path(o))
		switch {
		case err == nil && !slices.Contains(levels, o.Level):
			levels = append(levels, o.Level)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			if left.add(s.fail("remove", o, err)) {
				return left.err()
			}
		}
	}
	for _, level := range levels {
		if err := syncDir(s.level(level)); err != nil {
			left.add(s.fail("remove", fmt.Sprintf("objects of level %d", level), err))
		}
	}
	return left.err()
}

// AbortUpload is part of Store. A directory has no uploads.
func (s *fileStore) AbortUpload(context.Context, Object, string) error { return nil }

// Conditional is part of Store: link(2) never replaces a file. What can fail is
// to write there at all.
func (s *fileStore) Conditional(context.Context) (bool, error) {
	dir := filepath.Dir(s.level(0))
	err := s.makeDir(dir)
	if err == nil {
		var f tempFile
		if f, err = openTemp(dir); err == nil {
			f.discard()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%w: %q cannot be made: correct replica=: %w", ErrRefused, dir, err)
	}
	if err != nil {
		return false, s.fail("create", dir, err)
	}
	return true, nil
}

// fail is the one place where the system's errors become those of this package.
func (s *fileStore) fail(verb string, noun any, err error) error {
	var errno unix.Errno
	errors.As(err, &errno)
	var todo string
	switch errno {
	case unix.EACCES, unix.EPERM:
		todo = "no permission in %q: let this user read and write there"
	case unix.EROFS:
		todo = "%q is on a read-only file system: mount it for writing"
	case unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG:
		todo = "%q cannot be a directory: correct replica="
	case unix.ENOSPC, unix.EDQUOT:
		return fmt.Errorf("%s %v: no space left for %q: free some there: %w", verb, noun, s.dir, err)
	}
	if todo != "" {
		return fmt.Errorf("%s %v: %w: %s: %w", verb, noun, ErrRefused, fmt.Sprintf(todo, s.dir), err)
	}
	if errors.Is(err, fs.ErrNotExist) && verb != "create" {
		return fmt.Errorf("%s %v: %w", verb, noun, ErrNotExist)
	}
	return fmt.Errorf("%s %v: %w", verb, noun, err)
}
