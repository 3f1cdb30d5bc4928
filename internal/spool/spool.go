// Package spool keeps bytes that may be many until they are sent.
package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// memory is how much of a spool is kept in memory where nothing else is said: a
// second of most databases.
const memory = 1 << 20

// Spool keeps bytes in memory, and beyond a bound in an unlinked file of a
// directory: for a database its own, the disk that has room for the database, rather
// than a /tmp that may be memory. What is left of it by a crash is nothing. It
// belongs to one goroutine at a time; several may read once it is flushed.
//
// The memory is kept from one use to the next: a bound that is let go and grown again
// each second keeps the garbage collector busy.
type Spool struct {
	Dir    string // of the file
	Memory int    // bytes; 0 for 1 MiB

	buf  []byte
	file *os.File
	size int64
}

func (s *Spool) bound() int {
	if s.Memory > 0 {
		return s.Memory
	}
	return memory
}

// Write appends.
func (s *Spool) Write(p []byte) (int, error) {
	if len(s.buf)+len(p) > s.bound() {
		if s.file == nil {
			f, err := unlinkedFile(s.Dir)
			if err != nil {
				return 0, fmt.Errorf("open temporary file: %w", err)
			}
			s.file = f
		}
		if err := s.Flush(); err != nil {
			return 0, err
		}
	}
	if need := len(s.buf) + len(p); need > cap(s.buf) {
		s.buf = append(make([]byte, 0, max(need, min(4*cap(s.buf), s.bound()))), s.buf...)
	}
	s.buf = append(s.buf, p...)
	s.size += int64(len(p))
	return len(p), nil
}

// Flush must be called before the spool is read.
func (s *Spool) Flush() error {
	if s.file == nil || len(s.buf) == 0 {
		return nil
	}
	if _, err := s.file.Write(s.buf); err != nil {
		return fmt.Errorf("write temporary file in %q: %w", s.Dir, err)
	}
	s.buf = s.buf[:0]
	return nil
}

// ReadAt is part of io.ReaderAt.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	if off >= int64(len(s.buf)) {
		return 0, io.EOF
	}
	n := copy(p, s.buf[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size is how many bytes were written.
func (s *Spool) Size() int64 { return s.size }

// Spilled reports that there is a file.
func (s *Spool) Spilled() bool { return s.file != nil }

// Reset empties the spool and frees its file.
func (s *Spool) Reset() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.buf, s.size = s.buf[:0], 0
}

func unlinkedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "walferry-spool")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, ".walferry-spool-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
