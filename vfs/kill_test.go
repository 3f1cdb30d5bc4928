package vfs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/ledger"
)

// commitNumber is what the n-th commit of a seed's workload does: the same in
// every run, so that a restored database can be held against a run of its own.
func commitNumber(c *conn, seed, n int) {
	r := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	c.exec("BEGIN IMMEDIATE")
	defer c.exec("COMMIT")
	if n == 1 {
		c.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
		c.exec("CREATE TABLE n(n INTEGER)")
		c.exec("INSERT INTO n VALUES(0)")
	}
	c.exec("UPDATE n SET n=?", n)
	content := func() string { return strings.Repeat(strconv.Itoa(r.IntN(1000)), r.IntN(1500)) }
	switch r.IntN(6) {
	case 0, 1, 2:
		for range 1 + r.IntN(20) {
			c.exec("INSERT INTO t(a,b) VALUES(?,?)", content(), content())
		}
	case 3:
		c.exec("UPDATE t SET a=? WHERE id%?=0", content(), 2+r.IntN(5))
	case 4:
		c.exec("DELETE FROM t WHERE id%?=0", 2+r.IntN(5))
	case 5:
		c.exec("SAVEPOINT s")
		c.exec("UPDATE t SET b=?", content())
		c.exec("ROLLBACK TO s")
		c.exec("INSERT INTO t(a) VALUES(?)", content())
	}
}

// TestMain runs this instead of the tests in a child that is to be killed: it
// goes on with the workload and prints the commits that are confirmed.
func workloadForever(seed int, uri string) {
	t := &childTB{}
	p := &place{t: t}
	c := p.openURI(uri)
	c.exec("PRAGMA busy_timeout=5000")
	c.exec("PRAGMA wal_autocheckpoint=30")
	n := 0
	if c.text("SELECT count(*) FROM sqlite_schema") != "0" {
		n, _ = strconv.Atoi(c.text("SELECT n FROM n"))
	}
	for {
		n++
		commitNumber(c, seed, n)
		fmt.Println("committed", n)
		if n%5 == 0 && c.text("SELECT walferry_wait(walferry_token(), 10000)") == "1" {
			fmt.Println("confirmed", n)
		}
	}
}

// childTB lets the helpers of the tests run where there is no test.
type childTB struct{ testing.TB }

func (childTB) Helper()        {}
func (childTB) Cleanup(func()) {}
func (childTB) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}
func (t childTB) Fatalf(f string, args ...any) { t.Fatal(fmt.Sprintf(f, args...)) }

// TestInvariant7_KilledAtRandomARestoreIsACommittedState kills a writer again and
// again. What is in the store then is a state that was committed, not older than
// the last one that was confirmed; and what the next start ships is what differs.
func TestInvariant7_KilledAtRandomARestoreIsACommittedState(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	const seed = 7
	p := newPlace(t, "&interval=20ms")
	r := rand.New(rand.NewPCG(seed, seed))
	for round := range rounds {
		committed, confirmed := runAndKill(t, seed, p.uri(), time.Duration(30+r.IntN(250))*time.Millisecond)
		if len(p.objects()) == 0 {
			continue
		}
		got := stateOf(t, replay(t, p.objects()))
		if got.n < confirmed {
			t.Fatalf("round %d: commit %d was confirmed, the replica ends at %d", round, confirmed, got.n)
		}
		if got.n > committed+1 { // the last may be committed and not printed
			t.Fatalf("round %d: the replica has commit %d, the database only %d", round, got.n, committed)
		}
		if want := stateAt(t, seed, got.n); got.dump != want {
			t.Fatalf("round %d: the replica is no state that was committed (n=%d)", round, got.n)
		}
	}
	// The next start ships what differs, and not the database again. A page may
	// be sent all the same if a PUT that was under way could have changed it.
	names := p.objects()
	had, unknown := replay(t, names), p.unknownPages()
	c := p.open()
	c.sync()
	image := c.serialize()
	p.mustEqual(image, "after the last kill")
	p.atRest(image)
	if len(image) < 100*4096 {
		t.Fatalf("the database has only %d bytes", len(image))
	}
	for _, name := range p.objects()[len(names):] {
		_, pages := decode(t, name)
		for pgno := range pages {
			off := int(pgno-1) * 4096
			same := off+4096 <= len(had) && bytes.Equal(had[off:off+4096], image[off:off+4096])
			if same && pgno != 1 && !unknown[pgno] {
				t.Errorf("after kill -9 page %d was sent, which the store had", pgno)
			}
		}
	}
}

// unknownPages are those of which the ledger does not know what the store has.
func (p *place) unknownPages() map[uint32]bool {
	p.t.Helper()
	l, err := ledger.OpenReadOnly(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(); err != nil {
		p.t.Fatal(err)
	}
	unknown := map[uint32]bool{}
	for pgno := uint32(1); pgno <= ledger.SegmentPages; pgno++ {
		unknown[pgno] = l.Sum(pgno) == 0
	}
	return unknown
}

func runAndKill(t *testing.T, seed int, uri string, after time.Duration) (committed, confirmed int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WALFERRY_TEST_WORKLOAD="+strconv.Itoa(seed), "WALFERRY_TEST_URI="+uri)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var timer *time.Timer
	for lines.Scan() {
		what, number, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(number)
		if what == "confirmed" {
			confirmed = n
		} else {
			committed = n
		}
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
		}
	}
	_ = cmd.Wait()
	if timer == nil {
		t.Fatal("the child did nothing")
	}
	return committed, confirmed
}

type state struct {
	n    int
	dump string
}

func stateOf(t *testing.T, image []byte) state {
	t.Helper()
	path := filepath.Join(t.TempDir(), "restored.db")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	c := (&place{t: t, path: path}).plain()
	defer c.close()
	if ok := c.text("PRAGMA integrity_check"); ok != "ok" {
		t.Fatalf("integrity_check: %s", ok)
	}
	n, _ := strconv.Atoi(c.text("SELECT n FROM n"))
	return state{n, dumpOf(c)}
}

func dumpOf(c *conn) string {
	return c.text("SELECT count(*) || ' ' || coalesce(group_concat(id || ':' || coalesce(a,'') || ':' || coalesce(b,''), '|'), '') FROM (SELECT * FROM t ORDER BY id)")
}

// states are the runs of the workload with plain SQLite, gone on with as far as
// asked for.
var states = struct {
	c     *conn
	n     int
	dumps map[int]string
}{dumps: map[int]string{}}

func stateAt(t *testing.T, seed, n int) string {
	t.Helper()
	if states.c == nil {
		p := newPlace(t, "")
		states.c = p.plain()
		states.c.exec("PRAGMA synchronous=OFF")
	}
	for states.n < n {
		states.n++
		commitNumber(states.c, seed, states.n)
		states.dumps[states.n] = dumpOf(states.c)
	}
	return states.dumps[n]
}
