package shipper

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/group"
	"golang.org/x/sys/unix"
)

// ownFault is what goes wrong in walferry's own code here.
const ownFault = "a fault of walferry's own"

// told returns a Config's Panicked and what it was told of.
func told(t *testing.T) (func(*group.Panic), *atomic.Int32) {
	n := new(atomic.Int32)
	return func(p *group.Panic) {
		if p.Value != ownFault {
			t.Errorf("panicked with %v", p)
		}
		n.Add(1)
	}, n
}

// The goroutine that reads the events of all watches is nobody's in particular: its panic
// reaches whoever watches, and does not end the process.
func TestAPanicOfTheWatchReachesWhoWatches(t *testing.T) {
	dir := t.TempDir()
	heard := make(chan string, 10)
	for _, name := range []string{"first", "second"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		stop, err := watchFile(path, func() { panic(ownFault) }, func(p *group.Panic) {
			if p.Value != ownFault {
				t.Errorf("panicked with %v", p)
			}
			heard <- name
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop() // which must not wait for a lock that was held then
	}
	if err := os.WriteFile(filepath.Join(dir, "first"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, b := <-heard, <-heard; a == b {
		t.Errorf("%s was told twice", a)
	}
}

// A Drain has a goroutine until the Shipper takes it.
func TestAPanicOfADrainEndsNothingElse(t *testing.T) {
	inBubble(t, func(g *rig) {
		n := 0
		s := g.stepper(func(c *Config) { c.Panicked = func(*group.Panic) { n++ } })
		close(s.drains)
		d := s.Drain(time.Now().Add(time.Minute))
		synctest.Wait()
		if n != 1 || !closed(d.Done()) || !closed(d.Read()) {
			t.Errorf("told %d times; done %v, read %v", n, closed(d.Done()), closed(d.Read()))
		}
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("Err: %v", err)
		}
	})
}

// What the goroutine does on its way out is guarded like its work.
func TestAPanicAtTheEndLetsTheShipperEnd(t *testing.T) {
	inBubble(t, func(g *rig) {
		panicked, n := told(t)
		armed := false
		s := g.open(func(c *Config) {
			c.Panicked = panicked
			c.Descriptors.Close = func(fd int) {
				unix.Close(fd)
				if armed {
					panic(ownFault)
				}
			}
		})
		pass(time.Second)
		armed = true
		s.Close(time.Now())
		if n.Load() == 0 {
			t.Error("nobody was told")
		}
		next := g.open()
		g.write(1, 1)
		pass(2 * time.Second)
		g.replicated()
		next.Close(time.Now())
	})
}

// A watch that cannot be had leaves nothing behind.
func TestAWatchThatFailsLeavesNoInstance(t *testing.T) {
	if _, err := watchFile(filepath.Join(t.TempDir(), "missing"), func() {}, func(*group.Panic) {}); err == nil {
		t.Fatal("a file that is not there is watched")
	}
	watches.mu.Lock()
	defer watches.mu.Unlock()
	if watches.file != nil {
		t.Error("an inotify instance without a watch is open")
	}
}
