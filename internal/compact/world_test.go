package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// state is a database: its pages, of which only the lock page may be missing.
type state struct {
	commit uint32
	pages  map[uint32][]byte
}

// world is a database with its history, and the replica of it.
type world struct {
	t        testing.TB
	rnd      *rand.Rand
	store    objstore.Store
	dir      string // of temporary files; nothing may stay there
	pageSize uint32
	head     ltx.TXID
	states   map[ltx.TXID]state
	changed  map[ltx.TXID][]uint32
}

func newWorld(t testing.TB, seed uint64, pageSize uint32, store objstore.Store) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), store: store, dir: t.TempDir(), pageSize: pageSize,
		states: map[ltx.TXID]state{}, changed: map[ltx.TXID][]uint32{},
	}
	t.Cleanup(func() {
		if names, _ := os.ReadDir(w.dir); len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
	})
	return w
}

// directory is a store in a fresh directory: in memory, unless what travels with the
// objects is of interest.
func directory(t testing.TB) (store objstore.Store, dir string) {
	dir, err := os.MkdirTemp("/dev/shm", "walferry-test-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return open(t, "file://"+dir), dir
}

func open(t testing.TB, url string) objstore.Store {
	store, err := objstore.New(url, objstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func (w *world) lock() uint32 { return ltx.LockPgno(w.pageSize) }

// commit is a transaction that leaves the database with a size and changes n of its
// pages, besides those by which it grows.
func (w *world) commit(size uint32, n int) {
	was := w.states[w.head]
	w.head++
	is := state{size, maps.Clone(was.pages)}
	if is.pages == nil {
		is.pages = map[uint32][]byte{}
	}
	maps.DeleteFunc(is.pages, func(p uint32, _ []byte) bool { return p > size })
	var changed []uint32
	for p := was.commit + 1; p <= size; p++ {
		changed = append(changed, p)
	}
	for range n {
		changed = append(changed, w.rnd.Uint32N(size)+1)
	}
	slices.Sort(changed)
	changed = slices.DeleteFunc(slices.Compact(changed), func(p uint32) bool { return p == w.lock() })
	for _, p := range changed {
		is.pages[p] = w.page()
	}
	w.states[w.head], w.changed[w.head] = is, changed
}

// page is new content, half of it compressible.
func (w *world) page() []byte {
	b := make([]byte, w.pageSize)
	for i := 0; i < len(b)/2; i += 64 {
		b[i] = byte(w.rnd.Uint32())
	}
	copy(b[len(b)-8:], fmt.Sprintf("%08x", w.rnd.Uint32()))
	return b
}

// step is a random transaction of a database of at most so many pages.
func (w *world) step(most uint32) {
	size := max(w.states[w.head].commit, 1)
	switch w.rnd.IntN(4) {
	case 0:
		size = w.rnd.Uint32N(most) + 1
	case 1:
		size = min(size+w.rnd.Uint32N(5), most)
	}
	w.commit(size, w.rnd.IntN(6))
}

// header is that of a file that takes the database from before one TXID to another.
func (w *world) header(from, to ltx.TXID) ltx.Header {
	return ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: w.pageSize, Commit: w.states[to].commit,
		MinTXID: from, MaxTXID: to, Timestamp: 1700000000000 + 1000*int64(to), WALOffset: 32, NodeID: 100 + uint64(to),
	}
}

// file is made by the ltx package.
func (w *world) file(h ltx.Header) []byte {
	is := w.states[h.MaxTXID]
	var numbers []uint32
	for t := h.MinTXID; t <= h.MaxTXID && h.MinTXID > 1; t++ {
		numbers = append(numbers, w.changed[t]...)
	}
	if h.MinTXID == 1 {
		numbers = slices.Collect(maps.Keys(is.pages))
	}
	slices.Sort(numbers)
	numbers = slices.DeleteFunc(slices.Compact(numbers), func(p uint32) bool { return p > is.commit })
	return encode(w.t, h, numbers, is.pages)
}

func encode(t testing.TB, h ltx.Header, numbers []uint32, pages map[uint32][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(h)
	}
	for _, p := range numbers {
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: p}, pages[p])
		}
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sum stands for the database's checksum.
func sum(txid ltx.TXID) uint64 { return 0xabc<<32 | uint64(txid) }

// put stores a file.
func (w *world) put(level int, from, to ltx.TXID) objstore.Object {
	w.t.Helper()
	h := w.header(from, to)
	return w.create(level, from, to, w.file(h))
}

func (w *world) create(level int, from, to ltx.TXID, b []byte) objstore.Object {
	w.t.Helper()
	o := objstore.Object{Level: level, Min: from, Max: to}
	meta := objstore.Meta{Timestamp: time.UnixMilli(w.header(from, to).Timestamp), Checksum: sum(to)}
	if err := w.store.Create(context.Background(), o, bytes.NewReader(b), meta, nil); err != nil {
		w.t.Fatal(err)
	}
	o.Size, o.ModTime = int64(len(b)), meta.Timestamp
	return o
}

// history is a snapshot and n objects of level 0 after it.
func (w *world) history(n int, most uint32) (snapshot objstore.Object, rest []objstore.Object) {
	w.t.Helper()
	w.step(most)
	snapshot = w.put(objstore.SnapshotLevel, 1, 1)
	for range n {
		w.step(most)
		rest = append(rest, w.put(0, w.head, w.head))
	}
	return snapshot, rest
}

func (w *world) merge(level int, inputs ...objstore.Object) objstore.Object {
	w.t.Helper()
	o, err := Merge(context.Background(), w.store, inputs, level, w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) read(o objstore.Object) []byte {
	w.t.Helper()
	b, err := readObject(w.store, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func readObject(store objstore.Store, o objstore.Object) ([]byte, error) {
	r, err := store.Open(context.Background(), o, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (w *world) objects() (levels [objstore.SnapshotLevel + 1][]objstore.Object) {
	w.t.Helper()
	for level := range levels {
		var err error
		if levels[level], err = w.store.List(context.Background(), level, 0); err != nil {
			w.t.Fatal(err)
		}
	}
	return levels
}

// apply takes a state further with a file, as the ltx package reads it.
func apply(t testing.TB, s state, b []byte) (state, ltx.Header) {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if err := dec.DecodeHeader(); err != nil {
		t.Fatal(err)
	}
	is := state{dec.Header().Commit, maps.Clone(s.pages)}
	if is.pages == nil || dec.Header().MinTXID == 1 {
		is.pages = map[uint32][]byte{}
	}
	for {
		var h ltx.PageHeader
		page := make([]byte, dec.Header().PageSize)
		if err := dec.DecodePage(&h, page); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Pgno > is.commit {
			t.Fatalf("page %d of %d", h.Pgno, is.commit)
		}
		is.pages[h.Pgno] = page
	}
	if err := dec.Close(); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(is.pages, func(p uint32, _ []byte) bool { return p > is.commit })
	return is, dec.Header()
}

func (s state) differs(from state) error {
	if s.commit != from.commit || len(s.pages) != len(from.pages) {
		return fmt.Errorf("%d pages, %d of them with content, want %d and %d", s.commit, len(s.pages), from.commit, len(from.pages))
	}
	for p, b := range s.pages {
		if !bytes.Equal(b, from.pages[p]) {
			return fmt.Errorf("page %d differs", p)
		}
	}
	return nil
}

// walk applies the objects that a choice makes among those that go on, and compares
// each state on the way. It returns how far it came.
func (w *world) walk(choose func(next []objstore.Object) objstore.Object) ltx.TXID {
	w.t.Helper()
	var all []objstore.Object
	for _, l := range w.objects() {
		all = append(all, l...)
	}
	var have ltx.TXID
	var s state
	for {
		var next []objstore.Object
		for _, o := range all {
			if follows(have, o) {
				next = append(next, o)
			}
		}
		if len(next) == 0 {
			return have
		}
		o := choose(next)
		s, _ = apply(w.t, s, w.read(o))
		have = o.Max
		if err := s.differs(w.states[have]); err != nil {
			w.t.Fatalf("after %v: %v", o, err)
		}
	}
}

// restores checks that the newest state comes back, by the furthest objects and by
// random ones.
func (w *world) restores() {
	w.t.Helper()
	furthest := func(next []objstore.Object) objstore.Object {
		return slices.MaxFunc(next, func(a, b objstore.Object) int { return int(a.Max) - int(b.Max) })
	}
	if got := w.walk(furthest); got != w.head {
		w.t.Fatalf("the furthest objects lead to %s of %s", got, w.head)
	}
	for range 3 {
		if got := w.walk(func(next []objstore.Object) objstore.Object { return next[w.rnd.IntN(len(next))] }); got != w.head {
			w.t.Fatalf("random objects lead to %s of %s", got, w.head)
		}
	}
}

// file of an object in a directory.
func pathOf(dir string, o objstore.Object) string {
	return filepath.Join(dir, "ltx", fmt.Sprint(o.Level), o.Name())
}

// faults is a store whose calls can be made to fail.
type faults struct {
	objstore.Store
	before func(call string, o objstore.Object) error
	after  func(call string, o objstore.Object) error // the call was made
	body   func(io.ReadCloser) io.ReadCloser
}

func (f *faults) at(hook func(string, objstore.Object) error, call string, o objstore.Object) error {
	if hook == nil {
		return nil
	}
	return hook(call, o)
}

func (f *faults) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	if err := f.at(f.before, "open", o); err != nil {
		return nil, err
	}
	r, err := f.Store.Open(ctx, o, off, n)
	if err == nil && f.body != nil {
		r = f.body(r)
	}
	return r, err
}

func (f *faults) Meta(ctx context.Context, o objstore.Object) (objstore.Meta, error) {
	if err := f.at(f.before, "meta", o); err != nil {
		return objstore.Meta{}, err
	}
	return f.Store.Meta(ctx, o)
}

func (f *faults) Create(ctx context.Context, o objstore.Object, b objstore.Body, m objstore.Meta, s func(string)) error {
	if err := f.at(f.before, "create", o); err != nil {
		return err
	}
	if err := f.Store.Create(ctx, o, b, m, s); err != nil {
		return err
	}
	return f.at(f.after, "create", o)
}

var errLost = errors.New("connection reset")
