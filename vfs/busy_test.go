package vfs_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/ledger"
)

// On a busy machine a reader of ours takes a while to see that it is asked to give way, and to
// close. Who switches the journal mode then must not be told of a lock that is ours.
func TestWhoWantsTheDatabaseAloneOutwaitsASlowReader(t *testing.T) {
	switchUnderSlowReader(t, func(p *place) *conn {
		c := p.open()
		c.exec("CREATE TABLE t(a)")
		c.sync()
		c.text("SELECT count(*) FROM t") // from now on it knows that the database is in WAL mode
		return c
	})
}

// Nor told that the mode is the one that it has asked for while the database stays in WAL mode:
// this connection has not read since that was switched to it.
func TestAModeThatWasNotReadSinceTheSwitchIsLeftDespiteASlowReader(t *testing.T) {
	switchUnderSlowReader(t, func(p *place) *conn {
		other := p.plain()
		other.exec("CREATE TABLE t(a)")
		other.exec("BEGIN")
		other.text("SELECT count(*) FROM t") // which keeps us from switching
		c := p.open()
		if mode := c.text("PRAGMA journal_mode"); mode != "delete" {
			t.Fatalf("mode %s", mode)
		}
		c.text("SELECT count(*) FROM t")
		other.exec("COMMIT")
		other.close()
		c.sync() // for which the shipper switches it
		return c
	})
}

// switchUnderSlowReader has a connection leave WAL mode while a reader of ours gives way
// after some time only.
func switchUnderSlowReader(t *testing.T, open func(p *place) *conn) {
	const slow = 200 * time.Millisecond // of what is given to a connection of ours that closes, a fifth
	for range 20 {
		p := newPlace(t, "&interval=1h&close_timeout=0")
		c := open(p)
		c.exec("PRAGMA busy_timeout=0")
		l, err := ledger.OpenReadOnly(p.path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r, err := cext.OpenReader(p.path, false)
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			mode string
			err  error
		}
		switched := make(chan answer, 1)
		go func() {
			mode, err := c.query("PRAGMA journal_mode=DELETE")
			switched <- answer{mode, err}
		}()
		for atomic.LoadUint32(&l.Header().Yield) == 0 {
			select {
			case a := <-switched:
				r.Close()
				t.Fatalf("PRAGMA journal_mode=DELETE did not wait: %q, %v; the database is in mode %s", a.mode, a.err, p.plain().text("PRAGMA journal_mode"))
			case <-time.After(time.Millisecond):
			}
		}
		asked := time.Now()
		<-time.After(slow)
		r.Close()
		if took := time.Since(asked); took > 3*slow {
			t.Logf("this machine is too busy to tell: a pause of %v took %v", slow, took)
			continue
		}
		if a := <-switched; a.err != nil || a.mode != "delete" {
			t.Errorf("PRAGMA journal_mode=DELETE: %q, %v", a.mode, a.err)
		}
		if mode := p.plain().text("PRAGMA journal_mode"); mode != "delete" {
			t.Errorf("the database is in mode %s", mode)
		}
		return
	}
	t.Error("it was too busy all the time")
}
