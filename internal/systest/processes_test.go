package systest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func (s client) pid() string { return strconv.Itoa(s.cmd.Process.Pid) }

// TestProcesses_AnotherShipsWhatTheKilledOneCommitted holds for one that is idle,
// too: nobody wakes it but the end of the other.
func TestProcesses_AnotherShipsWhatTheKilledOneCommitted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	first := p.client("interval=1h")
	first.exec("CREATE TABLE t(v)")
	first.shipNow()
	second := p.client("interval=50ms")
	second.get("SELECT count(*) FROM t")
	if got := second.status("shipper_pid"); got != first.pid() {
		t.Fatalf("process %s ships, not the first one, %s", got, first.pid())
	}
	for i := range 10 {
		first.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
	}
	if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "0" {
		t.Fatalf("%s rows were shipped before the kill, which the test is about", got)
	}
	first.kill()
	eventually(t, "the idle process ships the dead one's rows", func() bool {
		return p.query(p.restored(), "SELECT count(*) FROM t") == "10"
	})
	if got := second.status("shipper_pid"); got != second.pid() {
		t.Errorf("process %s ships, not the survivor", got)
	}
	second.exec("INSERT INTO t VALUES('after')")
	second.confirm()
	second.end()
	p.comesBack()
}

// shipNow ships at once, where the window is long.
func (s client) shipNow() { s.t.Helper(); s.exec("PRAGMA walferry_sync") }

func TestProcesses_TwoThatWriteShareOneShipper(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	a, b := p.client(), p.client()
	a.exec("CREATE TABLE t(v)")
	for i := range 50 {
		a.exec(fmt.Sprintf("INSERT INTO t VALUES('a%d')", i))
		b.exec(fmt.Sprintf("INSERT INTO t VALUES('b%d')", i))
		if i%10 == 0 {
			a.confirm()
			b.confirm()
		}
	}
	if x, y := a.status("shipper_pid"), b.status("shipper_pid"); x != y || x != a.pid() && x != b.pid() {
		t.Errorf("shippers %s and %s of %s and %s", x, y, a.pid(), b.pid())
	}
	a.end()
	b.exec("INSERT INTO t VALUES('last')")
	b.end()
	p.comesBack()
}

// TestProcesses_ShippersDieOneAfterTheOther kills whoever ships, twelve times.
func TestProcesses_ShippersDieOneAfterTheOther(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	alive := p.client()
	alive.exec("CREATE TABLE t(v)")
	for i := range 12 {
		next := p.client()
		alive.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		alive.kill()
		next.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", 100+i))
		next.confirm()
		if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != strconv.Itoa(2*i+2) {
			t.Fatalf("round %d: %s rows after both were confirmed", i, got)
		}
		alive = next
	}
	alive.end()
	p.comesBack()
}

// TestInvariant14_AForeignProgramsCommitsShip lets a program without walferry write
// and checkpoint beside one that has it.
func TestInvariant14_AForeignProgramsCommitsShip(t *testing.T) {
	t.Parallel()
	for _, checkpoint := range []string{"", "PRAGMA wal_checkpoint(PASSIVE);", "PRAGMA wal_checkpoint(RESTART);", "PRAGMA wal_checkpoint(TRUNCATE);"} {
		p := newPlace(t)
		s := p.client()
		s.exec("CREATE TABLE t(v)")
		s.exec("INSERT INTO t VALUES('ours')")
		s.confirm()
		p.plain(".open "+p.db, "INSERT INTO t VALUES('foreign'), (zeroblob(100000));", checkpoint, "INSERT INTO t VALUES('more');").ok(t)
		s.exec("INSERT INTO t VALUES('ours again')")
		s.confirm()
		if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "5" {
			t.Errorf("with %q %s of 5 rows came back", checkpoint, got)
		}
		mustEqual(t, "restore beside the writer, after "+checkpoint, p.restored(), p.image())
		s.end()
		p.comesBack()
	}
}

// TestProcesses_WhatWasWrittenWhileAwayIsFound also counts what that costs.
func TestProcesses_WhatWasWrittenWhileAwayIsFound(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"WAL", "DELETE"} {
		p := newPlace(t)
		s := p.client()
		s.exec("CREATE TABLE t(v)")
		s.exec("INSERT INTO t VALUES(zeroblob(1000000))")
		s.end()
		before := p.newest()
		r := p.plain(".open "+p.db, "PRAGMA journal_mode="+mode+";", "INSERT INTO t VALUES('away');").ok(t)
		if !strings.EqualFold(strings.TrimSpace(r.stdout), mode) {
			t.Fatalf("journal mode: %s", r.stdout)
		}
		s = p.client()
		s.get("SELECT count(*) FROM t")
		eventually(t, "the store has what was written while walferry was away", func() bool { return p.newest() > before })
		s.end()
		p.comesBack()
		if pages, _ := p.after(before); pages > 8 {
			t.Errorf("mode %s: %d pages went to the store for one row", mode, pages)
		}
	}
}
