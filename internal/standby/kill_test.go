package standby

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
)

// followEnv makes the test binary a process that follows.
const followEnv = "WALFERRY_TEST_FOLLOW"

func TestMain(m *testing.M) {
	if url := os.Getenv(followEnv); url != "" {
		os.Exit(followProcess(url, os.Args[1]))
	}
	os.Exit(m.Run())
}

func followProcess(url, out string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store, err := objstore.New(url, objstore.Options{})
	if err == nil {
		enc := json.NewEncoder(os.Stdout)
		err = Follow(ctx, store, out, Options{Interval: 10 * time.Millisecond, Event: func(e Event) { _ = enc.Encode(e) }})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a follower of its own.
type process struct {
	cmd    *exec.Cmd
	events *bufio.Scanner
	stderr strings.Builder
}

func start(t *testing.T, src *histtest.Source, out string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], out)}
	p.cmd.Env = append(os.Environ(), followEnv+"="+src.URL)
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.events = bufio.NewScanner(stdout)
	return p
}

// until reads events to one of a state.
func (p *process) until(t *testing.T, state string) Event {
	t.Helper()
	for p.events.Scan() {
		var e Event
		if err := json.Unmarshal(p.events.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.State == state {
			return e
		}
	}
	err := p.cmd.Wait()
	t.Fatalf("the follower ended before it was %s: %v: %s", state, err, p.stderr.String())
	return Event{}
}

// end interrupts the process, which must end as if all was done.
func (p *process) end(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(os.Interrupt)
	_, _ = io.Copy(io.Discard, readerOf(p.events))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("interrupted: %v: %s", err, p.stderr.String())
	}
}

func readerOf(s *bufio.Scanner) io.Reader {
	r, w := io.Pipe()
	go func() {
		for s.Scan() {
		}
		w.Close()
	}()
	return r
}

// invariant is what holds in every state of the source: all rows have one counter.
// The counter grows from state to state.
const invariant = "SELECT count(*), min(c), max(c), (SELECT total FROM s) FROM inv"

func rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("WALFERRY_ROUNDS")); err == nil {
		return v
	}
	return n
}

// checkReads reads the standby until ctx ends.
func checkReads(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	last := int64(0)
	for n := 0; ctx.Err() == nil; n++ {
		var seen [2][4]int64
		err := func() error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			for i := range seen {
				v := &seen[i]
				if err := tx.QueryRow(invariant).Scan(&v[0], &v[1], &v[2], &v[3]); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil {
			return fmt.Errorf("read %d: %w", n, err)
		}
		v := seen[0]
		if v != seen[1] || v[1] != v[2] || v[3] != v[0]*v[1] || v[1] < last {
			return fmt.Errorf("read %d: %v after counter %d", n, seen, last)
		}
		last = v[1]
	}
	return nil
}

// pythonReader is checkReads in another client, which has a SQLite of its own.
const pythonReader = `
import sqlite3, sys, threading
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
last = n = 0
while not done.is_set():
    db.execute("BEGIN")
    a, b = db.execute(sys.argv[2]).fetchone(), db.execute(sys.argv[2]).fetchone()
    db.execute("COMMIT")
    if a != b or a[1] != a[2] or a[3] != a[0] * a[1] or a[1] < last:
        sys.exit(f"read {n}: {a} {b} after counter {last}")
    last, n = a[1], n + 1
    if n % 50 == 0:
        db.close()
        db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
`

// pythonReads starts the reader; the function that it returns ends it.
func pythonReads(t *testing.T, path string) (end func()) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return func() {}
	}
	cmd := exec.Command(python, "-c", pythonReader, path, invariant)
	var out strings.Builder
	cmd.Stderr = &out
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("python: %v: %s", err, out.String())
		}
	}
}

// writer makes history until told to stop: states, merges, snapshots, retention.
func writer(src *histtest.Source, r *rand.Rand, stop <-chan struct{}) {
	from := src.TXID + 1
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(8)) * time.Millisecond):
		}
		work(src, r, r.IntN(3))
		change(src, r)
		src.Ship()
		switch {
		case i%41 == 40:
			src.Put(objstore.SnapshotLevel, 1, src.TXID)
			for level := range 4 {
				src.Remove(level, src.TXID-1)
			}
			from = src.TXID + 1
		case i%7 == 6:
			src.Put(1+r.IntN(3), from, src.TXID)
			src.Remove(0, src.TXID-1)
			from = src.TXID + 1
		}
	}
}

// change is a transaction that keeps the invariant.
func change(src *histtest.Source, r *rand.Rand) {
	tx, err := src.DB.Begin()
	for _, q := range []string{
		"UPDATE inv SET c = c+1",
		fmt.Sprintf("DELETE FROM inv WHERE id%%5 = %d AND (SELECT count(*) FROM inv) > 400", r.IntN(5)),
		fmt.Sprintf("INSERT INTO inv(c, pad) SELECT c, randomblob(%d) FROM inv LIMIT %d", r.IntN(400), r.IntN(90)),
		"UPDATE s SET total = (SELECT sum(c) FROM inv)",
	} {
		if err == nil {
			_, err = tx.Exec(q)
		}
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		src.T.Error(err)
	}
}

// The follower is killed at random moments while the source makes history and
// readers read: at no moment do they see anything but a state of the source, and never an
// older one than before.
func TestReadersSeeStatesOnlyWhateverIsKilled(t *testing.T) {
	for _, size := range []int{1024, 4096} {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		t.Logf("seed %d", seed)
		src := histtest.New(t, size, fmt.Sprintf("PRAGMA auto_vacuum=%d", r.IntN(3)))
		for _, q := range []string{
			"CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
			"CREATE TABLE inv(id INTEGER PRIMARY KEY, c, pad)", "CREATE INDEX invc ON inv(c)",
			"CREATE TABLE s(total)", "INSERT INTO inv(c) VALUES(0),(0),(0)", "INSERT INTO s VALUES(0)",
		} {
			src.Exec(q)
		}
		src.Ship()
		path := filepath.Join(t.TempDir(), "standby.db")
		p := start(t, src, path)
		p.until(t, Following)

		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() { writer(src, rand.New(rand.NewPCG(seed, 1)), stop) })
		for range 2 {
			wg.Go(func() {
				if err := checkReads(ctx, path); err != nil {
					t.Error(err)
				}
			})
		}
		end := pythonReads(t, path)
		for range rounds(12) {
			<-time.After(time.Duration(r.IntN(200)) * time.Millisecond) // a moment, of no meaning
			if err := p.cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			err := p.cmd.Wait()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("the follower ended by itself: %v: %s", err, p.stderr.String())
				break
			}
			p = start(t, src, path)
		}
		close(stop)
		cancel()
		wg.Wait()
		end()
		p.until(t, Following)
		p.end(t)

		f := opened(t, src, path)
		advance(t, f, src)
		if f.pos.At.TXID != src.TXID || f.scans > 1 {
			t.Errorf("at %s of %s, %d scans", f.pos.At.TXID, src.TXID, f.scans)
		}
	}
}
