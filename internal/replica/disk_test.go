package replica

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

func openedDisk(t *testing.T, dir string, size int64) *disk {
	t.Helper()
	d, err := openDisk(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

// pageOf is content that tells by itself what page it is.
func pageOf(o objstore.Object, pgno uint32, size int) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(o.Min)<<32|uint64(o.Max), uint64(pgno)))
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

func TestADiskServesWhatWasPutAndNoOther(t *testing.T) {
	for _, size := range []int{512, 4096, 65536} {
		d := openedDisk(t, t.TempDir(), 4<<20)
		a := objstore.Object{Min: 2, Max: 2, Size: 1000}
		page, got := pageOf(a, 7, size), make([]byte, size)
		if d.get("s", a, 7, got) {
			t.Fatal("a page that was never put")
		}
		d.put("s", a, 7, page)
		if !d.get("s", a, 7, got) || !bytes.Equal(got, page) {
			t.Fatalf("a page of %d bytes does not come back", size)
		}
		replaced := a
		replaced.Size++
		for name, miss := range map[string]bool{
			"another page":               d.get("s", a, 8, got),
			"another object":             d.get("s", objstore.Object{Min: 3, Max: 3, Size: 1000}, 7, got),
			"one that replaced it":       d.get("s", replaced, 7, got),
			"the same of another bucket": d.get("r", a, 7, got),
		} {
			if miss {
				t.Errorf("%s was found", name)
			}
		}
	}
}

// Whatever becomes of the file's bytes, a page is right or is not there.
func TestADiskThatIsDamagedServesNoWrongPage(t *testing.T) {
	dir := t.TempDir()
	d := openedDisk(t, dir, 1<<20)
	o, rnd := objstore.Object{Min: 2, Max: 2, Size: 1000}, rand.New(rand.NewPCG(1, 2))
	f, err := os.OpenFile(filepath.Join(dir, diskName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	found, lost := 0, 0
	for round := range 200 {
		for p := uint32(1); p <= 40; p++ {
			d.put("s", o, p, pageOf(o, p, 4096))
		}
		for range 40 {
			junk := make([]byte, 1+rnd.IntN(9000))
			for i := range junk {
				junk[i] = byte(rnd.Uint32())
			}
			if _, err := f.WriteAt(junk, diskHead+rnd.Int64N(info.Size()-diskHead-int64(len(junk)))); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 4096)
		for p := uint32(1); p <= 40; p++ {
			if !d.get("s", o, p, got) {
				lost++
			} else if found++; !bytes.Equal(got, pageOf(o, p, 4096)) {
				t.Fatalf("round %d: page %d is wrong", round, p)
			}
		}
	}
	if found == 0 || lost == 0 {
		t.Fatalf("%d found, %d lost: nothing was tried", found, lost)
	}
}

// Several at once, as processes do it, each with a file of its own that is open.
func TestADiskIsSharedWithoutALock(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for w := range 4 {
		d := openedDisk(t, dir, 1<<20)
		wg.Go(func() {
			rnd, got := rand.New(rand.NewPCG(uint64(w), 3)), make([]byte, 4096)
			for range 3000 {
				o := objstore.Object{Min: 1 + ltx.TXID(rnd.IntN(20)), Max: 30, Size: 10}
				p := 1 + rnd.Uint32N(30)
				if d.get("s", o, p, got) {
					if !bytes.Equal(got, pageOf(o, p, 4096)) {
						t.Errorf("page %d is wrong", p)
						return
					}
				} else {
					d.put("s", o, p, pageOf(o, p, 4096))
				}
			}
		})
	}
	wg.Wait()
}

func TestADiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	const size = 1 << 20
	d := openedDisk(t, dir, size)
	for p := uint32(1); p <= 1000; p++ {
		o := objstore.Object{Min: 2, Max: 2, Size: 10}
		d.put("s", o, p, pageOf(o, p, 4096))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Size() > size+diskHead || info.Mode() != 0o600 {
		t.Fatalf("%d bytes with mode %v, %v", info.Size(), info.Mode(), err)
	}
	// Another size is another file; who has the old one goes on with that.
	o := objstore.Object{Min: 3, Max: 3, Size: 10}
	small := openedDisk(t, dir, size/2)
	small.put("s", o, 1, pageOf(o, 1, 4096))
	if got := make([]byte, 4096); !small.get("s", o, 1, got) || d.get("s", o, 1, got) {
		t.Error("the two are one file")
	}
	if info, err := os.Stat(filepath.Join(dir, diskName)); err != nil || info.Size() > size/2+diskHead {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// What is there and is no directory of pages is an error, or is replaced where it has the name of one.
func TestADiskThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDisk(file, 1<<20); err == nil {
		t.Error("a file was taken for a directory")
	}
	if err := os.WriteFile(filepath.Join(dir, diskName), bytes.Repeat([]byte("garbage"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	d := openedDisk(t, dir, 1<<20)
	o := objstore.Object{Min: 3, Max: 3, Size: 10}
	d.put("s", o, 1, pageOf(o, 1, 4096))
	if got := make([]byte, 4096); !d.get("s", o, 1, got) {
		t.Error("nothing is kept in place of garbage")
	}
	// Cut short in use it gives up.
	if err := os.Truncate(filepath.Join(dir, diskName), 100); err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 4096); d.get("s", o, 1, got) {
		t.Error("a page was found in nothing")
	}
	d.put("s", o, 1, pageOf(o, 1, 4096))
	if info, err := os.Stat(filepath.Join(dir, diskName)); err != nil || info.Size() != 100 {
		t.Errorf("%v, %v", info.Size(), err)
	}
	if !d.dead.Load() {
		t.Error("it is used on")
	}
}
