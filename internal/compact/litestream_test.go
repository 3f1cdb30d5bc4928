package compact

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

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
	got, err := os.ReadFile(out)
	if err != nil {
		w.t.Fatal(err)
	}
	var want []byte
	for p := uint32(1); p <= w.states[txid].commit; p++ {
		want = append(want, w.states[txid].pages[p]...)
	}
	// Litestream makes the first page say that the journal is no WAL.
	if len(got) != len(want) || !bytes.Equal(got[100:], want[100:]) {
		w.t.Fatalf("at %s litestream restored something else, %d bytes, want %d", txid, len(got), len(want))
	}
}
