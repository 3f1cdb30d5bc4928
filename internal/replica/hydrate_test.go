package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/compact"
	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
)

// hydrated opens a connection to a source's replica with a file to fill.
func hydrated(t *testing.T, src *histtest.Source, path string) *Conn {
	t.Helper()
	c, err := Open(Options{URL: src.URL, Timeout: 20 * time.Second, CacheSize: 1 << 20, Hydrate: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// filled waits until the file has all of the newest state.
func filled(t *testing.T, c *Conn) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		h := c.s.hydrate
		h.mu.Lock()
		done := h.last == c.current() && !h.busy
		h.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the file is not filled: %+v", c.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

// all reads a connection's state to its end, without what the process keeps in memory.
func all(t *testing.T, c *Conn) []byte {
	t.Helper()
	pages.mu.Lock()
	pages.shrink(0)
	pages.mu.Unlock()
	b := make([]byte, c.Size())
	for at, size := 0, int(c.current().PageSize); at < len(b); at += size {
		if n, err := c.ReadAt(b[at:at+size], int64(at)); err != nil || n != size {
			t.Fatalf("page %d: %d bytes, %v", at/size+1, n, err)
		}
	}
	return b
}

func grow(src *histtest.Source, rows int) {
	src.Exec("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)")
	src.Exec(fmt.Sprintf("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) INSERT INTO t(x) SELECT randomblob(300) FROM n", rows))
}

// Once it is filled, only what is new is asked for, by the next process too.
func TestHydrate_IsFilledOnceAndServes(t *testing.T) {
	src := histtest.New(t, 4096)
	grow(src, 3000)
	src.Ship()
	path := filepath.Join(t.TempDir(), "local")
	for process := range 3 {
		if process > 0 {
			src.Exec("UPDATE t SET x = randomblob(300) WHERE id % 500 = 7")
			src.Ship()
		}
		c := hydrated(t, src, path)
		if _, err := c.Begin(); err != nil {
			t.Fatal(err)
		}
		filled(t, c)
		before := c.Status()
		got := all(t, c)
		if after := c.Status(); after.Bytes != before.Bytes {
			t.Errorf("process %d: %d bytes were fetched of what the file has", process, after.Bytes-before.Bytes)
		}
		if !bytes.Equal(undressed(got), undressed(src.State[src.TXID].Bytes())) {
			t.Errorf("process %d reads another state", process)
		}
		if st := c.Status(); st.Hydrated != int64(st.Pages) || st.HydrateError != "" {
			t.Errorf("process %d: %d of %d pages, %q", process, st.Hydrated, st.Pages, st.HydrateError)
		}
		if most := int64(len(got)) / 2; process > 0 && before.Bytes > most {
			t.Errorf("process %d fetched %d bytes of a database of %d, though the file had it", process, before.Bytes, len(got))
		}
		c.End()
		c.Close()
	}
}

// The file is damaged, is written by others, is of an older state, and files of the replica are merged
// and removed: what is read is the state of the transaction.
func TestHydrate_NeverServesAWrongPage(t *testing.T) {
	src := histtest.New(t, 1024)
	grow(src, 1000)
	src.Ship()
	path := filepath.Join(t.TempDir(), "local")
	rnd := rand.New(rand.NewPCG(4, 4))
	other := hydrated(t, src, path)
	defer other.Close()
	for round := range 30 {
		src.Exec(fmt.Sprintf("UPDATE t SET x = randomblob(300) WHERE id %% 50 = %d", rnd.IntN(50)))
		if round%5 == 4 {
			src.Exec("DELETE FROM t WHERE id > (SELECT max(id) FROM t) - 100")
			src.Exec("VACUUM")
			grow(src, rnd.IntN(200)+1)
		}
		o := src.Ship()
		c := hydrated(t, src, path)
		if _, err := c.Begin(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			filled(t, c)
		}
		if round%3 == 0 {
			damage(t, rnd, path)
			damage(t, rnd, path+hydrationSuffix)
		}
		if round%4 == 3 {
			_, err := compact.Merge(context.Background(), src.Store, level0(t, src, o), 1, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := src.Store.RemoveAll(context.Background(), level0(t, src, o)); err != nil {
				t.Fatal(err)
			}
		}
		want := undressed(src.State[src.TXID].Bytes())
		if got := all(t, c); !bytes.Equal(undressed(got), want) {
			t.Fatalf("round %d: another state is read", round)
		}
		if _, err := other.Begin(); err != nil {
			t.Fatal(err)
		}
		if got := all(t, other); !bytes.Equal(undressed(got), want) {
			t.Fatalf("round %d: another state is read by who was there before", round)
		}
		other.End()
		c.End()
		c.Close()
	}
}

// level0 are the objects of level 0 up to one.
func level0(t *testing.T, src *histtest.Source, to objstore.Object) (objs []objstore.Object) {
	t.Helper()
	all, err := src.Store.List(context.Background(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.Max <= to.Max {
			objs = append(objs, o)
		}
	}
	return objs
}

func damage(t *testing.T, rnd *rand.Rand, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		junk := make([]byte, 1+rnd.IntN(100))
		for i := range junk {
			junk[i] = byte(rnd.Uint32())
		}
		if at := rnd.Int64N(max(info.Size(), 1)); at >= 64 {
			if _, err := f.WriteAt(junk, at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHydrate_TakesNoFileThatIsSomebodyElses(t *testing.T) {
	src := histtest.New(t, 4096)
	grow(src, 10)
	src.Ship()
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(Options{URL: src.URL, Timeout: time.Second, CacheSize: 1 << 20, Hydrate: path}, nil); err == nil {
		c.Close()
		t.Error("it was opened")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}
