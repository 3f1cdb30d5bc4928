package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

var errCut = errors.New("connection reset")

func TestDoTriesAgainWhereThatMayHelp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			err   error
			fails int
			tries int
		}{{errCut, 3, 4}, {errCut, Tries - 1, Tries}, {errCut, 100, Tries}, {objstore.ErrNotExist, 100, 1}, {objstore.ErrRefused, 100, 1}} {
			n := 0
			err := Do(t.Context(), func() error {
				if n++; n > c.fails {
					return nil
				}
				return c.err
			})
			if n != c.tries || (err == nil) != (c.fails < c.tries) || err != nil && err != c.err {
				t.Errorf("%v, %d times: %d tries, %v", c.err, c.fails, n, err)
			}
		}
	})
}

// What was cut off by the caller's own deadline says nothing of the store, but the try before may.
func TestAnEndInTheMiddleOfATryTellsWhatTheOneBeforeSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := errors.New("no time left")
		for hang, wants := range map[int][]error{1: {late}, 2: {errCut, late}, 4: {errCut, late}, 100: {errCut, late}} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, late)
			n := 0
			err := Do(ctx, func() error {
				if n++; n >= hang {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				return errCut
			})
			cancel()
			for _, want := range wants {
				if !errors.Is(err, want) {
					t.Errorf("it hangs with try %d: %v, want %v", hang, err, want)
				}
			}
		}
	})
}
