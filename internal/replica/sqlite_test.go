//go:build !race

package replica

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
)

// TestSQLiteReadsWhatIsRead takes each state of a real database, from a directory, to a file. Not under
// the race detector, for which it would take minutes to compile SQLite.
func TestSQLiteReadsWhatIsRead(t *testing.T) {
	for _, size := range []int{512, 4096, 65536} {
		for autoVacuum := range 3 {
			t.Run(fmt.Sprintf("page size %d, auto_vacuum %d", size, autoVacuum), func(t *testing.T) {
				t.Parallel()
				h := histtest.New(t, size, fmt.Sprintf("PRAGMA auto_vacuum=%d", autoVacuum))
				h.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
				h.Ship()
				for _, s := range []string{
					"INSERT INTO t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT randomblob(900) FROM n",
					"UPDATE t SET v = randomblob(1000) WHERE id % 7 = 0", "DELETE FROM t WHERE id > 20", "PRAGMA incremental_vacuum",
					"INSERT INTO t(v) SELECT randomblob(9000) FROM t", "CREATE INDEX i ON t(v)", "DROP TABLE t", "CREATE TABLE u(x)", "VACUUM",
				} {
					h.Exec(s)
					h.Ship()
				}
				h.Put(1, 2, 5)
				h.Put(2, 2, 7)
				h.Remove(0, 4)
				c, err := Open(Options{URL: h.URL, Timeout: 30 * time.Second, CacheSize: 1 << 20}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, txid := range []ltx.TXID{10, 1, 5, 7, 8, 9, 6} {
					if err := c.PinTXID(txid); err != nil {
						t.Fatal(err)
					}
					opens(t, c, h.State[txid])
				}
				h.Put(objstore.SnapshotLevel, 1, 10)
				if err := c.PinAt(latest); err != nil {
					t.Fatal(err)
				}
				opens(t, c, h.State[10])
			})
		}
	}
}

// opens compares what is read with a state, and lets SQLite look at it.
func opens(t *testing.T, c *Conn, s histtest.State) {
	t.Helper()
	begin(t, c)
	defer c.End()
	got := make([]byte, c.Size())
	if _, err := c.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if want := s.Bytes(); c.TXID() != s.TXID || !bytes.Equal(undressed(got), undressed(want)) {
		t.Fatalf("TXID %s: %d bytes, not the %d of TXID %s", c.TXID(), len(got), len(want), s.TXID)
	}
	file := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(file, got, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var said, mode string
	err = db.QueryRow("PRAGMA integrity_check").Scan(&said)
	if err == nil {
		err = db.QueryRow("PRAGMA journal_mode").Scan(&mode)
	}
	if err != nil || said != "ok" || mode != "delete" {
		t.Fatalf("TXID %s: integrity %s, journal mode %s, %v", c.TXID(), said, mode, err)
	}
}
