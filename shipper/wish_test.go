package shipper

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

// A Sync that meets the last attempt of an outage, which was begun before anybody asked,
// is not told of its failure: it has an attempt of its own, and at once.
func TestSyncIsNotToldOfAnAttemptThatBeganBeforeIt(t *testing.T) {
	for what, wait := range map[string]time.Duration{"the first attempt": 0, "one after a long outage": 10 * time.Minute} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(g *rig) {
				s := g.open()
				defer s.Close(time.Now())
				pass(5 * time.Second)
				if wait > 0 {
					g.store.down()
					g.write(1, 1)
					pass(wait)
				}
				under, answer := make(chan struct{}), make(chan struct{})
				first := true
				g.store.setWait(func(_ context.Context, op string) {
					if op == "create" && first {
						first = false
						close(under)
						<-answer
					}
				})
				down := true // for that attempt
				g.store.setFault(func(op string, _ objstore.Object, _ int) fault {
					if op == "create" && down {
						down = false
						return fails
					}
					return works
				})
				g.write(2, 2)
				<-under

				began := time.Now()
				result := make(chan error)
				go func() { _, err := g.sync(s, context.Background()); result <- err }()
				synctest.Wait()
				close(answer)
				if err := <-result; err != nil {
					t.Errorf("Sync: %v", err)
				}
				if took := time.Since(began); took > 2*syncLook {
					t.Errorf("it waited %v for its attempt", took)
				}
				g.replicated()
			})
		})
	}
}

// During an outage each Sync is told of an attempt of its own, and waits for no pause between
// two: the second that asks for the same commits like the first.
func TestEachSyncOfAnOutageHasAnAttemptOfItsOwn(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.open()
		defer s.Close(time.Now())
		pass(5 * time.Second)
		g.store.down()
		g.write(1, 1)
		pass(10 * time.Minute)
		for n := range 3 {
			began, tried := time.Now(), g.store.count("create")
			if _, err := g.sync(s, context.Background()); err == nil {
				t.Error("Sync succeeded")
			}
			if took := time.Since(began); took > 2*syncLook {
				t.Errorf("Sync %d: it waited %v for its attempt", n, took)
			}
			if g.store.count("create") == tried {
				t.Errorf("Sync %d: nothing was tried for it", n)
			}
		}
		g.store.up()
	})
}
