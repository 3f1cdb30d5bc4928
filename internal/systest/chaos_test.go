package systest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestInvariant7_ManyProcessesDieAtRandom lets programs with and without walferry
// work on one database, kills and replaces them, and compares when all are dead
// and one more has come and gone. WALFERRY_TEST_CHAOS is for how many seconds.
func TestInvariant7_ManyProcessesDieAtRandom(t *testing.T) {
	length := 8 * time.Second
	if n, err := strconv.Atoi(os.Getenv("WALFERRY_TEST_CHAOS")); err == nil {
		length = time.Duration(n) * time.Second
	}
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p := newPlace(t)
	s := p.client()
	s.exec("PRAGMA auto_vacuum=" + strconv.Itoa(r.IntN(3)))
	s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	s.end()

	begin := func(i int) *proc {
		return p.start("chaos.py", []string{"walferry", "walferry", "plain"}[i], fmt.Sprint(r.Uint32()))
	}
	procs := make([]*proc, 3)
	for i := range procs {
		procs[i] = begin(i)
	}
	kills := 0
	for until := time.Now().Add(length); time.Now().Before(until); kills++ {
		i := r.IntN(len(procs))
		for range r.IntN(20) {
			procs[i].expect("did")
		}
		procs[i].kill()
		procs[i] = begin(i)
		if r.IntN(6) == 0 { // all at once: the WAL is recovered
			for i := range procs {
				procs[i].kill()
			}
			for i := range procs {
				procs[i] = begin(i)
			}
		}
	}
	for _, other := range procs {
		other.kill()
	}
	for range 2 { // the first finds what was left, the second has nothing to do
		s = p.client()
		s.exec("INSERT INTO t(v) VALUES('the end')")
		s.confirm()
		mustEqual(t, fmt.Sprintf("seed %d, %d kills: restore beside the writer", seed, kills), p.restored(), p.image())
		s.end()
		p.comesBack()
	}
}
