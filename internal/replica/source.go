package replica

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// Source is one replica as this process reads it: what its connections share. All methods
// may be called from any goroutine.
type Source struct {
	refs    int // connections; protected by sources.mu
	store   objstore.Store
	name    string        // of the store, among all that there are
	hydrate *hydration    // nil: there is none
	disk    *disk         // nil: there is none
	timeout time.Duration // how long the store is asked for one thing before that fails

	ctx    context.Context // ends with the last connection
	cancel context.CancelFunc
	work   sync.WaitGroup // what talks to the store

	requests, bytes atomic.Int64

	mu        sync.Mutex // protects these; never held while the store is waited for
	head      *View      // the newest state that was seen
	headAt    time.Time  // when the store was asked and had nothing newer
	looking   *Look      // for the newest, the last that began; nil: it has ended
	began     int        // searches for the newest, ever
	headLook  int        // the one of them that found head
	again     map[lost]*Look
	searching int                  // how many searches there are
	views     []weak.Pointer[View] // all that are in use, and some that are not

	flying  sync.Mutex // protects these
	flights map[pageKey]*flight
	ids     map[objstore.Object]uint32
	objects map[uint32]objstore.Object // by their ids
	kept    int                        // how many objects the last forget has left
	lanes   int                        // how many flights ahead are under way that nobody waited for when they went
	queue   []*flight                  // those that wait for their turn, and some that somebody waits for
}

// lost is a state of which a file has gone.
type lost struct {
	txid ltx.TXID
	line *int
}

// sources are those in use, by all that tells one from another.
var sources = struct {
	mu  sync.Mutex
	all map[sourceKey]*Source
}{all: map[sourceKey]*Source{}}

type sourceKey struct {
	url, endpoint, region, pathStyle string
	timeout                          time.Duration
	dir, hydrate                     string
	dirSize                          int64
}

// newStore is objstore.New; a test has stores of its own.
var newStore = objstore.New

// acquire returns the Source of a replica. It asks the store for nothing.
func acquire(o Options) (*Source, error) {
	k := sourceKey{o.URL, o.Store.Endpoint, o.Store.Region, o.Store.PathStyle, o.Timeout, o.CacheDir, o.Hydrate, o.CacheDirSize}
	sources.mu.Lock()
	defer sources.mu.Unlock()
	s := sources.all[k]
	if s == nil {
		s = &Source{
			timeout: o.Timeout,
			again:   map[lost]*Look{},
			flights: map[pageKey]*flight{},
			ids:     map[objstore.Object]uint32{}, objects: map[uint32]objstore.Object{},
		}
		store := o.Store
		store.OnRequest = func(int64) { s.requests.Add(1) }
		var err error
		if s.store, err = newStore(o.URL, store); err != nil {
			return nil, err
		}
		if s.name = s.store.String(); o.Store.Endpoint != "" {
			s.name += " " + o.Store.Endpoint
		}
		if o.CacheDir != "" {
			if s.disk, err = openDisk(o.CacheDir, o.CacheDirSize); err != nil {
				return nil, err
			}
		}
		if o.Hydrate != "" {
			if s.hydrate, err = openHydration(o.Hydrate, s); err != nil {
				s.closeFiles()
				return nil, err
			}
		}
		s.ctx, s.cancel = context.WithCancel(context.Background())
		sources.all[k] = s
	}
	s.refs++
	pages.grow(o.CacheSize)
	return s, nil
}

// release is the end of what acquire began. After the last nothing of the replica is left in
// memory, and no request under way.
func (s *Source) release() {
	if !s.last() {
		return
	}
	s.cancel()
	s.work.Wait()
	objstore.CloseIdle(s.store)
	s.closeFiles()
}

func (s *Source) closeFiles() {
	if s.disk != nil {
		s.disk.close()
	}
	if s.hydrate != nil {
		s.hydrate.close()
	}
}

// last gives one of the connections up, and reports whether that was the last one.
func (s *Source) last() bool {
	sources.mu.Lock()
	defer sources.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return false
	}
	for k, is := range sources.all {
		if is == s {
			delete(sources.all, k)
		}
	}
	if len(sources.all) == 0 {
		pages.forget()
	}
	return true
}

// Look is a state that is being looked for.
type Look struct {
	Done  chan struct{}
	view  *View     // these are valid once Done is closed
	asked time.Time // when the store was, or is going to be, of the newest state
	err   error
	panic *group.Panic
}

// Result is what was found. It is to be called when Done is closed, and panics with what the
// search panicked with.
func (l *Look) Result() (*View, error) {
	if l.panic != nil {
		panic(l.panic)
	}
	return l.view, l.err
}

func found(v *View, asked time.Time) *Look {
	l := &Look{Done: make(chan struct{}), view: v, asked: asked}
	close(l.Done)
	return l
}

// search begins to ask the store for something.
func (s *Source) search(f func(context.Context) (*View, error)) *Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked(f, func(*Look) {})
}

// locked is search for who holds mu, as settle does which is told the result.
func (s *Source) locked(f func(context.Context) (*View, error), settle func(*Look)) *Look {
	l := &Look{Done: make(chan struct{})}
	s.searching++
	s.work.Go(func() {
		ctx, cancel := s.limited()
		defer cancel()
		defer close(l.Done)
		l.caught(func() { l.view, l.err = f(ctx) })
		s.mu.Lock()
		defer s.mu.Unlock()
		l.caught(func() {
			settle(l)
			if s.searching--; s.searching == 0 {
				s.forget()
			}
		})
	})
	return l
}

// caught has a panic of f's come to who waits.
func (l *Look) caught(f func()) {
	if p := group.Catch(f); p != nil {
		l.panic, l.err = p, errPanic
	}
}

var errPanic = errors.New("internal error")

// Newest looks for the newest state, unless one is known of which the store had nothing newer maxAge
// ago. Those who look at the same time share one search, if it has begun within maxAge too.
func (s *Source) Newest(maxAge time.Duration) *Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head != nil && time.Since(s.headAt) < maxAge {
		return found(s.head, s.headAt)
	}
	if s.looking != nil && time.Since(s.looking.asked) < maxAge {
		return s.looking
	}
	s.began++
	head, asked, n := s.head, time.Now(), s.began
	l := s.locked(func(ctx context.Context) (*View, error) { return s.newest(ctx, head) }, func(l *Look) {
		if s.looking == l {
			s.looking = nil
		}
		switch {
		case l.err != nil:
		case n < s.headLook: // one that began later was faster
			l.view, l.asked = s.head, s.headAt
		default:
			s.head, s.headAt, s.headLook = l.view, asked, n
			if s.hydrate != nil {
				s.hydrate.follow(l.view)
			}
		}
	})
	s.looking, l.asked = l, asked
	return l
}

// Again looks for a state once more, of which a file has gone: it is the same one in other files.
func (s *Source) Again(gone *View) *Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := gone
	for _, p := range s.views {
		if v := p.Value(); v != nil && v.made > last.made && v.is(gone) {
			last = v
		}
	}
	if last != gone {
		return found(last, time.Time{})
	}
	k := lost{gone.TXID, gone.line}
	if s.again[k] == nil {
		s.again[k] = s.locked(func(ctx context.Context) (*View, error) { return s.replan(ctx, gone) }, func(l *Look) {
			delete(s.again, k)
			if l.err == nil && s.head != nil && s.head.is(gone) {
				s.head = l.view
			}
		})
	}
	return s.again[k]
}

// State looks for a state of the past.
func (s *Source) State(t history.Target) *Look {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.views {
		if v := p.Value(); v != nil && v.TXID == t.TXID && s.head != nil && v.descends(s.head) {
			return found(v, time.Time{})
		}
	}
	head := s.head
	return s.locked(func(ctx context.Context) (*View, error) { return s.find(ctx, t, head, head) }, func(*Look) {})
}

// keep remembers a view while somebody uses it, so that others may share it.
func (s *Source) keep(v *View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views = slices.DeleteFunc(s.views, func(p weak.Pointer[View]) bool { return p.Value() == nil })
	s.views = append(s.views, weak.Make(v))
}

// minForget is how many objects are remembered before anybody looks whether they are needed.
const minForget = 4096

// forget drops the names of objects in which no page of a view lies any more: a replica that is
// followed for days meets a new one every second. No search may be under way, which knows objects
// that no view tells of yet. The caller holds mu.
func (s *Source) forget() {
	s.flying.Lock()
	defer s.flying.Unlock()
	if len(s.objects) < max(minForget, 2*s.kept) {
		return
	}
	used, seen := map[uint32]bool{}, map[*chunk]bool{}
	for _, p := range s.views {
		for v := p.Value(); v != nil; v = v.root {
			for _, c := range v.table.chunks {
				if c == nil || seen[c] {
					continue
				}
				seen[c] = true
				for _, id := range c.file {
					used[id] = true
				}
			}
		}
	}
	for id, o := range s.objects {
		if !used[id] {
			delete(s.objects, id)
			delete(s.ids, o)
		}
	}
	s.kept = len(s.objects)
}

var lastID, lastView atomic.Uint32

// idOf names the content of an object in this process: one that was replaced gets another id.
func (s *Source) idOf(o objstore.Object) uint32 {
	s.flying.Lock()
	defer s.flying.Unlock()
	id := s.ids[o]
	if id == 0 {
		id = lastID.Add(1)
		s.ids[o], s.objects[id] = id, o
	}
	return id
}
