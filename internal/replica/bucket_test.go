package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// bucket is a store in memory that counts what it is asked for, and can be made to fail.
type bucket struct {
	url    string
	levels bool // it lists a level at a time

	mu      sync.Mutex // protects these
	objects map[name]stored
	marks   []objstore.Mark
	last    int            // how many objects there ever were
	calls   map[string]int // by method
	opened  map[name]int

	// before, if set, is called by each request before it is answered, and may fail it or wait.
	before func(ctx context.Context, call string, o objstore.Object, off, n int64) error
	// late, if set, is called by each list when its answer is made and not yet given.
	late func(ctx context.Context)
	// body, if set, changes what is read.
	body func(ctx context.Context, b []byte) io.Reader
}

type name struct {
	level    int
	min, max ltx.TXID
}

func nameOf(o objstore.Object) name { return name{o.Level, o.Min, o.Max} }

type stored struct {
	object objstore.Object
	data   []byte
	meta   objstore.Meta
}

// buckets are those that the tests of this package open, by their URLs.
var buckets sync.Map

func init() {
	real := newStore
	newStore = func(url string, o objstore.Options) (objstore.Store, error) {
		b, ok := buckets.Load(url)
		if !ok {
			return real(url, o)
		}
		f := &front{b.(*bucket), o.OnRequest}
		if f.levels {
			return struct{ objstore.Store }{f}, nil
		}
		return f, nil
	}
}

func newBucket(t testing.TB) *bucket {
	b := &bucket{objects: map[name]stored{}, calls: map[string]int{}, opened: map[name]int{}}
	b.url = fmt.Sprintf("test://%p", b)
	buckets.Store(b.url, b)
	t.Cleanup(func() { buckets.Delete(b.url) })
	return b
}

// set puts hooks in place.
func (b *bucket) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// counted is how many requests there were since the last call, in all and by method.
func (b *bucket) counted() (n int, calls map[string]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls, b.calls, b.opened = b.calls, map[string]int{}, map[name]int{}
	for _, c := range calls {
		n += c
	}
	return n, calls
}

func (b *bucket) put(o objstore.Object, data []byte, m objstore.Meta) objstore.Object {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	o.Size, o.ModTime, o.Tag = int64(len(data)), m.Timestamp, fmt.Sprint(b.last)
	b.objects[nameOf(o)] = stored{o, data, m}
	return o
}

func (b *bucket) remove(objs ...objstore.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range objs {
		delete(b.objects, nameOf(o))
	}
}

// all are the objects, by level, Min and Max.
func (b *bucket) all() (objs []objstore.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.objects {
		objs = append(objs, s.object)
	}
	slices.SortFunc(objs, func(a, b objstore.Object) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	return objs
}

// clear takes everything away.
func (b *bucket) clear() { b.remove(b.all()...) }

// front is the bucket as one Source has opened it.
type front struct {
	*bucket
	tell func(int64)
}

// ask is the begin of every request.
func (f *front) ask(ctx context.Context, call string, o objstore.Object, off, n int64) error {
	if f.tell != nil {
		f.tell(0)
	}
	f.mu.Lock()
	f.calls[call]++
	if call == "open" {
		f.opened[nameOf(o)]++
	}
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, call, o, off, n); err != nil {
			return fmt.Errorf("%s %v: %w", call, o, err)
		}
	}
	return context.Cause(ctx)
}

func (f *front) String() string { return f.url }

func (f *front) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	if err := f.ask(ctx, "list", objstore.Object{Level: level, Min: from}, 0, 0); err != nil {
		return nil, err
	}
	defer f.linger(ctx)
	return slices.DeleteFunc(f.all(), func(o objstore.Object) bool { return o.Level != level || o.Min < from }), nil
}

func (f *front) linger(ctx context.Context) {
	f.mu.Lock()
	late := f.late
	f.mu.Unlock()
	if late != nil {
		late(ctx)
	}
}

// ListAll is part of objstore.Lister.
func (f *front) ListAll(ctx context.Context) ([]objstore.Object, []objstore.Mark, bool, error) {
	if err := f.ask(ctx, "list", objstore.Object{Level: -1}, 0, 0); err != nil {
		return nil, nil, false, err
	}
	defer f.linger(ctx)
	f.mu.Lock()
	marks := slices.Clone(f.marks)
	f.mu.Unlock()
	return f.all(), marks, true, nil
}

// find returns what an object is now.
func (f *front) find(o objstore.Object) (stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.objects[nameOf(o)]
	if !ok || o.Tag != "" && o.Tag != s.object.Tag {
		return stored{}, fmt.Errorf("%v: %w", o, objstore.ErrNotExist)
	}
	return s, nil
}

func (f *front) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	if err := f.ask(ctx, "open", o, off, n); err != nil {
		return nil, err
	}
	s, err := f.find(o)
	if err != nil {
		return nil, err
	}
	data := s.data
	if off >= int64(len(data)) && n != 0 {
		return nil, objstore.ErrRange
	}
	if data = data[off:]; n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	f.mu.Lock()
	body := f.body
	f.mu.Unlock()
	if body != nil {
		return io.NopCloser(body(ctx, bytes.Clone(data))), nil
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (f *front) Meta(ctx context.Context, o objstore.Object) (objstore.Meta, error) {
	if err := f.ask(ctx, "meta", o, 0, 0); err != nil {
		return objstore.Meta{}, err
	}
	s, err := f.find(o)
	return s.meta, err
}

func (f *front) Marks(ctx context.Context) ([]objstore.Mark, error) {
	if err := f.ask(ctx, "marks", objstore.Object{}, 0, 0); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.marks), nil
}

func (f *front) Create(_ context.Context, o objstore.Object, body objstore.Body, m objstore.Meta, _ func(string)) error {
	data := make([]byte, body.Size())
	if _, err := body.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := f.find(o); err == nil {
		return objstore.ErrExist
	}
	f.put(o, data, m)
	return nil
}

func (f *front) Remove(_ context.Context, o objstore.Object) error { f.remove(o); return nil }

func (f *front) RemoveAll(_ context.Context, objs []objstore.Object) error {
	f.remove(objs...)
	return nil
}

func (f *front) PutMark(_ context.Context, m objstore.Mark) error {
	f.set(func() { f.marks = append(f.marks, m) })
	return nil
}

func (f *front) RemoveMark(context.Context, objstore.Mark) error            { return nil }
func (f *front) AbortUpload(context.Context, objstore.Object, string) error { return nil }
func (f *front) Conditional(context.Context) (bool, error)                  { return true, nil }

var errCut = errors.New("connection reset by peer")

// gate holds requests until it is opened.
type gate struct {
	reached chan struct{} // gets one for each that has come
	open    chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}, 1000), make(chan struct{})} }

func (g *gate) wait(ctx context.Context) error {
	g.reached <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
