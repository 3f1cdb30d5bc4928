package objstore

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/walferry/walferry/internal/group"
)

// sending is what a request's body is read from. The HTTP client reads it in a goroutine
// of its own, where nobody recovers: a panic is an error there, and check panics with
// it where the request was made.
type sending struct {
	io.ReaderAt
	panicked atomic.Pointer[group.Panic]
}

var errBodyPanicked = errors.New("reading the body panicked")

// ReadAt is part of io.ReaderAt.
func (s *sending) ReadAt(b []byte, off int64) (n int, err error) {
	if p := group.Catch(func() { n, err = s.ReaderAt.ReadAt(b, off) }); p != nil {
		s.panicked.CompareAndSwap(nil, p)
		return 0, errBodyPanicked
	}
	return n, err
}

// check is to be called when the request has ended.
func (s *sending) check() {
	if p := s.panicked.Load(); p != nil {
		panic(p)
	}
}
