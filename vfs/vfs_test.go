package vfs_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/vfs"
	"golang.org/x/sys/unix"
)

func TestMalformedOptionsAreNamedWithTheirValue(t *testing.T) {
	for _, c := range []struct{ params, wants string }{
		{"interval=5ms", `option interval="5ms": allowed is a duration from 10ms to 1h`},
		{"interval=soon", `option interval="soon"`},
		{"close_timeout=-1s", `option close_timeout="-1s": allowed is a duration such as 10s, or 0`},
		{"wal=off", `option wal="off": allowed is auto, keep`},
		{"takeover=maybe", `option takeover="maybe": allowed is 0 or 1`},
		{"sync_before_ship=always", `option sync_before_ship="always": allowed is 0 or 1`},
		{"require=2", `option require="2": allowed is 0 or 1`},
		{"path_style=x", `option path_style="x": allowed is 0 or 1`},
		{"log=loud", `option log="loud": allowed is off, error, info, debug`},
		{"replica=", "no replica given: add replica=file:///dir"},
		{"replica=ftp://x/y", "ftp"},
		{"replica=file://relative", "relative"},
	} {
		p := newPlace(t, "")
		stderr := captureStderr(t, func() {
			uri := fmt.Sprintf("file:%s?vfs=walferry&replica=file://%s&%s", p.path, p.replica, c.params)
			if strings.HasPrefix(c.params, "replica") {
				uri = fmt.Sprintf("file:%s?vfs=walferry&%s", p.path, c.params)
			}
			if err := tryOpen(uri); err == nil || !strings.Contains(err.Error(), "unable to open database file") {
				t.Errorf("%s: opened, or failed oddly: %v", c.params, err)
			}
		})
		if !strings.Contains(stderr, c.wants) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: stderr has\n%swant one line with\n%s", c.params, stderr, c.wants)
		}
	}
}

func TestAnOpenThatFailsMakesNoFile(t *testing.T) {
	p := newPlace(t, "&interval=never")
	captureStderr(t, func() { _ = tryOpen(p.uri()) })
	for _, name := range []string{p.path, p.path + "-ledger"} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("an open that failed left %s", name)
		}
	}
}

func TestALastCloseLeavesNothingAndHasShippedAll(t *testing.T) {
	p := newPlace(t, "")
	for i := range 30 {
		c := p.open()
		c.exec("CREATE TABLE IF NOT EXISTS t(a)")
		c.exec("INSERT INTO t VALUES(?)", i)
		image := c.serialize()
		c.close()
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			if _, err := os.Stat(p.path + suffix); err == nil {
				t.Fatalf("round %d: %s is left", i, suffix)
			}
		}
		p.mustEqual(image, fmt.Sprint("round ", i))
	}
}

func TestAnotherReplicaForAnOpenDatabaseIsAnError(t *testing.T) {
	p := newPlace(t, "")
	p.open().exec("CREATE TABLE t(a)")
	stderr := captureStderr(t, func() {
		if err := tryOpen("file:" + p.path + "?vfs=walferry&replica=file:///elsewhere"); err == nil {
			t.Error("opened")
		}
	})
	if !strings.Contains(stderr, "is open in this process with replica=file://"+p.replica) {
		t.Errorf("stderr: %s", stderr)
	}
}

func TestExclusiveLockingModeIsRefused(t *testing.T) {
	c := newPlace(t, "").open()
	err := c.try("PRAGMA locking_mode=EXCLUSIVE")
	if err == nil || !strings.Contains(err.Error(), "locking_mode=EXCLUSIVE would hide the WAL") {
		t.Errorf("error: %v", err)
	}
	if mode := c.text("PRAGMA locking_mode"); mode != "normal" {
		t.Errorf("locking_mode is %s", mode)
	}
}

func TestAnExplicitJournalModeIsRespectedUntilTheLastClose(t *testing.T) {
	p := newPlace(t, "&interval=10ms")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.sync()
	if mode := c.text("PRAGMA journal_mode=DELETE"); mode != "delete" {
		t.Fatalf("journal_mode is %s", mode)
	}
	c.exec("INSERT INTO t VALUES(1)")
	if _, err := c.query("PRAGMA walferry_sync"); err == nil || !strings.Contains(err.Error(), "PRAGMA journal_mode") {
		t.Errorf("sync: %v", err)
	}
	if s := p.status(c); s.State != "not_wal" || !strings.Contains(s.Cause, "has chosen another") {
		t.Errorf("status: %+v", s)
	}
	if mode := c.text("PRAGMA journal_mode"); mode != "delete" {
		t.Errorf("journal_mode is %s", mode)
	}
	c.close()
	c = p.open()
	if mode := c.text("PRAGMA journal_mode"); mode != "wal" {
		t.Errorf("after the last close journal_mode is %s", mode)
	}
	c.sync()
	p.mustEqual(c.serialize(), "after the switch back")
}

func TestKeepLeavesTheJournalModeAlone(t *testing.T) {
	p := newPlace(t, "&wal=keep&interval=10ms")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	if mode := c.text("PRAGMA journal_mode"); mode != "delete" {
		t.Errorf("journal_mode is %s", mode)
	}
	if _, err := c.query("PRAGMA walferry_sync"); err == nil || !strings.Contains(err.Error(), "wal=keep") {
		t.Errorf("sync: %v", err)
	}
	c.text("PRAGMA journal_mode=WAL")
	c.exec("INSERT INTO t VALUES(1)")
	c.sync()
	p.mustEqual(c.serialize(), "after PRAGMA journal_mode=WAL")
}

func TestAttachedDatabasesShipToTheirOwnReplicas(t *testing.T) {
	a, b := newPlace(t, "&interval=10ms"), newPlace(t, "&interval=10ms")
	c := a.open()
	c.exec("ATTACH ? AS b", b.uri())
	c.exec("CREATE TABLE main.t(x)")
	c.exec("CREATE TABLE b.t(x)")
	c.exec("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(2); COMMIT")
	for _, schema := range []string{"main", "b"} {
		if got := c.text("SELECT walferry_wait(walferry_token(?), 10000, ?)", schema, schema); got != "1" {
			t.Fatalf("%s: walferry_wait is %s", schema, got)
		}
	}
	c.text("PRAGMA b.walferry_sync")
	c.sync()
	a.mustEqual(c.serialize(), "main")
	d := b.plain()
	b.mustEqual(d.serialize(), "attached")
}

func TestInvariant5_WaitRidesTheNormalBatch(t *testing.T) {
	p := newPlace(t, "&interval=200ms")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.sync()
	before := len(p.objects())
	for range 5 {
		c.exec("INSERT INTO t VALUES(1)")
	}
	token := c.text("SELECT walferry_token()")
	if got := c.text("SELECT walferry_wait(?, 0)", token); got != "0" {
		t.Errorf("durable at once: %s", got)
	}
	if got := c.text("SELECT walferry_wait(?, 10000)", token); got != "1" {
		t.Errorf("walferry_wait is %s", got)
	}
	if n := len(p.objects()) - before; n != 1 {
		t.Errorf("%d objects for one window", n)
	}
	p.mustEqual(c.serialize(), "after the wait")
	for _, bad := range []string{"", "x", "123456789abc", "123456789abc-", "123456789abc-1x", "123456789abc-999999999999999999999"} {
		if _, err := c.query("SELECT walferry_wait(?, 10)", bad); err == nil || !strings.Contains(err.Error(), "not a token") {
			t.Errorf("token %q: %v", bad, err)
		}
	}
	if _, err := c.query("SELECT walferry_wait('000000000001-1', 1)"); err != nil {
		t.Errorf("a token of another epoch, after a full comparison: %v", err)
	}
}

func TestAHandleKeepsTheDatabaseShippingWithoutConnections(t *testing.T) {
	p := newPlace(t, "")
	h, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica), vfs.WithInterval(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.close()
	f := p.plain() // nobody marks what it writes; Sync finds it all the same
	f.exec("INSERT INTO t VALUES(1)")
	if _, err := h.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.mustEqual(f.serialize(), "after Sync")
	if s := h.Status(); s.State != "shipping" || s.ShipperPID != uint64(os.Getpid()) {
		t.Errorf("status: %+v", s)
	}
	f.close()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if s := h.Status(); s.State != "off" {
		t.Errorf("status after Close: %+v", s)
	}
	if _, err := h.Sync(context.Background()); err == nil {
		t.Error("Sync after Close")
	}
}

func TestDescriptorsAndThreadsDoNotGrowWithOpens(t *testing.T) {
	p := newPlace(t, "&interval=10ms")
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	round := func(i int) {
		q := &place{t: t, path: fmt.Sprintf("%s%d", p.path, i), replica: fmt.Sprintf("%s%d", p.replica, i)}
		c := q.open()
		c.exec("CREATE TABLE t(a)")
		c.close()
	}
	round(0)
	before := count()
	for i := range 40 {
		round(i + 1)
	}
	if after := count(); after > before+3 {
		t.Errorf("%d descriptors before, %d after 40 databases", before, after)
	}
}

// tryOpen opens a database and reads from it.
func tryOpen(uri string) error {
	db, err := sql.Open("sqlite3", uri)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Ping()
}

// captureStderr returns what is written to descriptor 2, by C too.
func captureStderr(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	saved, err := unix.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(saved)
	if err := unix.Dup3(int(file.Fd()), 2, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Dup3(saved, 2, 0)
	f()
	b, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A commit that meets a reader of ours cannot switch the database; then the reader
// does, or nothing would ship until the next commit.
func TestABatchSwitchesADatabaseThatItsReaderKeptFromIt(t *testing.T) {
	for range 40 {
		p := newPlace(t, "&interval=10ms")
		c := p.open()
		c.exec("CREATE TABLE t(a)")
		c.sync()                         // which fails where the database is not in WAL mode
		c.text("SELECT count(*) FROM t") // a connection learns of the switch with its next read
		if mode := c.text("PRAGMA journal_mode"); mode != "wal" {
			t.Fatalf("journal_mode is %s", mode)
		}
		c.close()
	}
}

// A handle may come before its database: whoever may open that must be able to mark.
func TestALedgerThatIsFirstHasItsDatabasesMode(t *testing.T) {
	p := newPlace(t, "&interval=10ms")
	h, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.sync()
	modes := map[string]os.FileMode{}
	for _, suffix := range []string{"", "-ledger"} {
		fi, err := os.Stat(p.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		modes[suffix] = fi.Mode()
	}
	if modes[""] != modes["-ledger"] {
		t.Errorf("the database has mode %v, its ledger %v", modes[""], modes["-ledger"])
	}
}

// os.Exit runs no handler of walferry's: what was not shipped is, at the next open.
func TestWhatOSExitLeavesShipsAtTheNextOpen(t *testing.T) {
	if uri := os.Getenv("WALFERRY_TEST_EXIT"); uri != "" {
		c := (&place{t: &childTB{}}).openURI(uri)
		c.exec("CREATE TABLE t(a)")
		c.sync()
		c.exec("INSERT INTO t VALUES(1)")
		os.Exit(0)
	}
	p := newPlace(t, "&interval=1h")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "WALFERRY_TEST_EXIT="+p.uri())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	before := len(p.objects())
	c := p.open()
	c.sync()
	if n := len(p.objects()) - before; n != 1 {
		t.Errorf("%d objects were put", n)
	}
	p.mustEqual(c.serialize(), "after the next open")
}

// SQLite deletes the WAL beside an empty file. When two connections do so at once one of
// them gets an I/O error, so ours must not.
func TestAnEmptyDatabaseIsLeftToTheApplication(t *testing.T) {
	p := newPlace(t, "&interval=10ms")
	for _, name := range []string{p.path, p.path + "-wal"} {
		if err := os.WriteFile(name, make([]byte, len(name)-len(p.path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Sync(t.Context()); err != nil && !strings.Contains(err.Error(), "empty") {
		t.Errorf("Sync: %v", err)
	}
	if _, err := os.Stat(p.path + "-wal"); err != nil {
		t.Errorf("the WAL was deleted by a connection of ours: %v", err)
	}
}

func TestAHotJournalIsLeftToTheApplicationWithWALKeep(t *testing.T) {
	p := newPlace(t, "&wal=keep")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.close()
	if err := os.WriteFile(p.path+"-journal", []byte("hot: its first byte is not 0"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica), vfs.WithKeepJournalMode())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "has a rollback journal") {
		t.Errorf("Sync: %v", err)
	}
	if _, err := os.Stat(p.path + "-journal"); err != nil {
		t.Errorf("a connection of ours has rolled it back: %v", err)
	}
	c = p.open()
	c.exec("INSERT INTO t VALUES(1)")
	c.exec("PRAGMA journal_mode=WAL")
	c.sync()
}

// A close waits for what may still arrive. Of a database that is cut short nothing can,
// however often it is read.
func TestNoCloseWaitsForAMalformedDatabase(t *testing.T) {
	for _, c := range []struct {
		mode, state string
		option      vfs.Option
	}{
		{"DELETE", "not_wal", vfs.WithKeepJournalMode()},
		{"DELETE", "not_wal", vfs.WithInterval(time.Second)},
		{"WAL", "failing", vfs.WithInterval(time.Second)},
	} {
		p := newPlace(t, "")
		plain := p.plain()
		plain.text("PRAGMA journal_mode=" + c.mode)
		plain.exec("CREATE TABLE t(a)")
		plain.exec("INSERT INTO t VALUES(zeroblob(100000))")
		plain.close()
		if err := os.Truncate(p.path, 8192); err != nil {
			t.Fatal(err)
		}
		db, err := vfs.Open(p.path, c.option, vfs.WithReplica("file://"+p.replica), vfs.WithCloseTimeout(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("%s: sync: %v", c.mode, err)
		}
		if s := db.Status(); s.State != c.state {
			t.Errorf("%s: status: %+v", c.mode, s)
		}
		closed := make(chan struct{})
		go func() { db.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(time.Minute): // of the hour
			t.Fatalf("%s: the close waits", c.mode)
		}
	}
}
