package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// fault is a store that fails in one way.
type fault struct {
	before func(ctx context.Context) error
	body   func(ctx context.Context, b []byte) io.Reader

	state string // what the status says; empty: the fault is overcome
	says  string
}

func faults() map[string]fault {
	n := 0
	return map[string]fault{
		"reset":      {before: func(context.Context) error { return errCut }, state: "unreachable", says: "connection reset"},
		"black hole": {before: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, state: "unreachable", says: "within 15s"},
		"reset, then nothing": {before: func() func(context.Context) error {
			tries := 0
			return func(ctx context.Context) error {
				if tries++; tries%2 == 1 {
					return errCut
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}
		}(), state: "unreachable", says: "connection reset"},
		"refused": {before: func(context.Context) error { return fmt.Errorf("%w: no permission", objstore.ErrRefused) },
			state: "refused", says: "no permission"},
		"now and then": {before: func(context.Context) error {
			if n++; n%3 != 0 {
				return errCut
			}
			return nil
		}},
		"cut short":    {body: func(_ context.Context, b []byte) io.Reader { return bytes.NewReader(b[:(len(b)+1)/2]) }},
		"cut off":      {body: func(context.Context, []byte) io.Reader { return iotest.ErrReader(io.ErrUnexpectedEOF) }, state: "unreachable", says: "unexpected EOF"},
		"empty":        {body: func(_ context.Context, b []byte) io.Reader { return bytes.NewReader(nil) }, state: "corrupt", says: "ends at byte"},
		"zeros":        {body: func(_ context.Context, b []byte) io.Reader { return bytes.NewReader(make([]byte, len(b))) }, state: "corrupt", says: "corrupt"},
		"byte by byte": {body: func(_ context.Context, b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) }},
		"breaks": {body: func(_ context.Context, b []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(b[:(len(b)+1)/2]), iotest.ErrReader(errCut))
		}},
		"stalls": {body: func(ctx context.Context, b []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(b[:(len(b)+1)/2]), stalled{ctx})
		}, state: "unreachable", says: "within 15s"},
	}
}

// stalled gives nothing until it is given up.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, context.Cause(s.ctx) }

// TestAFaultOfTheStore lets pages and looks for the newest state meet each fault: they overcome it, or
// end in time with an error whose cause the status tells, and go on when it is over.
func TestAFaultOfTheStore(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 4096)
				w.raw = true
				w.history(2, 100)
				c := w.open(within(15*time.Second), caching(40<<10))
				set := func(f fault) {
					w.bucket.set(func() {
						w.bucket.before, w.bucket.body = nil, nil
						if f.before != nil {
							w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return f.before(ctx) }
						}
						if f.body != nil {
							w.bucket.body = f.body
						}
					})
				}
				met := func(what string, err error, d time.Duration) {
					t.Helper()
					st := c.Status()
					switch {
					case d > 15*time.Second:
						t.Errorf("%s: it takes %v", what, d)
					case (err == nil) != (f.state == "") || err == nil && st.State != "reading":
						t.Errorf("%s: %v, state %s", what, err, st.State)
					case err != nil && (st.State != f.state || !strings.Contains(st.Cause, f.says) || st.LastError != st.Cause || st.ErrorTime == ""):
						t.Errorf("%s: %v; the status says %s: %s (%s at %s)", what, err, st.State, st.Cause, st.LastError, st.ErrorTime)
					}
				}
				for round := range 2 {
					begin(t, c)
					set(f)
					at, pgno := time.Now(), uint32(20+round*10)
					got, err := readPage(c, pgno)
					met("a page", err, time.Since(at))
					if err == nil && !w.states[w.head].same(pgno, got) {
						t.Errorf("page %d is not what it was", pgno)
					}
					set(fault{})
					if got, err := readPage(c, pgno); err != nil || !w.states[w.head].same(pgno, got) {
						t.Errorf("page %d after the fault: %v", pgno, err)
					}
					if st := c.Status(); st.State != "reading" || st.Cause != "" {
						t.Errorf("after the fault the status says %s: %s", st.State, st.Cause)
					}
					c.End()
					w.commit(100, 7)
					w.ship()
					set(f)
					at = time.Now()
					_, err = c.Begin()
					met("begin", err, time.Since(at))
					if err == nil {
						c.End()
					}
					set(fault{})
					w.reads(c, w.head)
				}
			})
		})
	}
}

func TestAnOpenThatFailsLeavesNothing(t *testing.T) {
	for name, f := range faults() {
		if f.state == "" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 4096)
			w.history(2, 100)
			w.bucket.set(func() {
				if f.before != nil {
					w.bucket.before = func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return f.before(ctx) }
				}
				if f.body != nil {
					w.bucket.body = f.body
				}
			})
			if _, err := Open(w.options(), nil); err == nil || !strings.Contains(err.Error(), strings.Replace(f.says, "15s", "20s", 1)) {
				t.Errorf("%s: %v", name, err)
			}
			sources.mu.Lock()
			for k := range sources.all {
				if k.url == w.bucket.url {
					t.Errorf("%s: the source is there still", name)
				}
			}
			sources.mu.Unlock()
			w.bucket.counted()
			time.Sleep(time.Hour)
			if n, calls := w.bucket.counted(); n > 0 {
				t.Errorf("%s: %d requests afterwards: %v", name, n, calls)
			}
		})
	}
}

func TestAnEmptyPlaceIsNoReplica(t *testing.T) {
	w := newWorld(t, 1, 512)
	if _, err := Open(w.options(), nil); err == nil || !strings.Contains(err.Error(), "no database") {
		t.Error(err)
	}
}

func TestAFailureOfOneConnectionIsNotAnothers(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.history(2, 100)
	a, b := w.open(), w.open()
	begin(t, a)
	begin(t, b)
	w.bucket.set(func() {
		w.bucket.body = func(_ context.Context, b []byte) io.Reader { return bytes.NewReader(make([]byte, len(b))) }
	})
	if _, err := readPage(a, 50); !errors.Is(err, ltxfile.ErrCorrupt) {
		t.Fatal(err)
	}
	w.bucket.set(func() { w.bucket.body = nil })
	w.holds(b, 3)
	if a, b := a.Status(), b.Status(); a.State != "corrupt" || b.State != "reading" {
		t.Errorf("%s, %s", a.State, b.State)
	}
}

// The store has answered, so all is well, though no page was asked for.
func TestABeginThatHearsOfTheStoreEndsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 512)
		w.history(2, 20)
		c := w.open(polled(time.Minute))
		w.reads(c, 3)
		fail := func(ctx context.Context, _ string, _ objstore.Object, _, _ int64) error { return objstore.ErrRefused }
		time.Sleep(time.Hour)
		w.bucket.set(func() { w.bucket.before = fail })
		if _, err := c.Begin(); err == nil || c.Status().State != "refused" {
			t.Fatalf("%v, %s", err, c.Status().State)
		}
		w.bucket.set(func() { w.bucket.before = nil })
		time.Sleep(time.Second)
		w.reads(c, 3)
		if st := c.Status(); st.State != "reading" || st.Cause != "" || st.LastError == "" {
			t.Errorf("the status says %s: %q, %q", st.State, st.Cause, st.LastError)
		}
		w.commit(20, 5)
		w.raw = true
		w.ship()
		forgetAll()
		w.bucket.set(func() { w.bucket.before = fail })
		begin(t, c) // not yet due
		if _, err := readPage(c, 9); err == nil {
			t.Fatal("the page is there")
		}
		c.End()
		begin(t, c)
		if st := c.Status(); st.State != "refused" {
			t.Errorf("nobody has asked the store since, and the status says %s", st.State)
		}
		c.End()
	})
}
