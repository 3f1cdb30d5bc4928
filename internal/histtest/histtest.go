// Package histtest writes histories for tests: a real database, whose states
// are shipped into a directory store as walferry ships them, merged and trimmed.
package histtest

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"
	_ "modernc.org/sqlite" // the source; tests of a build without cgo use it too

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// State is a database at a TXID.
type State struct {
	TXID     ltx.TXID
	PageSize uint32
	Pages    [][]byte // page 1 first; the lock page is zeros
	Time     time.Time
}

// Bytes is the database file.
func (s State) Bytes() []byte { return bytes.Join(s.Pages, nil) }

// Checksum is the one that an object carries.
func (s State) Checksum() (sum uint64) {
	for i, page := range s.Pages {
		if p := uint32(i + 1); p != ledger.LockPage(s.PageSize) {
			sum ^= ledger.PageSum(p, page)
		}
	}
	return sum
}

// Source is a database with its history. Every state is kept, so it should be small.
type Source struct {
	T     testing.TB
	DB    *sql.DB // one connection
	Path  string
	URL   string
	Dir   string // of the store
	Store objstore.Store
	Sums  bool // objects carry the database's checksum
	State map[ltx.TXID]State
	TXID  ltx.TXID
	Nonce uint64
	Start time.Time // time of TXID 0; each is a second later
}

// New returns a database in WAL mode with a page size, and an empty store.
func New(t testing.TB, pageSize int, pragmas ...string) *Source {
	t.Helper()
	dir := t.TempDir()
	s := &Source{
		T: t, Path: filepath.Join(dir, "source.db"), Dir: filepath.Join(dir, "replica"), Sums: true,
		State: map[ltx.TXID]State{}, Nonce: 7, Start: time.UnixMilli(1700000000000).UTC(),
	}
	s.URL = "file://" + s.Dir
	var err error
	if s.Store, err = objstore.New(s.URL, objstore.Options{}); err != nil {
		t.Fatal(err)
	}
	if s.DB, err = sql.Open("sqlite", "file:"+s.Path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.DB.Close() })
	s.DB.SetMaxOpenConns(1)
	s.Exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize))
	for _, p := range pragmas {
		s.Exec(p)
	}
	s.Exec("PRAGMA journal_mode=WAL")
	s.Exec("PRAGMA synchronous=OFF")
	return s
}

// Exec runs a statement on the source.
func (s *Source) Exec(query string, args ...any) {
	s.T.Helper()
	if _, err := s.DB.Exec(query, args...); err != nil {
		s.T.Fatalf("%s: %v", query, err)
	}
}

// now reads the database as it is.
func (s *Source) now() State {
	s.T.Helper()
	st := State{TXID: s.TXID + 1, Time: s.Start.Add(time.Duration(s.TXID+1) * time.Second)}
	if err := s.DB.QueryRow("PRAGMA page_size").Scan(&st.PageSize); err != nil {
		s.T.Fatal(err)
	}
	rows, err := s.DB.Query("SELECT data FROM sqlite_dbpage ORDER BY pgno")
	if err != nil {
		s.T.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var page []byte
		if err := rows.Scan(&page); err != nil {
			s.T.Fatal(err)
		}
		st.Pages = append(st.Pages, page)
	}
	if rows.Err() != nil || len(st.Pages) == 0 {
		s.T.Fatalf("%d pages, %v", len(st.Pages), rows.Err())
	}
	return st
}

// Ship writes what has changed as the next object, the first one as a snapshot.
func (s *Source) Ship() objstore.Object {
	s.T.Helper()
	st := s.now()
	s.TXID = st.TXID
	s.State[s.TXID] = st
	if s.TXID == 1 {
		return s.Put(objstore.SnapshotLevel, 1, 1)
	}
	return s.Put(0, s.TXID, s.TXID)
}

// Object is what Put writes, without writing it.
func (s *Source) Object(level int, from, to ltx.TXID) (objstore.Object, []byte, objstore.Meta) {
	s.T.Helper()
	last := s.State[to]
	base := s.State[from-1] // none: every page
	var changed []uint32
	for i, page := range last.Pages {
		p := uint32(i + 1)
		if p == ledger.LockPage(last.PageSize) {
			continue
		}
		differs := i >= len(base.Pages) || from == 1
		for t := from; t <= to && !differs; t++ {
			// A page that went there and back was in an object too.
			before, after := s.State[t-1].Pages, s.State[t].Pages
			differs = i < len(after) && (i >= len(before) || !bytes.Equal(before[i], after[i]))
		}
		if differs || !bytes.Equal(base.Pages[i], page) {
			changed = append(changed, p)
		}
	}
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: last.PageSize, Commit: uint32(len(last.Pages)),
			MinTXID: from, MaxTXID: to, Timestamp: last.Time.UnixMilli(), NodeID: s.Nonce,
		})
	}
	for _, p := range changed {
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: p}, last.Pages[p-1])
		}
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		s.T.Fatal(err)
	}
	m := objstore.Meta{Timestamp: last.Time}
	if s.Sums {
		m.Checksum = last.Checksum()
	}
	return objstore.Object{Level: level, Min: from, Max: to, Size: int64(buf.Len())}, buf.Bytes(), m
}

// Put writes the object that takes the database from one state to another.
func (s *Source) Put(level int, from, to ltx.TXID) objstore.Object {
	s.T.Helper()
	o, b, m := s.Object(level, from, to)
	if err := s.Store.Create(context.Background(), o, bytes.NewReader(b), m, nil); err != nil {
		s.T.Fatal(err)
	}
	return o
}

// Remove takes the objects of a level from the store that end at or before a TXID.
func (s *Source) Remove(level int, to ltx.TXID) {
	s.T.Helper()
	objects, err := s.Store.List(context.Background(), level, 0)
	for _, o := range objects {
		if err == nil && o.Max <= to {
			err = s.Store.Remove(context.Background(), o)
		}
	}
	if err != nil {
		s.T.Fatal(err)
	}
}

// Objects is everything that the store holds, by level and TXID.
func (s *Source) Objects() (all []objstore.Object) {
	s.T.Helper()
	for level := range objstore.SnapshotLevel + 1 {
		objects, err := s.Store.List(context.Background(), level, 0)
		if err != nil {
			s.T.Fatal(err)
		}
		all = append(all, objects...)
	}
	slices.SortStableFunc(all, func(a, b objstore.Object) int { return cmp.Compare(a.Level, b.Level) })
	return all
}

// File is where an object lies.
func (s *Source) File(o objstore.Object) string {
	return filepath.Join(s.Dir, "ltx", fmt.Sprint(o.Level), o.Name())
}
