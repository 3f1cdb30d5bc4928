package standby

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// opened fills or resumes a standby, without the loop around it.
func opened(t *testing.T, src *histtest.Source, path string) *follower {
	t.Helper()
	s, _, err := open(t.Context(), src.Store, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{standby: s, opts: Options{Event: func(e Event) { t.Logf("%s %s %s", e.State, e.TXID, e.Cause) }}, unproven: true}
	t.Cleanup(func() {
		if f.standby != nil {
			f.close()
		}
	})
	return f
}

// advance polls until the standby is where the source is.
func advance(t *testing.T, f *follower, src *histtest.Source) {
	t.Helper()
	for range 4 {
		if err := f.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.pos.At.TXID == src.TXID {
			same(t, f, src.State[src.TXID])
			return
		}
	}
	t.Fatalf("the standby is at %s, the source at %s", f.pos.At.TXID, src.TXID)
}

// same holds the standby against a state, as another connection sees it.
func same(t *testing.T, f *follower, st histtest.State) {
	t.Helper()
	db := reader(t, f.path)
	defer db.Close()
	rows, err := db.Query("SELECT data FROM sqlite_dbpage ORDER BY pgno")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var page []byte
		if err := rows.Scan(&page); err != nil {
			t.Fatal(err)
		}
		if n >= len(st.Pages) {
			continue
		}
		want := bytes.Clone(st.Pages[n])
		if n == 0 {
			for _, b := range [][]byte{page, want} {
				clear(b[24:28])
				clear(b[92:100])
			}
			fit(want, uint32(len(st.Pages)))
		}
		if !bytes.Equal(page, want) {
			t.Fatalf("TXID %s: page %d differs", st.TXID, n+1)
		}
	}
	if err := rows.Err(); err != nil || n != len(st.Pages) {
		t.Fatalf("TXID %s: %d pages, want %d, %v", st.TXID, n, len(st.Pages), err)
	}
}

func reader(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// work changes a source at random, so that all kinds of pages come and go.
func work(src *histtest.Source, r *rand.Rand, n int) {
	for range n {
		switch r.IntN(10) {
		case 0:
			src.Exec("DELETE FROM t WHERE id % 3 = ?", r.IntN(3))
		case 1:
			src.Exec("VACUUM")
		case 2:
			src.Exec(fmt.Sprintf("CREATE TABLE x%d(a, b); ", r.IntN(1<<30)))
		case 3:
			src.Exec("PRAGMA incremental_vacuum(3)")
		case 4:
			src.Exec("UPDATE t SET b = randomblob(300) WHERE id % 7 = ?", r.IntN(7))
		default:
			src.Exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<?) INSERT INTO t(b) SELECT randomblob(200) FROM n", r.IntN(60)+1)
		}
	}
}

func TestAStandbyIsTheSourceAfterEveryObject(t *testing.T) {
	for size := 512; size <= 65536; size *= 2 {
		for vacuum := range 3 {
			if vacuum > 0 && size > 4096 && size < 65536 {
				continue
			}
			t.Run(fmt.Sprintf("%d/auto_vacuum=%d", size, vacuum), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(size), uint64(vacuum)))
				src := histtest.New(t, size, fmt.Sprintf("PRAGMA auto_vacuum=%d", vacuum))
				src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
				src.Ship()
				f := opened(t, src, filepath.Join(t.TempDir(), "standby.db"))
				for range 12 {
					work(src, r, 1+r.IntN(3))
					src.Ship()
					advance(t, f, src)
				}
				if f.scans != 0 {
					t.Errorf("the pages were summed %d times", f.scans)
				}
			})
		}
	}
}

// Each end of a merge is a state, and a merge may begin before the position.
func TestAStandbyGoesOnThroughMergedLevels(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		src := histtest.New(t, 1024, fmt.Sprintf("PRAGMA auto_vacuum=%d", seed%3))
		src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
		src.Ship()
		f := opened(t, src, filepath.Join(t.TempDir(), "standby.db"))
		for range 6 {
			from := src.TXID + 1
			for range 1 + r.IntN(8) {
				if r.IntN(4) == 0 { // another kind of auto_vacuum in the middle
					src.Exec(fmt.Sprintf("PRAGMA auto_vacuum=%d", r.IntN(3)))
					src.Exec("VACUUM")
				}
				work(src, r, 2)
				src.Ship()
				if r.IntN(5) == 0 {
					advance(t, f, src)
				}
			}
			switch r.IntN(3) {
			case 0:
				src.Put(1+r.IntN(3), from, src.TXID)
				src.Remove(0, src.TXID-1)
			case 1: // everything is gone but a snapshot
				src.Put(objstore.SnapshotLevel, 1, src.TXID)
				for level := range 4 {
					src.Remove(level, src.TXID-1)
				}
			}
			advance(t, f, src)
		}
		if f.scans != 0 {
			t.Errorf("the pages were summed %d times", f.scans)
		}
	}
}

func TestTheStandbyHasNoLedgerAndGoesOnWhereItWas(t *testing.T) {
	src := histtest.New(t, 4096)
	src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	src.Ship()
	path := filepath.Join(t.TempDir(), "standby.db")
	for i := range 5 {
		f := opened(t, src, path)
		if i > 0 && f.pos.At.TXID != src.TXID {
			t.Fatalf("resumed at %s, was at %s", f.pos.At.TXID, src.TXID)
		}
		work(src, rand.New(rand.NewPCG(1, uint64(i))), 3)
		src.Ship()
		advance(t, f, src)
		f.close()
		f.standby = nil
		entries, _ := os.ReadDir(filepath.Dir(path))
		if len(entries) != 2 || entries[0].Name() != "standby.db" || entries[1].Name() != "standby.db"+Suffix {
			t.Errorf("the directory holds %v", entries)
		}
	}
}

// The lock page lies at 1 GiB: a hole in the file, up to which the database is taken
// as given.
func TestTheLockPageIsPassedBy(t *testing.T) {
	const size, lock = 65536, 16385
	src := histtest.New(t, size)
	src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	src.Ship()
	path := filepath.Join(t.TempDir(), "standby.db")
	f := opened(t, src, path)
	f.close()
	f.standby = nil

	// As if it had grown to just before the lock page, with pages of zeros.
	const pages = lock - 2
	db, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = db.Truncate(pages * size)
	}
	if err == nil {
		_, err = db.WriteAt(binary.BigEndian.AppendUint32(nil, pages), 28)
	}
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	pf, pos, _, err := openPosition(path+Suffix, false)
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, size)
	for p := pos.At.Pages + 1; p <= pages; p++ {
		pos.At.Rest ^= ledger.PageSum(p, zero)
	}
	pos.At.Pages = pages
	if err := pf.write(pos, true); err != nil {
		t.Fatal(err)
	}
	pf.close()

	f = opened(t, src, path)
	grow := func(txid ltx.TXID, commit uint32, numbers ...uint32) {
		var buf bytes.Buffer
		enc, _ := ltx.NewEncoder(&buf)
		_ = enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: size, Commit: commit, MinTXID: txid, MaxTXID: txid})
		for _, p := range numbers {
			page := bytes.Repeat([]byte{byte(txid)}, size)
			if p == 1 {
				page = src.State[1].Pages[0]
			}
			_ = enc.EncodePage(ltx.PageHeader{Pgno: p}, page)
		}
		if err := enc.Close(); err != nil {
			t.Fatal(err)
		}
		o := objstore.Object{Min: txid, Max: txid, Size: int64(buf.Len())}
		if err := src.Store.Create(t.Context(), o, bytes.NewReader(buf.Bytes()), objstore.Meta{}, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.poll(t.Context()); err != nil || f.pos.At.TXID != txid {
			t.Fatalf("at %s, want %s, %v", f.pos.At.TXID, txid, err)
		}
		other := reader(t, path)
		defer other.Close()
		var n uint32
		if err := other.QueryRow("PRAGMA page_count").Scan(&n); err != nil || n != commit {
			t.Errorf("TXID %d: %d pages, want %d, %v", txid, n, commit, err)
		}
		for _, p := range numbers {
			var b []byte
			if err := other.QueryRow("SELECT data FROM sqlite_dbpage WHERE pgno=?", p).Scan(&b); err != nil || p > 1 && b[9] != byte(txid) {
				t.Errorf("TXID %d: page %d is not as it was written, %v", txid, p, err)
			}
		}
	}
	grow(2, lock+2, 1, lock-1, lock+1, lock+2)
	grow(3, lock+1, 1)
	want := pos.At.Rest
	for _, p := range []uint32{lock - 1, lock + 1} {
		want ^= ledger.PageSum(p, bytes.Repeat([]byte{2}, size))
	}
	if f.pos.At.Rest != want {
		t.Error("the sums are not those of the pages")
	}
}
