package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

// waitPoll is how often the store is asked for what somebody waits for.
const waitPoll = 200 * time.Millisecond

// ErrUnknown is wrapped where it cannot be known whether a replica has a writer's commits.
var ErrUnknown = errors.New("unknown")

// WaitFor waits until the replica has the commits of a writer's token, and reports whether it has in time.
// The next transaction then reads them. In a transaction it answers for the state that is read,
// without waiting.
//
// A commit that changed nothing makes no object, so that nothing tells of it before the next that does. The error
// wraps ErrUnknown where the replica's objects bear no windows, or at the end those of another epoch than the
// token: the writer has been restarted with its machine, or writes another ledger since.
func (c *Conn) WaitFor(epoch, number uint64, timeout time.Duration) (bool, error) {
	c.mu.Lock()
	v, pin, reading := c.view, c.pin, c.reading
	c.mu.Unlock()
	switch {
	case pin != nil:
		return false, ErrPinned
	case reading:
		w, err := c.window(v)
		if err == nil && (w.Epoch != epoch || w.Number < number) {
			return false, ErrTransaction
		}
		return err == nil, err
	}
	for until := c.now().Add(timeout); ; {
		v, _, err := c.newest(0)
		var w objstore.Window
		if err == nil {
			w, err = c.window(v)
		}
		if err != nil {
			return false, c.note(err)
		}
		if w.Epoch == epoch && w.Number >= number {
			return true, nil
		}
		left := until.Sub(c.now())
		if left <= 0 && w.Epoch != epoch {
			return false, fmt.Errorf("%w: the token is of another epoch (%012x) than TXID %s (%s)", ErrUnknown, epoch, v.TXID, w)
		}
		if left <= 0 {
			return false, nil
		}
		pause := make(chan struct{})
		timer := time.AfterFunc(min(left, waitPoll), func() { close(pause) })
		err = c.await(pause)
		timer.Stop()
		if err != nil {
			return false, err
		}
	}
}

// window is the one that a state's last transaction has ended.
func (c *Conn) window(v *View) (objstore.Window, error) {
	if w := v.window.Load(); w != nil {
		return *w, nil
	}
	var w objstore.Window
	l := c.s.search(func(ctx context.Context) (*View, error) {
		return nil, persist(ctx, func() error {
			m, err := c.s.store.Meta(ctx, v.head)
			w = m.Window
			return err
		})
	})
	_, err := c.wait(l)
	if err == nil && w == (objstore.Window{}) {
		err = fmt.Errorf("%w: %v does not say which window it ends: walferry of this version has not written it", ErrUnknown, v.head)
	}
	if err != nil {
		return objstore.Window{}, err
	}
	v.window.Store(&w)
	return w, nil
}
