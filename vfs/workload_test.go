package vfs_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/walferry/walferry/shipper"
)

func parseStatus(t testing.TB, text string) (s shipper.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("status %s: %v", text, err)
	}
	return s
}

// TestInvariant2_AtRestTheReplicaIsTheDatabase runs random workloads through two
// connections and a program without walferry, and after every few steps compares
// what the objects make with what SQLite serializes, byte for byte.
func TestInvariant2_AtRestTheReplicaIsTheDatabase(t *testing.T) {
	seeds := 12
	if n, err := strconv.Atoi(os.Getenv("WALFERRY_TEST_SEEDS")); err == nil {
		seeds = n
	}
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomWorkload(t, uint64(seed))
		})
	}
}

func randomWorkload(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	p := newPlace(t, "&interval=10ms")
	size := []int{512, 1024, 4096, 65536}[r.IntN(4)]
	setup := p.open()
	setup.exec(fmt.Sprintf("PRAGMA page_size=%d", size))
	setup.exec(fmt.Sprintf("PRAGMA auto_vacuum=%d", r.IntN(3)))
	setup.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
	setup.exec("CREATE INDEX ta ON t(a)")
	conns := []*conn{setup, p.open()}
	for _, c := range conns {
		c.exec("PRAGMA busy_timeout=5000")
		c.exec("PRAGMA cache_size=10") // spills
		c.exec(fmt.Sprintf("PRAGMA wal_autocheckpoint=%d", []int{0, 5, 50, 1000}[r.IntN(4)]))
	}
	for step := range 120 {
		c := conns[r.IntN(2)]
		foreign := r.IntN(12) == 0
		if foreign {
			c = p.plain()
			c.exec("PRAGMA busy_timeout=5000")
		}
		what := act(r, c)
		if foreign {
			c.close()
		}
		if r.IntN(25) == 0 { // a restart
			for i := range conns {
				conns[i].close()
			}
			if r.IntN(2) == 0 {
				f := p.plain()
				what += "; foreign while closed: " + act(r, f)
				f.close()
			}
			for i := range conns {
				conns[i] = p.open()
				conns[i].exec("PRAGMA busy_timeout=5000")
			}
		}
		if r.IntN(4) == 0 {
			conns[0].sync()
			image := conns[0].serialize()
			p.mustEqual(image, fmt.Sprintf("seed %d step %d (%s)", seed, step, what))
			p.atRest(image)
		}
	}
}

// act does one random thing and names it.
func act(r *rand.Rand, c *conn) string {
	blob := func() string { return fmt.Sprintf("randomblob(%d)", r.IntN(9000)) }
	switch r.IntN(14) {
	case 0, 1, 2:
		n := 1 + r.IntN(40)
		c.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t(a,b) SELECT hex(randomblob(8)), %s FROM n", n, blob()))
		return "insert"
	case 3, 4:
		c.exec(fmt.Sprintf("UPDATE t SET b=%s WHERE id%%%d=0", blob(), 2+r.IntN(9)))
		return "update"
	case 5, 6:
		c.exec(fmt.Sprintf("DELETE FROM t WHERE id%%%d=0", 1+r.IntN(4)))
		return "delete"
	case 7:
		c.exec("BEGIN IMMEDIATE")
		c.exec("INSERT INTO t(a,b) SELECT a, randomblob(5000) FROM t LIMIT 50")
		c.exec("ROLLBACK")
		return "rollback with spill"
	case 8:
		c.exec("BEGIN")
		c.exec("INSERT INTO t(a) VALUES('kept')")
		c.exec("SAVEPOINT s")
		c.exec("INSERT INTO t(a,b) SELECT a, randomblob(5000) FROM t LIMIT 60")
		c.exec("ROLLBACK TO s")
		c.exec("UPDATE t SET a='after' WHERE id%3=0")
		c.exec("COMMIT")
		return "savepoint rolled back"
	case 9:
		mode := []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[r.IntN(4)]
		c.exec("PRAGMA wal_checkpoint(" + mode + ")")
		return "checkpoint " + mode
	case 10:
		c.try("VACUUM") // busy where a reader is at it
		return "vacuum"
	case 11:
		c.exec("PRAGMA incremental_vacuum(5)")
		return "incremental vacuum"
	case 12:
		c.exec("BEGIN IMMEDIATE")
		c.exec("COMMIT")
		return "nothing"
	default:
		c.exec("CREATE TABLE IF NOT EXISTS u(x)")
		c.exec("INSERT INTO u SELECT randomblob(3000) FROM t LIMIT 30")
		c.exec("DROP TABLE u")
		return "table dropped"
	}
}
