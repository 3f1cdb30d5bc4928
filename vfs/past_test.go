package vfs_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// A database that was restored to a point of the past must not write over what came after it.
func TestADatabaseOfThePastShipsNothingWithoutTakeover(t *testing.T) {
	p := newPlace(t, "")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	var txids []ltx.TXID
	for i := range 3 {
		c.exec("INSERT INTO t VALUES(?)", i)
		c.sync()
		txid, err := ltx.ParseTXID(c.text("SELECT walferry_txid()"))
		if err != nil {
			t.Fatal(err)
		}
		txids = append(txids, txid)
	}
	image := c.serialize()
	c.close()

	store, err := objstore.New("file://"+p.replica, objstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := *p
	old.path = filepath.Join(t.TempDir(), "old.db")
	r, err := restore.Restore(context.Background(), store, old.path, restore.Options{Target: history.Target{TXID: txids[0]}})
	if err != nil || !r.Past || !r.Compared {
		t.Fatalf("%+v, %v", r, err)
	}
	before := p.objects()
	for range 2 { // the second finds the ledger of the first
		c = old.open()
		if n := c.text("SELECT count(*) FROM t"); n != "1" {
			t.Fatalf("%s rows", n)
		}
		c.exec("CREATE TABLE IF NOT EXISTS mine(a)")
		c.exec("INSERT INTO mine VALUES(1)")
		if s, err := c.query("PRAGMA walferry_sync"); err == nil {
			t.Fatalf("shipped %s", s)
		} else if !strings.Contains(err.Error(), "takeover=1") {
			t.Errorf("error %q does not say how to go on", err)
		}
		if s := old.status(c); s.State != "unclaimed" {
			t.Errorf("the state is %s: %s", s.State, s.Cause)
		}
		c.close()
		if after := p.objects(); !slices.Equal(after, before) {
			t.Fatalf("the replica holds %v, had %v", after, before)
		}
	}
	p.mustEqual(image, "after the database of the past was open")

	// What somebody decides goes on after the newest, and takes nothing away.
	old.params = "&takeover=1"
	c = old.open()
	c.exec("INSERT INTO mine VALUES(2)")
	c.sync()
	image = c.serialize()
	c.close()
	p.mustEqual(image, "after takeover=1")
	back := filepath.Join(t.TempDir(), "back.db")
	if _, err := restore.Restore(context.Background(), store, back, restore.Options{Target: history.Target{TXID: txids[2]}}); err != nil {
		t.Fatal(err)
	}
	b := *p
	b.path = back
	if got := b.plain().text("SELECT count(*) FROM t"); got != "3" {
		t.Errorf("the state before the takeover has %s rows", got)
	}
}
