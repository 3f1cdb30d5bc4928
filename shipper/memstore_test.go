package shipper

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/objstore"
)

// fault is what happens to one call of a store.
type fault int

const (
	works      fault = iota
	fails            // no effect, and an error
	losesReply       // its effect, and an error
	isLate           // an error, and its effect when the test says so
	refuses          // the store says no
	kills            // the process ends before it
	killsAfter       // the process ends after its effect
	killsLate        // the process ends, and the effect comes when the test says so
)

var errStore = errors.New("connection reset by peer")

// killed is what a process ends with in the middle of a call.
type killed struct{}

// memStore is a bucket in memory. One memStore may serve several Shippers.
type memStore struct {
	mu      sync.Mutex // protects all fields
	url     string
	objects map[string]*memObject // by level and name
	marks   map[string]objstore.Mark
	uploads map[string]bool // multipart uploads under way
	late    []func()
	calls   map[string]int
	part    int64 // a body above this goes up in parts; 0: never

	// fault, if set, decides about each call; n counts those of op from 1.
	fault func(op string, o objstore.Object, n int) fault
	// wait, if set, is called before each call has an effect, without the lock.
	wait func(ctx context.Context, op string)
	// attempt and created, if set, are called for each object that is to be
	// put, and for each that came to be.
	attempt, created func(o *memObject)
}

type memObject struct {
	name objstore.Object
	data []byte
	meta objstore.Meta
}

func newMemStore() *memStore {
	return &memStore{
		url: "mem://bucket/app", objects: map[string]*memObject{},
		marks: map[string]objstore.Mark{}, uploads: map[string]bool{}, calls: map[string]int{},
	}
}

func keyOf(o objstore.Object) string { return fmt.Sprintf("%d/%s", o.Level, o.Name()) }

// begin decides about a call. The lock is held on return.
func (m *memStore) begin(ctx context.Context, op string, o objstore.Object) (fault, error) {
	m.mu.Lock()
	wait := m.wait
	m.mu.Unlock()
	if wait != nil {
		wait(ctx, op)
	}
	m.mu.Lock()
	m.calls[op]++
	m.calls["all"]++
	f := works
	if m.fault != nil {
		f = m.fault(op, o, m.calls[op])
	}
	if err := ctx.Err(); err != nil {
		return f, err
	}
	switch f {
	case fails:
		return f, errStore
	case refuses:
		return f, fmt.Errorf("%s: access denied: %w", op, objstore.ErrRefused)
	case kills:
		m.mu.Unlock()
		panic(killed{})
	}
	return f, nil
}

// end is the other half of begin.
func (m *memStore) end(f fault) error {
	switch f {
	case losesReply, isLate:
		return errStore
	case killsAfter, killsLate:
		m.mu.Unlock()
		defer m.mu.Lock()
		panic(killed{})
	}
	return nil
}

// allCalls is how many requests there were.
func (m *memStore) allCalls() int { return m.count("all") }

func (m *memStore) count(op string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[op]
}

// setFault replaces what decides about calls.
func (m *memStore) setFault(f func(op string, o objstore.Object, n int) fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// setWait replaces what calls wait for.
func (m *memStore) setWait(f func(ctx context.Context, op string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wait = f
}

// down makes every call fail; up ends it.
func (m *memStore) down() {
	m.setFault(func(string, objstore.Object, int) fault { return fails })
}
func (m *memStore) up() { m.setFault(nil) }

// arrive lets the oldest late effect happen.
func (m *memStore) arrive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.late) == 0 {
		return false
	}
	m.late[0]()
	m.late = m.late[1:]
	return true
}

func (m *memStore) String() string { return m.url }

func (m *memStore) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	f, err := m.begin(ctx, "list", objstore.Object{Level: level})
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return m.list(level, from), m.end(f)
}

func (m *memStore) list(level int, from ltx.TXID) (all []objstore.Object) {
	for _, o := range m.objects {
		if o.name.Level == level && o.name.Min >= from {
			all = append(all, o.name)
		}
	}
	slices.SortFunc(all, func(a, b objstore.Object) int {
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	return all
}

func (m *memStore) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	f, err := m.begin(ctx, "open", o)
	defer m.mu.Unlock()
	if err == nil {
		err = m.end(f)
	}
	if err != nil {
		return nil, err
	}
	there := m.objects[keyOf(o)]
	if there == nil {
		return nil, fmt.Errorf("open %s: %w", o, objstore.ErrNotExist)
	}
	data := there.data[min(off, int64(len(there.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memStore) Create(ctx context.Context, o objstore.Object, body objstore.Body, meta objstore.Meta, started func(string)) error {
	data, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
	if err != nil {
		return err
	}
	o.Size, o.ModTime = int64(len(data)), meta.Timestamp
	made := &memObject{name: o, data: data, meta: meta}
	if m.attempt != nil {
		m.attempt(made)
	}
	upload := ""
	if m.part > 0 && body.Size() > m.part {
		m.mu.Lock()
		upload = fmt.Sprintf("upload-%d", m.calls["create"])
		m.uploads[upload] = true
		m.mu.Unlock()
		started(upload)
	}
	f, err := m.begin(ctx, "create", o)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	effect := func() error {
		if m.objects[keyOf(o)] != nil {
			return fmt.Errorf("create %s: %w", o, objstore.ErrExist)
		}
		delete(m.uploads, upload)
		m.objects[keyOf(o)] = made
		if m.created != nil {
			m.created(made)
		}
		return nil
	}
	if f == isLate || f == killsLate {
		m.late = append(m.late, func() { _ = effect() })
		return m.end(f)
	}
	if err := effect(); err != nil && f == works {
		return err
	}
	return m.end(f)
}

func (m *memStore) Meta(ctx context.Context, o objstore.Object) (objstore.Meta, error) {
	f, err := m.begin(ctx, "meta", o)
	defer m.mu.Unlock()
	if err != nil {
		return objstore.Meta{}, err
	}
	if there := m.objects[keyOf(o)]; there != nil {
		return there.meta, m.end(f)
	}
	return objstore.Meta{}, objstore.ErrNotExist
}

func (m *memStore) Remove(ctx context.Context, o objstore.Object) error {
	f, err := m.begin(ctx, "remove", o)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	delete(m.objects, keyOf(o))
	return m.end(f)
}

func (m *memStore) Marks(ctx context.Context) ([]objstore.Mark, error) {
	f, err := m.begin(ctx, "marks", objstore.Object{})
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	all := slices.Collect(maps.Values(m.marks))
	slices.SortFunc(all, func(a, b objstore.Mark) int {
		return cmp.Or(cmp.Compare(a.TXID, b.TXID), a.Time.Compare(b.Time))
	})
	return all, m.end(f)
}

func (m *memStore) PutMark(ctx context.Context, mark objstore.Mark) error {
	if err := mark.Validate(); err != nil {
		return err
	}
	f, err := m.begin(ctx, "putmark", objstore.Object{})
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	m.marks[mark.Key()] = mark
	return m.end(f)
}

func (m *memStore) RemoveMark(ctx context.Context, mark objstore.Mark) error {
	f, err := m.begin(ctx, "removemark", objstore.Object{})
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	delete(m.marks, mark.Key())
	return m.end(f)
}

func (m *memStore) RemoveAll(ctx context.Context, objs []objstore.Object) error {
	for _, o := range objs {
		if err := m.Remove(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func (m *memStore) AbortUpload(ctx context.Context, _ objstore.Object, id string) error {
	f, err := m.begin(ctx, "abort", objstore.Object{})
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	delete(m.uploads, id)
	return m.end(f)
}

func (m *memStore) Conditional(ctx context.Context) (bool, error) {
	f, err := m.begin(ctx, "conditional", objstore.Object{})
	defer m.mu.Unlock()
	if err != nil {
		return false, err
	}
	return true, m.end(f)
}

// history is the objects in the order of their TXIDs, which have no gap: the
// first at the level of snapshots, the others at level 0.
func (m *memStore) history() (all []*memObject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.historyLocked()
}

func (m *memStore) historyLocked() (all []*memObject) {
	for txid := ltx.TXID(1); ; txid++ {
		o := m.objects[keyOf(objectOf(txid))]
		if o == nil {
			return all
		}
		all = append(all, o)
	}
}

// image is a database as objects make it.
type image struct {
	commit   uint32
	pageSize uint32
	pages    map[uint32][]byte
}

// apply replays one object. Whatever LTX asks of a file is checked.
func (im *image) apply(o *memObject) (h ltx.Header, changed map[uint32][]byte, err error) {
	dec := ltx.NewDecoder(bytes.NewReader(o.data))
	if err := dec.DecodeHeader(); err != nil {
		return h, nil, err
	}
	h = dec.Header()
	if h.MinTXID != o.name.Min || h.MaxTXID != o.name.Max {
		return h, nil, fmt.Errorf("%s holds TXID %s to %s", o.name, h.MinTXID, h.MaxTXID)
	}
	if im.pageSize != 0 && im.pageSize != h.PageSize {
		return h, nil, fmt.Errorf("%s has pages of %d bytes, not %d", o.name, h.PageSize, im.pageSize)
	}
	changed = map[uint32][]byte{}
	for {
		var ph ltx.PageHeader
		data := make([]byte, h.PageSize)
		if err := dec.DecodePage(&ph, data); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return h, nil, fmt.Errorf("%s: %w", o.name, err)
		}
		changed[ph.Pgno] = data
	}
	if err := dec.Close(); err != nil {
		return h, nil, fmt.Errorf("%s: %w", o.name, err)
	}
	if im.pages == nil {
		im.pages = map[uint32][]byte{}
	}
	for p := range im.pages {
		if p > h.Commit {
			delete(im.pages, p)
		}
	}
	for p, data := range changed {
		im.pages[p] = data
	}
	im.commit, im.pageSize = h.Commit, h.PageSize
	return h, changed, nil
}

// replay is the database after the objects.
func replay(t testing.TB, objects []*memObject) *image {
	t.Helper()
	im := new(image)
	for _, o := range objects {
		if _, _, err := im.apply(o); err != nil {
			t.Fatal(err)
		}
	}
	return im
}
