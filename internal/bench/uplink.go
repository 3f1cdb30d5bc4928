package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/Shopify/toxiproxy/v2/toxics"
)

// sharedUplink is a toxic, a thing that toxiproxy does to what passes: all connections together pass
// on Rate bytes a second. toxiproxy's own bandwidth is that of each connection, and an upload in
// parts would be faster than the line that is meant.
type sharedUplink struct {
	Rate int64 `json:"rate"` // bytes a second, positive

	mu   sync.Mutex // protects free
	free time.Time  // when all that was accepted so far has been passed on
}

const sharedUplinkName = "shared-uplink"

func init() { toxics.Register(sharedUplinkName, new(sharedUplink)) }

// uplink bounds what is sent to the server, in bytes a second.
func uplink(rate int64) []slowdown {
	return []slowdown{slowdown(fmt.Sprintf(`{"type":%q,"stream":"upstream","attributes":{"rate":%d}}`, sharedUplinkName, rate))}
}

// Pipe implements toxics.Toxic; every connection calls it on a goroutine of its own.
func (u *sharedUplink) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			wait := time.NewTimer(u.accept(len(chunk.Data)))
			select {
			case <-wait.C:
				stub.Output <- chunk
			case <-stub.Interrupt: // the proxy is closed, and nobody waits for the rest
				wait.Stop()
				return
			}
		}
	}
}

// accept queues n bytes behind those of all connections, and returns how long they take to pass.
func (u *sharedUplink) accept(n int) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	if u.free.Before(now) {
		u.free = now
	}
	u.free = u.free.Add(time.Duration(n) * time.Second / time.Duration(u.Rate))
	return u.free.Sub(now)
}
