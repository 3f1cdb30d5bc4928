package restore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

type key struct {
	level    int
	min, max ltx.TXID
}

// memStore is a store in memory whose reads can be made to fail.
type memStore struct {
	mu      sync.Mutex
	objects map[key][]byte
	sums    map[key]uint64
	marks   []objstore.Mark
	opens   int
	served  atomic.Int64 // bytes

	sizes map[key]int64 // where a listing says something else
	wait  time.Duration // that each read takes
	most  atomic.Int64  // reads at a time
	now   atomic.Int64

	// open, if set, decides about each read before it is made.
	open func(o objstore.Object, off int64, nth int) error
	// stall, if set, makes reads wait for the end of their context.
	stall func(nth int) bool
	// cut, if set, is how many bytes a read gives before its connection breaks.
	cut func(nth int) (n int64, ok bool)
}

func newMemStore() *memStore {
	return &memStore{objects: map[key][]byte{}, sums: map[key]uint64{}}
}

func keyOf(o objstore.Object) key { return key{o.Level, o.Min, o.Max} }

func (s *memStore) String() string { return "mem://test" }

func (s *memStore) List(_ context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []objstore.Object
	for k, b := range s.objects {
		if k.level == level && k.min >= from {
			size, ok := s.sizes[k]
			if !ok {
				size = int64(len(b))
			}
			all = append(all, objstore.Object{Level: level, Min: k.min, Max: k.max, Size: size})
		}
	}
	slices.SortFunc(all, func(a, b objstore.Object) int {
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	return all, nil
}

func (s *memStore) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.opens++
	nth := s.opens
	b, ok := s.objects[keyOf(o)]
	s.mu.Unlock()
	if s.open != nil {
		if err := s.open(o, off, nth); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, fmt.Errorf("open %s: %w", o, objstore.ErrNotExist)
	}
	if s.stall != nil && s.stall(nth) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.wait > 0 {
		if n := s.now.Add(1); n > s.most.Load() {
			s.most.Store(n)
		}
		time.Sleep(s.wait) // in a bubble
		s.now.Add(-1)
	}
	b = b[min(off, int64(len(b))):]
	if n >= 0 {
		b = b[:min(n, int64(len(b)))]
	}
	if s.cut != nil {
		if n, ok := s.cut(nth); ok {
			return io.NopCloser(io.MultiReader(bytes.NewReader(b[:min(n, int64(len(b)))]), brokenReader{})), nil
		}
	}
	return io.NopCloser(&servedReader{bytes.NewReader(b), &s.served}), ctx.Err()
}

// servedReader counts what is read.
type servedReader struct {
	r io.Reader
	n *atomic.Int64
}

func (r *servedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.n.Add(int64(n))
	return n, err
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, fmt.Errorf("connection reset") }

func (s *memStore) Meta(_ context.Context, o objstore.Object) (objstore.Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[keyOf(o)]; !ok {
		return objstore.Meta{}, objstore.ErrNotExist
	}
	return objstore.Meta{Checksum: s.sums[keyOf(o)]}, nil
}

func (s *memStore) Create(context.Context, objstore.Object, objstore.Body, objstore.Meta, func(string)) error {
	panic("restore writes nothing")
}

func (s *memStore) Remove(_ context.Context, o objstore.Object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, keyOf(o))
	return nil
}

func (s *memStore) Marks(context.Context) ([]objstore.Mark, error) { return s.marks, nil }

func (s *memStore) PutMark(context.Context, objstore.Mark) error {
	panic("restore writes nothing")
}

func (s *memStore) RemoveMark(context.Context, objstore.Mark) error {
	panic("restore writes nothing")
}

func (s *memStore) RemoveAll(ctx context.Context, objs []objstore.Object) error {
	for _, o := range objs {
		_ = s.Remove(ctx, o)
	}
	return nil
}

func (s *memStore) AbortUpload(context.Context, objstore.Object, string) error { return nil }
func (s *memStore) Conditional(context.Context) (bool, error)                  { return true, nil }

var background = context.Background()
