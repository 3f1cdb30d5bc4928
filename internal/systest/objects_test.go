package systest

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/superfly/ltx"
)

// object is one LTX file of a replica, read whole and verified.
type object struct {
	path     string
	level    int
	min, max ltx.TXID
	size     int64
	commit   uint32 // pages of the database
	pages    int    // that the file holds
}

// list returns the replica's objects in the order of their TXIDs.
func (p *place) list() []object {
	p.t.Helper()
	var all []object
	err := filepath.WalkDir(p.objects, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && d.Type().IsRegular() && filepath.Ext(path) == ".ltx" {
			all = append(all, decode(p.t, path))
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b object) int { return cmp.Or(cmp.Compare(a.max, b.max), cmp.Compare(a.level, b.level)) })
	return all
}

func decode(t testing.TB, path string) object {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	dec := ltx.NewDecoder(f)
	if err := dec.Verify(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	level, err := strconv.ParseInt(filepath.Base(filepath.Dir(path)), 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	h := dec.Header()
	if name := ltx.FormatFilename(h.MinTXID, h.MaxTXID); name != filepath.Base(path) {
		t.Fatalf("%s holds %s", path, name)
	}
	return object{path: path, level: int(level), min: h.MinTXID, max: h.MaxTXID, size: fi.Size(), commit: h.Commit, pages: dec.PageN()}
}

// newest is the last TXID of the replica, 0 if it is empty.
func (p *place) newest() ltx.TXID {
	p.t.Helper()
	all := p.list()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].max
}

// after counts what the objects beyond a TXID hold.
func (p *place) after(txid ltx.TXID) (pages int, bytes int64) {
	p.t.Helper()
	for _, o := range p.list() {
		if o.max > txid {
			pages += o.pages
			bytes += o.size
		}
	}
	return pages, bytes
}
