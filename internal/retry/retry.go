// Package retry makes requests to a store again whose failure may pass.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

const (
	// Tries is how often a request is made before its error is believed:
	// with the waits between them some 6 s, which outlasts a connection that is
	// reset, a store that says SlowDown, and most failovers.
	Tries = 6

	// firstWait doubles with each try.
	firstWait = 200 * time.Millisecond
)

// Permanent reports an error that another try does not mend.
func Permanent(err error) bool {
	return errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRefused) || errors.Is(err, objstore.ErrURL)
}

// Do calls f until it succeeds, its error is permanent, it has failed too often or
// ctx ends.
func Do(ctx context.Context, f func() error) error {
	var last error
	for try := 0; ; try++ {
		err := f()
		if err == nil || Permanent(err) || try == Tries-1 {
			return err
		}
		if Pause(ctx, try) != nil {
			return Cause(ctx, last, err)
		}
		last = err
	}
}

// Cause is the error of what is not tried again because ctx has ended: with the reason for that, and
// where that is all that the last try says, with what the one before said.
func Cause(ctx context.Context, last, err error) error {
	late := context.Cause(ctx)
	switch {
	case late == nil:
		return err
	case !errors.Is(err, late):
		return fmt.Errorf("%w; %w", err, late)
	case last != nil:
		return fmt.Errorf("%w; %w", last, late)
	}
	return err
}

// Pause waits before the try that follows one, counted from 0, with jitter.
func Pause(ctx context.Context, try int) error {
	wait := firstWait << try
	t := time.NewTimer(wait/2 + rand.N(wait/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
