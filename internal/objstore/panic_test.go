package objstore_test

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/objstore"
)

// flawedBody panics when it is read for the n-th time from its begin.
type flawedBody struct {
	*bytes.Reader
	good atomic.Int32
}

func (b *flawedBody) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 && b.good.Add(-1) < 0 {
		panic("a fault of walferry's own")
	}
	return b.Reader.ReadAt(p, off)
}

// A body is read once for its sums, and then by a goroutine of the HTTP client's, whose panic
// would end the program. It reaches who called Create instead.
func TestAPanicOfABodyReachesWhoSendsIt(t *testing.T) {
	for name, size := range map[string]int{"in one request": 100, "in parts": 33 << 20} {
		for good := range int32(2) {
			t.Run(name, func(t *testing.T) {
				s, _ := script(t, answers{"GET": "404 NoSuchKey"})
				body := &flawedBody{Reader: bytes.NewReader(make([]byte, size))}
				body.good.Store(good)
				p := group.Catch(func() {
					err := s.Create(t.Context(), object(0, 1, 1), body, objstore.Meta{}, nil)
					t.Errorf("Create returned %v", err)
				})
				if p == nil || p.Value != "a fault of walferry's own" || !bytes.Contains(p.Stack, []byte("flawedBody")) {
					t.Errorf("caught %v", p)
				}
			})
		}
	}
}
