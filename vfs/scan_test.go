package vfs_test

import (
	"testing"

	"github.com/walferry/walferry/internal/ledger"
)

// all counts the times that what changed was not known and every page had to be
// compared.
func (p *place) all() uint64 {
	p.t.Helper()
	l, err := ledger.OpenReadOnly(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer l.Close()
	return l.Header().All
}

// TestInvariant14_WhatIsKnownCostsNoScan goes through all that a database does in
// its life with walferry, and expects no look at every page after the first.
func TestInvariant14_WhatIsKnownCostsNoScan(t *testing.T) {
	p := newPlace(t, "&interval=10ms")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.exec("INSERT INTO t VALUES(randomblob(100000))")
	c.sync()
	first := p.all()
	steps := []struct {
		name string
		do   func()
	}{
		{"commits past an automatic checkpoint", func() {
			for range 40 {
				c.exec("INSERT INTO t VALUES(randomblob(150000))")
			}
		}},
		{"TRUNCATE", func() { c.exec("PRAGMA wal_checkpoint(TRUNCATE)") }},
		{"a commit after it", func() { c.exec("INSERT INTO t VALUES(1)") }},
		{"RESTART", func() { c.exec("PRAGMA wal_checkpoint(RESTART)"); c.exec("INSERT INTO t VALUES(1)") }},
		{"VACUUM", func() { c.exec("DELETE FROM t WHERE rowid%2"); c.exec("VACUUM") }},
		{"a foreign commit", func() { f := p.plain(); f.exec("INSERT INTO t VALUES(2)"); f.close() }},
		{"a database that outgrows a segment of the ledger", func() {
			for range 10 {
				c.exec("INSERT INTO t VALUES(zeroblob(8000000))")
				c.sync()
			}
		}},
		{"a close and an open", func() { c.close(); c = p.open() }},
		{"a commit after the open", func() { c.exec("INSERT INTO t VALUES(3)") }},
		{"a close without a commit", func() { c.close(); c = p.open(); c.text("SELECT count(*) FROM t"); c.close(); c = p.open() }},
	}
	for _, step := range steps {
		step.do()
		c.sync()
		if n := p.all(); n != first {
			t.Errorf("%s: every page is compared (%d times)", step.name, n-first)
			first = n
		}
		p.mustEqual(c.serialize(), step.name)
	}

	c.close()
	f := p.plain()
	f.exec("INSERT INTO t VALUES('while walferry was away')")
	f.close()
	before := len(p.objects())
	c = p.open()
	c.sync()
	if n := p.all(); n != first+1 {
		t.Errorf("a foreign commit while closed made %d looks at every page, and not one", n-first)
	}
	p.mustEqual(c.serialize(), "a foreign commit while closed")
	for _, name := range p.objects()[before:] {
		if _, pages := decode(t, name); len(pages) > 5 {
			t.Errorf("a foreign commit of one row shipped %d pages", len(pages))
		}
	}
}
