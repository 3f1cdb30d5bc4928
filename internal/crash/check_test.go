package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// image is a database as it was found: its bytes, and the commit that it is of.
type image struct {
	bytes []byte
	n     int
}

// inspect looks at a database file that nobody else uses, and moves its WAL into it.
// It must be sound, and its state the one of its number.
func (l *life) inspect(path string) (im image, err error) {
	c, err := open("file:" + path)
	if err != nil {
		return im, err
	}
	defer c.close()
	if ok, err := c.text("PRAGMA integrity_check"); err != nil || ok != "ok" {
		return im, fmt.Errorf("integrity_check: %s, %v", ok, err)
	}
	if im.n, err = c.last(); err != nil {
		return im, err
	}
	if im.n > 0 {
		is, err := c.state()
		if err != nil {
			return im, err
		}
		if want, err := l.oracle.at(im.n); err != nil || is != want {
			return im, fmt.Errorf("it says that it is of commit %d and is not: %v", im.n, err)
		}
	}
	if err := c.exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return im, err
	}
	im.bytes, err = os.ReadFile(path)
	return im, err
}

// local is the database as the next open will find it. It works on a copy.
func (l *life) local() (image, error) {
	to := filepath.Join(l.dir, "copy")
	if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700)); err != nil {
		return image{}, err
	}
	if err := copyFiles(l.db, filepath.Join(to, "app.db"), "", "-wal", "-journal"); err != nil {
		return image{}, err
	}
	im, err := l.inspect(filepath.Join(to, "app.db"))
	if err != nil {
		err = fmt.Errorf("the database: %w", err)
	}
	return im, err
}

func copyFiles(from, to string, suffixes ...string) error {
	for _, suffix := range suffixes {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+suffix, b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restored is what the replica makes, nil where it holds nothing. Every third time a
// state of the past is looked at too.
func (l *life) restored() (*image, error) {
	h, err := history.List(context.Background(), l.store)
	if err != nil || len(h.Objects()) == 0 {
		return nil, err
	}
	if points := h.Points(); l.r.IntN(3) == 0 && len(points) > 0 {
		if _, err := l.restore(points[l.r.IntN(len(points))]); err != nil {
			return nil, err
		}
	}
	return l.restore(newestOf(h.Objects()))
}

func (l *life) restore(txid ltx.TXID) (*image, error) {
	out := filepath.Join(l.dir, "restored")
	if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o700)); err != nil {
		return nil, err
	}
	r, err := restore.Restore(context.Background(), l.store, filepath.Join(out, "app.db"), restore.Options{Target: history.Target{TXID: txid}})
	if err != nil {
		return nil, fmt.Errorf("restore TXID %s: %w", txid, err)
	}
	im, err := l.inspect(filepath.Join(out, "app.db"))
	if err != nil {
		return nil, fmt.Errorf("restored TXID %s: %w", r.TXID, err)
	}
	l.count("restores compared", 1)
	return &im, nil
}

// objects lists the whole replica.
func (l *life) objects() (all []objstore.Object, err error) {
	for level := 0; level <= objstore.SnapshotLevel; level++ {
		found, err := l.store.List(context.Background(), level, 1)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// entries are the ledger's sums, nil where the ledger is not to be trusted: an open
// then makes it new.
type entries struct {
	sum      []uint64 // by page
	pageSize uint32
	pending  int
	all      bool // what changed is not known
}

func (l *life) entries(pages int) (*entries, error) {
	led, err := ledger.OpenReadOnly(l.db)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ledger.ErrNew) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer led.Close()
	if err := led.Check(); err != nil {
		return nil, nil
	}
	h := led.Header()
	e := &entries{sum: make([]uint64, pages+1), pageSize: h.PageSize, pending: led.Pending(), all: h.All != h.AllDone}
	for p := range e.sum {
		e.sum[p] = led.Sum(uint32(p))
	}
	return e, nil
}

// exact holds the ledger against the newest object: an entry is the sum of what the
// store has, or unknown.
func (e *entries) exact(replica *image) error {
	if e == nil || e.pageSize == 0 {
		return nil
	}
	for p := 1; p < len(e.sum); p++ {
		if e.sum[p] == 0 {
			continue
		}
		if replica == nil {
			return fmt.Errorf("the ledger has an entry of page %d, and the replica nothing", p)
		}
		page := pageOf(replica.bytes, p, int(e.pageSize))
		if page == nil || ledger.PageSum(uint32(p), page) != e.sum[p] {
			return fmt.Errorf("the entry of page %d is not what the store has", p)
		}
	}
	return nil
}

func pageOf(b []byte, p, size int) []byte {
	if p*size > len(b) {
		return nil
	}
	return b[(p-1)*size : p*size]
}

// sent reads the pages of the objects that are newer than some.
func (l *life) sent(after ltx.TXID) (pages map[uint32][]byte, bytes int64, err error) {
	objects, err := l.store.List(context.Background(), 0, after+1)
	if err != nil {
		return nil, 0, err
	}
	pages = map[uint32][]byte{}
	for _, o := range objects {
		body, err := l.store.Open(context.Background(), o, 0, -1)
		if err != nil {
			return nil, 0, err
		}
		err = decode(body, pages)
		body.Close()
		if err != nil {
			return nil, 0, fmt.Errorf("%v: %w", o, err)
		}
		bytes += o.Size
	}
	return pages, bytes, nil
}

func decode(r io.Reader, pages map[uint32][]byte) error {
	dec := ltx.NewDecoder(r)
	if err := dec.DecodeHeader(); err != nil {
		return err
	}
	for {
		var h ltx.PageHeader
		data := make([]byte, dec.Header().PageSize)
		if err := dec.DecodePage(&h, data); errors.Is(err, io.EOF) {
			return dec.Close()
		} else if err != nil {
			return err
		}
		pages[h.Pgno] = data
	}
}

// onlyWhatChanged holds what an open has sent against what it had to send. A
// page that the store had already may be among it only if the ledger could not know
// that, as of those in flight, or if it is the first, which carries the size.
func onlyWhatChanged(sent map[uint32][]byte, replica *image, known *entries) (again int, err error) {
	if replica == nil || known == nil || known.pageSize == 0 {
		return 0, nil
	}
	for p, data := range sent {
		if !bytes.Equal(pageOf(replica.bytes, int(p), int(known.pageSize)), data) {
			continue
		}
		again++
		if p != 1 && int(p) < len(known.sum) && known.sum[p] != 0 {
			return again, fmt.Errorf("page %d was sent, which the store had and the ledger knew", p)
		}
	}
	return again, nil
}

// oracle makes the commits of a history with plain SQLite, as far as asked for.
type oracle struct {
	c      *conn
	seed   uint64
	states []uint64
}

func newOracle(seed uint64) (*oracle, error) {
	c, err := open("file::memory:")
	return &oracle{c: c, seed: seed, states: []uint64{0}}, err
}

func (o *oracle) at(n int) (uint64, error) {
	for len(o.states) <= n {
		if _, err := o.c.commit(o.seed); err != nil {
			return 0, err
		}
		s, err := o.c.state()
		if err != nil {
			return 0, err
		}
		o.states = append(o.states, s)
	}
	return o.states[n], nil
}

func newestOf(objects []objstore.Object) (newest ltx.TXID) {
	for _, o := range objects {
		newest = max(newest, o.Max)
	}
	return newest
}
