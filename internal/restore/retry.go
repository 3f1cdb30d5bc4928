package restore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

const (
	// tries is how often a request is made before its error is believed:
	// with the waits between them some 6 s, which outlasts a connection that is
	// reset, a store that says SlowDown, and most failovers.
	tries = 6

	// firstWait doubles with each try.
	firstWait = 200 * time.Millisecond
)

// permanent reports an error that another try does not mend.
func permanent(err error) bool {
	return errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRefused) || errors.Is(err, objstore.ErrURL)
}

// retry calls f until it succeeds, its error is permanent, or it has failed too often.
func retry(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if err == nil || permanent(err) || try == tries-1 {
			return err
		}
		if pause(ctx, try) != nil {
			return err
		}
	}
}

// pause waits before the try that follows one, with jitter.
func pause(ctx context.Context, try int) error {
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
