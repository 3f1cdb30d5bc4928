package standby

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
)

// filled is a source of some states, and a standby of it.
func filled(t *testing.T, n int) (*histtest.Source, string) {
	src := histtest.New(t, 4096)
	src.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	src.Ship()
	for range n - 1 {
		step(src)
	}
	path := filepath.Join(t.TempDir(), "standby.db")
	f := opened(t, src, path)
	f.close()
	f.standby = nil
	return src, path
}

func step(src *histtest.Source) {
	src.Exec("INSERT INTO t(b) VALUES(randomblob(5000))")
	src.Ship()
}

// follow runs Follow until a state, or to its end.
func follow(t *testing.T, store objstore.Store, path string, force bool, state string) ([]Event, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var events []Event
	err := Follow(ctx, store, path, Options{Interval: 1e6, Force: force, Event: func(e Event) {
		events = append(events, e)
		if e.State == state {
			cancel()
		}
	}})
	return events, err
}

func write(t *testing.T, path, query string) {
	t.Helper()
	db := reader(t, path)
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// mended follows with force and holds the result against the source.
func mended(t *testing.T, src *histtest.Source, path string) {
	t.Helper()
	if _, err := follow(t, src.Store, path, true, Following); err != nil {
		t.Fatal(err)
	}
	f := opened(t, src, path)
	same(t, f, src.State[src.TXID])
	f.close()
	f.standby = nil
}

func TestAWriterIsNoticed(t *testing.T) {
	for _, query := range []string{"CREATE TABLE mine(x)", "UPDATE t SET b=1 WHERE id=1", "DELETE FROM t", "PRAGMA user_version=9", "VACUUM"} {
		src, path := filled(t, 3)
		write(t, path, query) // while nobody follows
		step(src)
		before, _ := os.ReadFile(path)
		if _, err := follow(t, src.Store, path, false, Following); !errors.Is(err, ErrWritten) || !strings.Contains(err.Error(), "-force") {
			t.Errorf("%s: %v", query, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the database was changed", query)
		}
		mended(t, src, path)

		f := opened(t, src, path)
		write(t, path, query) // while it is followed
		step(src)
		if err := f.poll(t.Context()); !errors.Is(err, ErrWritten) {
			t.Errorf("%s: %v", query, err)
		}
		f.close()
		f.standby = nil
		mended(t, src, path)
	}
}

func TestACheckpointByAnotherIsNoWrite(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	for _, query := range []string{"PRAGMA wal_checkpoint(TRUNCATE)", "BEGIN IMMEDIATE; COMMIT", "PRAGMA wal_checkpoint(RESTART)"} {
		step(src)
		advance(t, f, src)
		write(t, path, query)
	}
	step(src)
	advance(t, f, src)
}

func TestAHeldWriteLockIsWaitedFor(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	f.c.busyTimeout(1)
	db := reader(t, path)
	defer db.Close()
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	step(src)
	if err := f.poll(t.Context()); !errors.Is(err, errBusy) || fatal(err) || stateOf(err) != Waiting {
		t.Errorf("%v", err)
	}
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	advance(t, f, src)
}

// brokenStore fails while it is told to.
type brokenStore struct {
	objstore.Store
	down atomic.Bool
}

func (s *brokenStore) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	return s.Store.List(ctx, level, from)
}

func TestAStoreThatIsDownIsWaitedFor(t *testing.T) {
	src, path := filled(t, 3)
	store := &brokenStore{Store: src.Store}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var states []string
	err := Follow(ctx, store, path, Options{Interval: 1e6, Event: func(e Event) {
		states = append(states, e.State)
		switch len(states) {
		case 1:
			store.down.Store(true)
		case 2:
			step(src)
			if e.TXID != 3 || !strings.Contains(e.Cause, "refused") {
				t.Errorf("%+v", e)
			}
			store.down.Store(false)
		case 3:
			if e.TXID != 4 {
				t.Errorf("%+v", e)
			}
			cancel()
		}
	}})
	if want := "[following unreachable following stopped]"; err != nil || fmt.Sprint(states) != want {
		t.Errorf("%v, want %s, %v", states, want, err)
	}
}

// An empty directory may be one that is not mounted.
func TestAReplicaThatIsGoneIsWaitedFor(t *testing.T) {
	src, path := filled(t, 3)
	if err := os.Rename(src.Dir, src.Dir+".gone"); err != nil {
		t.Fatal(err)
	}
	events, err := follow(t, src.Store, path, false, Waiting)
	if err != nil || events[0].State != Waiting || events[0].TXID != 3 {
		t.Errorf("%+v, %v", events, err)
	}
	if err := os.Rename(src.Dir+".gone", src.Dir); err != nil {
		t.Fatal(err)
	}
	f := opened(t, src, path)
	step(src)
	advance(t, f, src)
}

func TestADamagedObjectIsNotApplied(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	step(src)
	objects := src.Objects()
	name := src.File(objstore.Object{Level: 0, Min: 4, Max: 4})
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 1 + len(good)/40 {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		for _, b := range [][]byte{bad, good[:i]} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := f.poll(t.Context()); err == nil || fatal(err) && !errors.Is(err, ErrHistory) {
				t.Fatalf("byte %d: %v", i, err)
			}
			if f.pos.At.TXID != 3 || f.c.inTransaction() {
				t.Fatalf("byte %d: at %s", i, f.pos.At.TXID)
			}
		}
		same(t, f, src.State[3])
	}
	// A snapshot leads past it.
	step(src)
	src.Put(objstore.SnapshotLevel, 1, 5)
	advance(t, f, src)
	if len(objects) != 4 {
		t.Errorf("%v", objects)
	}
}

func TestAnotherHistoryIsNotApplied(t *testing.T) {
	src, path := filled(t, 3)
	// A database of the same beginnings, whose last object is its own.
	other := histtest.New(t, 4096)
	other.Nonce++
	other.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	other.Ship()
	for range 4 {
		step(other)
	}
	for _, sums := range []bool{true, false} {
		if !sums { // the store has nothing of the standby's own any more
			other.Put(1, 2, 3)
			other.Remove(0, 3)
		}
		before, _ := os.ReadFile(path)
		if _, err := follow(t, other.Store, path, false, Following); !errors.Is(err, ErrHistory) {
			t.Errorf("%v", err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Error("the standby was changed")
		}
	}
	mended(t, other, path)
	if _, err := follow(t, src.Store, path, false, Waiting); err != nil {
		t.Errorf("a replica that ends before the standby: %v", err)
	}
}

func TestWhatIsNoStandbyIsLeftAlone(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	if _, _, err := open(t.Context(), src.Store, path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second follower: %v", err)
	}
	f.close()
	f.standby = nil

	if err := os.WriteFile(path+"-wal", []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t, src.Store, path, false, Following); !errors.Is(err, ErrExists) {
		t.Errorf("another's WAL: %v", err)
	}
	mended(t, src, path)

	for name, spoil := range map[string]func() error{
		"no position":       func() error { return os.Remove(path + Suffix) },
		"an empty position": func() error { return os.Truncate(path+Suffix, 0) },
		"noise":             func() error { return os.WriteFile(path, bytes.Repeat([]byte("noise"), 9000), 0o600) },
		"an empty file":     func() error { return os.Truncate(path, 0) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		if _, err := follow(t, src.Store, path, false, Following); err == nil {
			t.Errorf("%s: it was followed into", name)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed", name)
		}
		mended(t, src, path)
	}
	// A replica of another page size takes the place of the file.
	big := histtest.New(t, 8192)
	big.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	big.Ship()
	mended(t, big, path)
}

func TestATornPositionIsNone(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	for range 3 {
		step(src)
		advance(t, f, src)
	}
	f.close()
	f.standby = nil
	good, err := os.ReadFile(path + Suffix)
	if err != nil || len(good) != 2*slotSize {
		t.Fatalf("%d bytes, %v", len(good), err)
	}
	// The newer slot is torn: the older one says where the last transaction went.
	p, _, err := readPosition(bytes.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	torn := bytes.Clone(good)
	clear(torn[int64(p.Seq%2)*slotSize+40:][:100])
	if err := os.WriteFile(path+Suffix, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	f = opened(t, src, path)
	if f.pos.At.TXID != src.TXID {
		t.Errorf("resumed at %s", f.pos.At.TXID)
	}
	step(src)
	advance(t, f, src)
}

func TestTheWALStaysShort(t *testing.T) {
	src, path := filled(t, 3)
	f := opened(t, src, path)
	db := reader(t, path)
	defer db.Close()
	high := int64(0)
	for range 14 {
		tx, err := db.Begin() // some reader or other
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		tx.Rollback()
		src.Exec("DELETE FROM t")
		src.Exec("INSERT INTO t(b) VALUES(randomblob(1200000))")
		src.Ship()
		if err := f.catchUpTo(t, src.TXID); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path + "-wal"); err == nil {
			high = max(high, info.Size())
		}
	}
	if high > walPassive+2<<20 {
		t.Errorf("the WAL has grown to %d bytes", high)
	}
	same(t, f, src.State[src.TXID])
}

func (f *follower) catchUpTo(t *testing.T, txid ltx.TXID) error {
	err := f.poll(t.Context())
	if err == nil && f.pos.At.TXID != txid {
		err = fmt.Errorf("at %s, want %s", f.pos.At.TXID, txid)
	}
	return err
}
