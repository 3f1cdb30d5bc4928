package vfs_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/shipper"
	"github.com/walferry/walferry/vfs"
)

func TestMain(m *testing.M) {
	if err := vfs.Register(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if seed, err := strconv.Atoi(os.Getenv("WALFERRY_TEST_WORKLOAD")); err == nil {
		workloadForever(seed, os.Getenv("WALFERRY_TEST_URI"))
	}
	os.Exit(m.Run())
}

// place is a database and its replica in a directory of the test's.
type place struct {
	t       testing.TB
	path    string
	replica string // directory
	params  string // further URI parameters
}

func newPlace(t testing.TB, params string) *place {
	dir := t.TempDir()
	return &place{t: t, path: filepath.Join(dir, "app.db"), replica: filepath.Join(dir, "replica"), params: params}
}

func (p *place) uri() string {
	return fmt.Sprintf("file:%s?vfs=walferry&replica=file://%s&close_timeout=20s%s", p.path, p.replica, p.params)
}

// open returns one connection; database/sql would close and open as it likes.
func (p *place) open() *conn {
	p.t.Helper()
	return p.openURI(p.uri())
}

// plain opens the database without walferry, as another program would.
func (p *place) plain() *conn {
	p.t.Helper()
	return p.openURI("file:" + p.path)
}

func (p *place) openURI(uri string) *conn {
	p.t.Helper()
	db, err := sql.Open("sqlite3", uri)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := db.Conn(context.Background())
	if err != nil {
		p.t.Fatalf("open %s: %v", uri, err)
	}
	k := &conn{t: p.t, db: db, Conn: c}
	p.t.Cleanup(func() { k.close() })
	return k
}

type conn struct {
	t  testing.TB
	db *sql.DB
	*sql.Conn
	closed bool
}

func (c *conn) close() {
	if !c.closed {
		c.closed = true
		c.Conn.Close()
		c.db.Close()
	}
}

func (c *conn) exec(query string, args ...any) {
	c.t.Helper()
	if _, err := c.ExecContext(context.Background(), query, args...); err != nil {
		c.t.Fatalf("%s: %v", query, err)
	}
}

func (c *conn) try(query string, args ...any) error {
	_, err := c.ExecContext(context.Background(), query, args...)
	return err
}

func (c *conn) text(query string, args ...any) string {
	c.t.Helper()
	s, err := c.query(query, args...)
	if err != nil {
		c.t.Fatalf("%s: %v", query, err)
	}
	return s
}

func (c *conn) query(query string, args ...any) (string, error) {
	var s sql.NullString
	err := c.QueryRowContext(context.Background(), query, args...).Scan(&s)
	return s.String, err
}

func (c *conn) sync() { c.t.Helper(); c.text("PRAGMA walferry_sync") }

// serialize is the committed state, as SQLite itself gives it.
func (c *conn) serialize() []byte {
	c.t.Helper()
	var image []byte
	err := c.Raw(func(driver any) (err error) {
		image, err = driver.(*sqlite3.SQLiteConn).Serialize("main")
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return image
}

// objects lists the replica's files in the order of their TXIDs.
func (p *place) objects() []string {
	var names []string
	for _, level := range []string{"9", "0"} {
		found, _ := filepath.Glob(filepath.Join(p.replica, "ltx", level, "*.ltx"))
		names = append(names, found...)
	}
	slices.SortFunc(names, func(a, b string) int { return bytes.Compare([]byte(filepath.Base(a)), []byte(filepath.Base(b))) })
	return names
}

// replay is the database that the objects make, up to the last of names.
func replay(t testing.TB, names []string) []byte {
	t.Helper()
	var image []byte
	for i, name := range names {
		if want := ltx.FormatFilename(ltx.TXID(i+1), ltx.TXID(i+1)); filepath.Base(name) != want {
			t.Fatalf("object %d is %s, and not %s", i+1, filepath.Base(name), want)
		}
		h, pages := decode(t, name)
		size := int(h.PageSize)
		for pgno, data := range pages {
			if need := int(pgno) * size; need > len(image) {
				image = append(image, make([]byte, need-len(image))...)
			}
			copy(image[int(pgno-1)*size:], data)
		}
		if n := int(h.Commit) * size; n <= len(image) {
			image = image[:n]
		} else if n-len(image) > size || h.Commit != ledger.LockPage(h.PageSize) {
			t.Fatalf("%s: the database has %d bytes, the objects only %d", name, n, len(image))
		}
	}
	return image
}

func decode(t testing.TB, name string) (ltx.Header, map[uint32][]byte) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec := ltx.NewDecoder(f)
	if err := dec.DecodeHeader(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	h := dec.Header()
	pages := map[uint32][]byte{}
	for {
		var ph ltx.PageHeader
		data := make([]byte, h.PageSize)
		if err := dec.DecodePage(&ph, data); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pages[ph.Pgno] = data
	}
	if err := dec.Close(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return h, pages
}

// mustEqual compares the replica with the database, page by page.
func (p *place) mustEqual(want []byte, when string) {
	p.t.Helper()
	got := replay(p.t, p.objects())
	if bytes.Equal(got, want) {
		return
	}
	if len(got) != len(want) {
		p.t.Fatalf("%s: the replica has %d bytes, the database %d", when, len(got), len(want))
	}
	size := int(want[16])<<8 | int(want[17])
	if size == 1 {
		size = 65536
	}
	for off := 0; off < len(want); off += size {
		if !bytes.Equal(got[off:off+size], want[off:off+size]) {
			p.t.Errorf("%s: page %d differs", when, off/size+1)
		}
	}
	p.t.FailNow()
}

// atRest checks the ledger of a database whose commits are all in the store:
// entries are the sums of the pages, and nothing is dirty or in flight.
func (p *place) atRest(image []byte) {
	p.t.Helper()
	l, err := ledger.OpenReadOnly(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(); err != nil {
		p.t.Fatal(err)
	}
	h := l.Header()
	if n := l.Pending(); n != 0 || h.All != h.AllDone {
		p.t.Fatalf("at rest %d pages are pending, all is %d of %d", n, h.AllDone, h.All)
	}
	size := int(h.PageSize)
	for pgno := uint32(1); int(pgno)*size <= len(image); pgno++ {
		page := image[int(pgno-1)*size : int(pgno)*size]
		if sum := l.Sum(pgno); sum != ledger.PageSum(pgno, page) && pgno != ledger.LockPage(h.PageSize) {
			p.t.Fatalf("entry of page %d is %x, and not the page's sum", pgno, sum)
		}
	}
}

func (p *place) status(c *conn) shipper.Status {
	p.t.Helper()
	return parseStatus(p.t, c.text("PRAGMA walferry_status"))
}
