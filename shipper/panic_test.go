package shipper

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/spool"
)

// A panic in the goroutine, or in one that it has started, ends the Shipper; who waits
// learns the cause, and another process goes on.
func TestAPanicGivesTheRoleUp(t *testing.T) {
	for name, at := range map[string]func(op string, o objstore.Object) bool{
		"put":                func(op string, o objstore.Object) bool { return op == "create" && o.Level == 0 },
		"claim":              func(op string, o objstore.Object) bool { return op == "list" },
		"merge's goroutines": func(op string, o objstore.Object) bool { return op == "open" },
		"merge":              func(op string, o objstore.Object) bool { return op == "create" && o.Level == 1 },
		"trim":               func(op string, o objstore.Object) bool { return op == "remove" },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(g *rig) {
				var panicked atomic.Int32
				g.store.setFault(func(op string, o objstore.Object, _ int) fault {
					if panicked.Load() == 0 && at(op, o) {
						return kills
					}
					return works
				})
				s := g.open(kept, func(c *Config) {
					c.Panicked = func(p *group.Panic) {
						if _, ok := p.Value.(killed); !ok || !strings.Contains(string(p.Stack), "memStore") {
							t.Errorf("panicked with %v", p)
						}
						panicked.Add(1)
					}
				})
				d := s.Drain(time.Now().Add(time.Hour))
				for i := 0; i < 3600 && panicked.Load() == 0; i++ {
					g.write(byte(i), 2)
					pass(time.Second)
				}
				synctest.Wait()
				if n := panicked.Load(); n != 1 {
					t.Fatalf("panicked %d times", n)
				}
				if !closed(d.Read()) || !closed(d.Done()) || !closed(s.Ready()) {
					t.Error("somebody still waits for what will not come")
				}
				if st := s.Status(); st.State != "broken" || !strings.Contains(st.Cause, "internal error") || s.Err() == nil {
					t.Errorf("status %s: %s", st.State, st.Cause)
				}
				if _, err := s.Sync(context.Background()); err == nil || !strings.Contains(err.Error(), "internal error") {
					t.Errorf("Sync: %v", err)
				}
				if g.pinned() != 0 {
					t.Error("a snapshot is still pinned")
				}
				g.write(77, 3)
				next := g.open() // which removes nothing that the comparison needs
				pass(2 * time.Second)
				g.replicated()
				next.Close(time.Now())
				s.Close(time.Now())
			})
		})
	}
}

// The ledger tells those outside why a process that is there ships nothing.
func TestAnAbortedShipperSaysWhyInTheLedger(t *testing.T) {
	inBubble(t, func(g *rig) {
		first := g.open()
		pass(time.Second)
		g.write(7, 2)
		waiting := make(chan error, 1)
		go func() {
			_, err := first.Sync(context.Background())
			waiting <- err
		}()
		g.store.down()
		first.Abort("the reason")
		first.Abort("another")
		if err := <-waiting; err == nil {
			t.Error("Sync succeeded")
		}
		first.Close(time.Now().Add(time.Minute)) // looks back, where nothing was aborted
		l, err := ledger.OpenReadOnly(g.db.path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if st := ReadStatus(l); st.State != "broken" || st.Cause != "the reason" || st.ShipperPID != 0 {
			t.Errorf("the ledger says %s: %s, shipper %d", st.State, st.Cause, st.ShipperPID)
		}
		g.store.up()
		second := g.open()
		pass(2 * time.Second)
		third := g.open()
		third.Abort("it had no role")
		third.Close(time.Now())
		if st := third.Status(); st.State != "broken" || st.Cause != "it had no role" {
			t.Errorf("status of one that waited: %s: %s", st.State, st.Cause)
		}
		if st := ReadStatus(l); st.State != "shipping" || st.Cause != "" {
			t.Errorf("status of who goes on: %s: %s", st.State, st.Cause)
		}
		g.replicated()
		second.Close(time.Now())
	})
}

// What panics while it compresses leaves nobody waiting for a chunk.
func TestAPanicOfTheEncoderReachesItsOwner(t *testing.T) {
	out := spool.Spool{Dir: t.TempDir()}
	defer out.Reset()
	e := newEncoder(&out, &object{txid: 2, nonce: 1, time: time.UnixMilli(1000), pageSize: 4096, commit: 2000}, out.Dir+"/app.db", newChunks())
	e.put(&chunk{pages: []uint32{1}}) // without its data
	for p := uint32(2); p < 50; p++ {
		c := e.chunk()
		c.pages = append(c.pages, p)
		e.put(c)
	}
	if p := group.Catch(func() { _ = e.close() }); p == nil || !strings.Contains(string(p.Stack), "encode") {
		t.Errorf("caught %v", p)
	}
}
