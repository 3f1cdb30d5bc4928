package compact

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// litestream is the program whose replicas walferry shares.
func litestream(t *testing.T) string {
	path := os.Getenv("WALFERRY_LITESTREAM")
	if path == "" {
		path = filepath.Join("..", "..", "dist", "tools", "litestream")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
	case testing.Short():
		t.Skip("litestream is not built: run make tools")
	default:
		t.Fatal("litestream is not built: run make tools")
	}
	return path
}

// What Merge wrote is all that litestream gets, save the first snapshot.
func TestLitestreamRestoresWhatWasMerged(t *testing.T) {
	program := litestream(t)
	for _, size := range []uint32{512, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			store, _ := directory(t)
			w := newWorld(t, uint64(size), size, store)
			snapshot, rest := w.history(30, 40)
			var merged []objstore.Object
			for len(rest) > 0 {
				n := min(1+w.rnd.IntN(6), len(rest))
				o := w.merge(1, rest[:n]...)
				if w.rnd.IntN(2) == 0 {
					o = w.merge(2, o)
				}
				merged, rest = append(merged, o), rest[n:]
			}
			for _, o := range append(merged, w.merge(9, append([]objstore.Object{snapshot}, merged[:3]...)...)) {
				for _, below := range w.objects()[0] {
					if err := store.Remove(t.Context(), below); err != nil {
						t.Fatal(err)
					}
				}
				w.byLitestream(program, o.Max)
			}
		})
	}
}

// byLitestream compares what litestream restores with the database at a TXID.
func (w *world) byLitestream(program string, txid ltx.TXID) {
	w.t.Helper()
	out := filepath.Join(w.t.TempDir(), "restored")
	cmd := exec.Command(program, "restore", "-o", out, "-txid", txid.String(), w.store.String())
	if text, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("restore to %s: %v\n%s", txid, err, text)
	}
	is := w.states[txid]
	if fi, err := os.Stat(out); err != nil || fi.Size() != int64(is.commit)*int64(w.pageSize) {
		w.t.Fatalf("at %s litestream restored %d bytes, %v, want %d pages", txid, fi.Size(), err, is.commit)
	}
	f, err := os.Open(out)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	defer os.Remove(out)
	got := make([]byte, w.pageSize)
	for p := uint32(1); p <= is.commit; p++ {
		want := is.pages[p]
		if p == w.lock() {
			want = make([]byte, w.pageSize)
		}
		if _, err := io.ReadFull(f, got); err != nil {
			w.t.Fatal(err)
		}
		from := 0
		if p == 1 {
			from = 100 // litestream makes the first page say that the journal is no WAL
		}
		if !bytes.Equal(got[from:], want[from:]) {
			w.t.Fatalf("at %s litestream restored another page %d", txid, p)
		}
	}
}

// What runs of every age have left, with what retention took away.
func TestLitestreamRestoresWhatWasKept(t *testing.T) {
	program := litestream(t)
	for _, size := range []uint32{512, 4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if underRace && size > 512 {
				t.Skip("the work is the same and takes minutes")
			}
			t.Parallel()
			store, _ := directory(t)
			w := newWorld(t, uint64(size)+7, size, store)
			w.history(0, 12)
			o := Options{
				SnapshotInterval: 4 * time.Minute,
				Policy:           history.Policy{Retention: history.Limits{Age: 10 * time.Minute}, L0: 20 * time.Second, Marks: time.Hour},
			}
			for round := range 40 {
				for range 40 { // seconds
					w.step(12)
					w.put(0, w.head, w.head)
				}
				o.Now = at(epoch.Add(time.Duration(w.head) * time.Second))
				w.run(o)
				if round%20 != 19 {
					continue
				}
				points := w.points()
				for _, at := range []int{0, len(points) / 3, len(points) * 2 / 3, len(points) - 1} {
					w.byLitestream(program, points[at])
				}
			}
			l := w.objects()
			if len(l[0]) == 0 || len(l[1]) == 0 || len(l[2]) == 0 || l[9][0].Max == 1 || len(l[0]) > 60 {
				t.Errorf("a level is empty, or retention has removed nothing: %d, %d, %d and %v", len(l[0]), len(l[1]), len(l[2]), l[9])
			}
		})
	}
}

// The lock page of a database of more than 1 GiB, in a snapshot and in what comes after
// it, as they are written and merged.
func TestLitestreamRestoresBeyondTheLockPage(t *testing.T) {
	if underRace {
		t.Skip("a GiB takes minutes under the race detector")
	}
	program := litestream(t)
	store, _ := directory(t)
	w := newWorld(t, 5, 65536, store)
	const lock = 16385
	empty := make([]byte, w.pageSize)
	w.head = 1
	w.states[1] = state{lock - 2, map[uint32][]byte{}}
	for p := uint32(1); p <= lock-2; p++ {
		w.states[1].pages[p] = empty
	}
	w.states[1].pages[1] = w.page()
	snapshot := w.put(objstore.SnapshotLevel, 1, 1)
	var rest []objstore.Object
	for _, size := range []uint32{lock - 1, lock + 2, lock + 3} {
		w.commit(size, 2)
		rest = append(rest, w.put(0, w.head, w.head))
	}
	w.merge(objstore.SnapshotLevel, snapshot, w.merge(1, rest...))
	w.commit(lock+7, 2)
	last := w.put(0, w.head, w.head)
	for _, o := range append(rest, snapshot) {
		if err := store.Remove(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	w.byLitestream(program, last.Max)
}
