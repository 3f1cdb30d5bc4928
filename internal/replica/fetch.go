package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

const (
	// stall ends a request that has given nothing for so long. What has come is kept, and
	// the next try goes on from there.
	stall = 10 * time.Second

	// spanBytes is the most that one request for several frames asks for: at 20 ms a round
	// trip little of its time is spent waiting for the first byte, and several of
	// them at once are what fills a fast line.
	spanBytes = 256 << 10

	// gapBytes is how much between two frames is read for nothing rather than with
	// another request.
	gapBytes = 4 << 10

	// aheadFlights is how many requests of a replica's may be for pages that nobody waits
	// for yet.
	aheadFlights = 16

	// aheadPages is how many pages of a replica's may be on their way or wait for their turn: some
	// windows of some connections.
	aheadPages = 4096
)

// want is a page to be fetched.
type want struct {
	key pageKey
	place
}

// flight is one request for frames that lie together in a file.
type flight struct {
	wants []want     // in the order of the file
	size  int        // of a page
	file  *hydration // nil: for the cache

	lane  bool          // it counts as one of aheadFlights; this and start are protected by Source.flying
	start chan struct{} // closed, and nil, once it may go

	done  chan struct{}
	err   error // these four are valid once done is closed
	panic *group.Panic
	data  []byte // the pages, one after the other
	full  error  // why file has not taken them, which is nothing to who reads
}

// result is how a flight that is done has ended. It panics with what the flight panicked with.
func (f *flight) result() error {
	if f.panic != nil {
		panic(f.panic)
	}
	return f.err
}

// page copies one of a flight's pages to b, from an offset on.
func (f *flight) page(k pageKey, off int, b []byte) error {
	if err := f.result(); err != nil {
		return err
	}
	for i, w := range f.wants {
		if w.key == k {
			copy(b, f.data[i*f.size+off:(i+1)*f.size])
			return nil
		}
	}
	return fmt.Errorf("page %d did not come with its file", k.pgno)
}

// under returns the flight that brings a page, or begins one; nil if the page has come into
// the cache meanwhile and was copied.
func (s *Source) under(v *View, w want, off int, b []byte) *flight {
	s.flying.Lock()
	defer s.flying.Unlock()
	if pages.get(w.key, off, b) {
		return nil
	}
	if f := s.flights[w.key]; f != nil {
		f.release()
		return f
	}
	return s.begin(v, &flight{wants: []want{w}})
}

// ahead begins flights for pages that are likely to be wanted next, those first that come first. It never
// waits: a flight waits for its turn, or until one of its pages is wanted.
func (s *Source) ahead(v *View, list []uint32) {
	s.flying.Lock()
	defer s.flying.Unlock()
	wants := make([]want, 0, len(list))
	for _, p := range list {
		at := v.table.at(p)
		w := want{pageKey{at.file, p}, at}
		if at.file != 0 && s.flights[w.key] == nil && !pages.has(w.key) {
			wants = append(wants, w)
		}
	}
	slices.SortFunc(wants, func(a, b want) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.off, b.off))
	})
	for len(wants) > 0 {
		n := 1
		for n < len(wants) && follows(wants[:n], wants[n]) {
			n++
		}
		if len(s.flights) >= aheadPages {
			return
		}
		f := &flight{wants: wants[:n:n], start: make(chan struct{})}
		s.queue = append(s.queue, f)
		s.begin(v, f)
		wants = wants[n:]
		s.next()
	}
}

// release lets a flight go. The caller holds flying, as that of next does.
func (f *flight) release() {
	if f.start != nil {
		close(f.start)
		f.start = nil
	}
}

// next lets those of the queue go for which there is a lane.
func (s *Source) next() {
	for s.lanes < aheadFlights && len(s.queue) > 0 {
		f := s.queue[0]
		s.queue = s.queue[1:]
		if f.start != nil { // nobody waits for it yet
			f.lane = true
			s.lanes++
			f.release()
		}
	}
}

// follows reports whether a page can be fetched with others.
func follows(run []want, w want) bool {
	first, last := run[0], run[len(run)-1]
	end := last.off + int64(last.size)
	return w.file == last.file && w.off >= end && w.off-end <= gapBytes && w.off+int64(w.size)-first.off <= spanBytes
}

// carry brings pages, which lie together in a file, into that of the hydration. Those that are on their way
// for a reader it takes from there. done is told of an error.
func (s *Source) carry(v *View, wants []want, lane chan struct{}, done func(error)) {
	s.flying.Lock()
	defer s.flying.Unlock()
	o := s.objects[wants[0].file]
	var flights, readers []*flight
	var theirs []want // of readers, one each
	for len(wants) > 0 {
		n := 1
		if f := s.flights[wants[0].key]; f != nil {
			f.release()
			readers, theirs = append(readers, f), append(theirs, wants[0])
		} else {
			for n < len(wants) && s.flights[wants[n].key] == nil && follows(wants[:n], wants[n]) {
				n++
			}
			flights = append(flights, s.begin(v, &flight{wants: wants[:n:n], file: s.hydrate}))
		}
		wants = wants[n:]
	}
	s.work.Go(func() {
		for _, f := range flights {
			<-f.done
			if err := cmp.Or(guarded(f.result), f.full); err != nil {
				done(err)
			}
		}
		page := make([]byte, v.PageSize)
		for i, f := range readers {
			<-f.done
			err := guarded(func() error {
				if err := f.page(theirs[i].key, 0, page); err != nil {
					return err
				}
				return s.hydrate.put(o, theirs[i].key.pgno, page)
			})
			if err != nil {
				done(err)
			}
		}
		<-lane
	})
}

// guarded makes a panic an error.
func guarded(f func() error) (err error) {
	if p := group.Catch(func() { err = f() }); p != nil {
		return fmt.Errorf("%w: %v", errPanic, p.Value)
	}
	return err
}

// object is what has an id.
func (s *Source) object(id uint32) objstore.Object {
	s.flying.Lock()
	defer s.flying.Unlock()
	return s.objects[id]
}

// begin starts a flight, which waits for its turn if it has a start. The caller holds flying.
func (s *Source) begin(v *View, f *flight) *flight {
	f.size, f.done = int(v.PageSize), make(chan struct{})
	for _, w := range f.wants {
		s.flights[w.key] = f
	}
	o, start := s.objects[f.wants[0].file], f.start
	s.work.Go(func() {
		defer func() {
			s.flying.Lock()
			for _, w := range f.wants {
				delete(s.flights, w.key)
			}
			if f.lane {
				s.lanes--
				s.next()
			}
			s.flying.Unlock()
			close(f.done)
		}()
		if start != nil {
			select {
			case <-start:
			case <-s.ctx.Done():
			}
		}
		f.panic = group.Catch(func() { f.err = s.fly(f, o) })
	})
	return f
}

// fly brings a flight's pages into the cache.
func (s *Source) fly(f *flight, o objstore.Object) error {
	f.data = make([]byte, len(f.wants)*f.size)
	page := func(i int) []byte { return f.data[i*f.size : (i+1)*f.size] }
	from, to := s.lacks(f, o, page)
	if wants := f.wants[from:to]; len(wants) > 0 {
		first, last := wants[0], wants[len(wants)-1]
		frames := make([]byte, last.off+int64(last.size)-first.off)
		ctx, cancel := s.limited()
		defer cancel()
		if err := s.get(ctx, o, first.off, frames); err != nil {
			return err
		}
		for i, w := range wants {
			e := ltxfile.Entry{Pgno: w.key.pgno, Offset: w.off, Size: int64(w.size)}
			if err := ltxfile.UnpackFrame(e, frames[w.off-first.off:][:w.size], page(from+i)); err != nil {
				return fmt.Errorf("read %v: %w", o, err)
			}
			if s.disk != nil && f.file == nil {
				s.disk.put(s.name, o, w.key.pgno, page(from+i))
			}
		}
	}
	for i, w := range f.wants {
		if f.file == nil {
			pages.put(w.key, page(i))
		} else if f.full == nil {
			f.full = f.file.put(o, w.key.pgno, page(i))
		}
	}
	return nil
}

// lacks fills a flight's pages from this machine's files as far as those have them, and returns the range
// of those that the store is to be asked for.
func (s *Source) lacks(f *flight, o objstore.Object, page func(int) []byte) (from, to int) {
	from = len(f.wants)
	for i, w := range f.wants {
		here := s.hydrate != nil && s.hydrate != f.file && s.hydrate.get(o, w.key.pgno, page(i))
		if !here && (s.disk == nil || !s.disk.get(s.name, o, w.key.pgno, page(i))) {
			from, to = min(from, i), i+1
		}
	}
	return min(from, to), to
}

// warm takes a page whose frame has come with its file's index. What is wrong with it
// shows when it is wanted.
func (s *Source) warm(k pageKey, pageSize uint32, frame []byte) {
	page := make([]byte, pageSize)
	if ltxfile.UnpackFrame(ltxfile.Entry{Pgno: k.pgno, Size: int64(len(frame))}, frame, page) == nil {
		pages.put(k, page)
	}
}

// limited is a context for one thing that is asked for.
func (s *Source) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(s.ctx, s.timeout, fmt.Errorf("the store did not give what was asked for within %v", s.timeout))
}

// get fills b from an object's offset on, and tries until ctx ends where that may help.
func (s *Source) get(ctx context.Context, o objstore.Object, off int64, b []byte) error {
	got, empty := 0, 0
	var last error
	for try := 0; ; try++ {
		n, err := s.try(ctx, o, off+int64(got), b[got:])
		if got += n; got == len(b) {
			return nil
		}
		if n > 0 {
			try, empty = 0, 0
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, objstore.ErrRange):
			// An answer that was cut off looks like an object that ends early; only the
			// latter gives nothing when it is asked again.
			if empty++; empty > 1 {
				return fmt.Errorf("%w: %v ends at byte %d of %d", ltxfile.ErrCorrupt, o, off+int64(got), o.Size)
			}
			err = fmt.Errorf("read %v: the answer ended early: %w", o, err)
		case retry.Permanent(err):
			return err
		}
		if retry.Pause(ctx, min(try, 3)) != nil {
			return retry.Cause(ctx, last, err)
		}
		last = err
	}
}

func (s *Source) try(ctx context.Context, o objstore.Object, off int64, b []byte) (n int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	defer dog.Stop()
	defer func() {
		s.bytes.Add(int64(n))
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("read %v: %w", o, context.Cause(ctx))
		}
	}()
	r, err := s.store.Open(ctx, o, off, int64(len(b)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for n < len(b) {
		m, err := r.Read(b[n:])
		if n += m; err != nil {
			return n, err
		}
		dog.Reset(stall)
	}
	return n, nil
}
