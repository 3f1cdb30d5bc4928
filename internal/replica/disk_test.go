package replica

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/walferry/walferry/internal/objstore"
)

func onDisk(dir string, size int64) func(*Options) {
	return func(o *Options) { o.CacheDir, o.CacheDirSize = dir, size }
}

func openedDisk(t testing.TB, dir string, size int64) *disk {
	t.Helper()
	d, err := openDisk(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

// pageFor is a page whose content tells whose it is.
func pageFor(size int, store string, o objstore.Object, pgno uint32) []byte {
	page := make([]byte, size)
	seed := [32]byte{}
	key := diskKey(store, o, pgno, 0)
	copy(seed[:], key[:])
	_, _ = rand.NewChaCha8(seed).Read(page)
	return page
}

func TestADirectoryOfPagesGivesWhatWasPut(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		d := openedDisk(t, t.TempDir(), 4<<20)
		o := objstore.Object{Level: 1, Min: 2, Max: 3, Size: 9, Tag: "a"}
		want, got := pageFor(size, "s", o, 7), make([]byte, size)
		if d.get("s", o, 7, got) {
			t.Fatal("an empty one has a page")
		}
		d.put("s", o, 7, want)
		if !d.get("s", o, 7, got) || !bytes.Equal(got, want) {
			t.Fatalf("page size %d: not what was put", size)
		}
		other, tagged := o, o
		other.Max, tagged.Tag = 4, "b"
		if d.get("s", o, 8, got) || d.get("t", o, 7, got) || d.get("s", other, 7, got) || d.get("s", tagged, 7, got) {
			t.Fatal("it has a page that was not put")
		}
	}
}

func TestADirectoryOfPagesIsNoLargerThanItMayBe(t *testing.T) {
	const size = 1 << 20
	dir := t.TempDir()
	d := openedDisk(t, dir, size)
	o := objstore.Object{Size: 1}
	for p := range uint32(2000) {
		d.put("s", o, p+1, pageFor(4096, "s", o, p+1))
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	info, err := files[0].Info()
	if err != nil || info.Size() > size+diskHead || info.Mode().Perm() != 0o600 {
		t.Fatalf("%d bytes, %v, %v", info.Size(), info.Mode(), err)
	}
	held, got := 0, make([]byte, 4096)
	for p := range uint32(2000) {
		if d.get("s", o, p+1, got) {
			held++
			if !bytes.Equal(got, pageFor(4096, "s", o, p+1)) {
				t.Fatalf("page %d is another", p+1)
			}
		}
	}
	if held < 150 || held > 256 {
		t.Errorf("it holds %d pages of 4 KB", held)
	}
}

// Several processes write to it at once, without a lock.
func TestADirectoryOfPagesIsSharedWithoutALock(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for n := range 4 {
		d := openedDisk(t, dir, 1<<20)
		rnd := rand.New(rand.NewPCG(uint64(n), 1))
		wg.Go(func() {
			for range 800 {
				size, store, p := 512<<rnd.IntN(6), "s", rnd.Uint32N(200)+1
				o := objstore.Object{Level: size}
				got, want := make([]byte, size), pageFor(size, store, o, p)
				if d.get(store, o, p, got) && !bytes.Equal(got, want) {
					t.Error("a page is another")
					return
				}
				d.put(store, o, p, want)
			}
		})
	}
	wg.Wait()
}

func TestADirectoryOfPagesThatIsDamagedHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	d := openedDisk(t, dir, 1<<20)
	o := objstore.Object{Size: 1}
	for p := range uint32(200) {
		d.put("s", o, p+1, pageFor(4096, "s", o, p+1))
	}
	file := filepath.Join(dir, diskName)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := diskHead; i < len(b); i += 1 + rnd.IntN(700) {
		b[i] ^= byte(1 << rnd.IntN(8))
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	for p := range uint32(200) {
		if d.get("s", o, p+1, got) && !bytes.Equal(got, pageFor(4096, "s", o, p+1)) {
			t.Fatalf("page %d is another", p+1)
		}
	}
	if err := os.Truncate(file, diskHead+100); err != nil {
		t.Fatal(err)
	}
	d.put("s", o, 1, got)
	if d.get("s", o, 1, got) {
		t.Error("a file that was cut short gives pages")
	}
}

func TestADirectoryOfPagesThatIsNoneIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, diskName)
	huge := make([]byte, 24)
	copy(huge, diskMagic)
	binary.LittleEndian.PutUint64(huge[16:], 1<<60)
	for _, content := range [][]byte{nil, []byte("x"), make([]byte, 1<<16), huge} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		d := openedDisk(t, dir, 1<<20)
		o := objstore.Object{Size: 1}
		want, got := pageFor(4096, "s", o, 1), make([]byte, 4096)
		if d.put("s", o, 1, want); !d.get("s", o, 1, got) || !bytes.Equal(got, want) {
			t.Errorf("after %d bytes of something else it keeps nothing", len(content))
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", file); err != nil {
		t.Fatal(err)
	}
	if d, err := openDisk(dir, 1<<20); err == nil {
		d.close()
		t.Error("a link is followed")
	}
	if _, err := openDisk(filepath.Join(file, "x"), 1<<20); err == nil {
		t.Error("it lies where no directory can be")
	}
}

func TestPagesOnDiskServeTheNextProcess(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.history(3, 100)
	dir := t.TempDir()
	for round := range 3 {
		o := w.options()
		onDisk(dir, 8<<20)(&o)
		c, err := Open(o, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.bucket.counted()
		w.reads(c, 4)
		if n, calls := w.bucket.counted(); (calls["open"] > 0) != (round == 0) {
			t.Errorf("round %d: %d requests: %v", round, n, calls)
		}
		c.Close()
	}
	other := w.fresh(w.begin) // the same names, sizes and times
	w.bucket.clear()
	other.history(3, 100)
	other.reads(w.open(onDisk(dir, 8<<20)), 4)
}

func TestADiskThatFailsLeavesTheStore(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	w.history(3, 100)
	dir := t.TempDir()
	c := w.open(onDisk(dir, 8<<20))
	begin(t, c)
	if _, err := readPage(c, 50); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, diskName), 0); err != nil {
		t.Fatal(err)
	}
	w.holds(c, 4)
}
