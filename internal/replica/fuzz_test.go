package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// FuzzFile lets a file say anything, as a snapshot or as what comes after one: what is made of it is a
// database whose pages can be read or are damaged.
func FuzzFile(f *testing.F) {
	w := newWorld(f, 1, 512)
	w.history(1, 20)
	w.commit(7, 3)
	w.commit(30, 2, 5)
	snapshot := w.file(1, 1)
	f.Add(snapshot, true)
	f.Add(w.file(1, 4), true)
	for t := ltx.TXID(2); t <= 4; t++ {
		f.Add(w.file(t, t), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, alone bool) {
		bucket := newBucket(t)
		o := objstore.Object{Level: 0, Min: 2, Max: 2}
		if alone {
			o = objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: 1}
		} else {
			bucket.put(objstore.Object{Level: objstore.SnapshotLevel, Min: 1, Max: 1}, snapshot, objstore.Meta{})
		}
		if b = slices.Clone(b); len(b) >= ltx.HeaderSize { // else nothing would come further than the header
			binary.BigEndian.PutUint64(b[16:], uint64(o.Min))
			binary.BigEndian.PutUint64(b[24:], uint64(o.Max))
		}
		bucket.put(o, b, objstore.Meta{})
		c, err := Open(Options{URL: bucket.url, Timeout: w.options().Timeout, CacheSize: 1 << 20}, nil)
		if err != nil {
			if !errors.Is(err, ltxfile.ErrCorrupt) {
				t.Fatalf("an error that is not ErrCorrupt: %v", err)
			}
			return
		}
		defer c.Close()
		v := c.current()
		if int64(v.Pages) > 20+int64(len(b))/7+1 {
			t.Fatalf("%d bytes say that the database has %d pages", len(b), v.Pages)
		}
		page := make([]byte, v.PageSize)
		for p := uint32(1); p <= v.Pages; p++ {
			if _, err := c.ReadAt(page, int64(p-1)*int64(v.PageSize)); err != nil && !errors.Is(err, ltxfile.ErrCorrupt) {
				t.Fatalf("an error that is not ErrCorrupt: %v", err)
			}
		}
	})
}

// FuzzTree lets pages name any others.
func FuzzTree(f *testing.F) {
	f.Add(uint32(2), []byte{interiorTable, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 9, 0, 20, 0, 24, 0, 0, 0, 3, 0, 0, 0, 4})
	f.Add(uint32(1), []byte{interiorIndex})
	f.Fuzz(func(t *testing.T, pgno uint32, b []byte) {
		var tr tree
		page := make([]byte, 512)
		copy(page, b)
		for i := range uint32(20) {
			ahead := tr.note(pgno+i, page, 8, i%2 == 0)
			if len(ahead) > 8 {
				t.Fatalf("%d pages ahead", len(ahead))
			}
			if len(ahead) > 0 && i%3 == 0 {
				pgno = ahead[0] - i
			}
			page[int(i)%len(page)]++
		}
		for _, p := range tr {
			if len(p.children) > 256 {
				t.Fatal(fmt.Sprint(len(p.children), " children"))
			}
		}
	})
}
