package shipper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// spoolMemory is how much of a batch is kept in memory: a second of most
// databases. It is kept from batch to batch; a bound that is let go and grown again
// each second keeps the garbage collector busy.
const spoolMemory = 1 << 20

// spool keeps bytes in memory, and beyond a bound in an unlinked file of the
// database's directory: the disk that has room for the database rather than a
// /tmp that may be memory. What is left of it by a crash is nothing.
type spool struct {
	dir  string
	buf  []byte
	file *os.File
	size int64
}

func (s *spool) Write(p []byte) (int, error) {
	if len(s.buf)+len(p) > spoolMemory {
		if s.file == nil {
			f, err := unlinkedFile(s.dir)
			if err != nil {
				return 0, fmt.Errorf("open temporary file for a large batch: %w", err)
			}
			s.file = f
		}
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if need := len(s.buf) + len(p); need > cap(s.buf) {
		s.buf = append(make([]byte, 0, max(need, min(4*cap(s.buf), spoolMemory))), s.buf...)
	}
	s.buf = append(s.buf, p...)
	s.size += int64(len(p))
	return len(p), nil
}

// flush must be called before the spool is read.
func (s *spool) flush() error {
	if s.file == nil || len(s.buf) == 0 {
		return nil
	}
	if _, err := s.file.Write(s.buf); err != nil {
		return fmt.Errorf("write temporary file of a large batch: %w", err)
	}
	s.buf = s.buf[:0]
	return nil
}

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
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

func (s *spool) Size() int64 { return s.size }

// reset empties the spool.
func (s *spool) reset() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.buf, s.size = s.buf[:0], 0
}

func unlinkedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "walferry-batch")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".walferry-batch-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
