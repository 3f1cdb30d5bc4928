package vfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/walferry/walferry/vfs"
)

// lost is a place whose database has shipped and is gone.
func lost(t *testing.T, params string) (p *place, image []byte) {
	t.Helper()
	p = newPlace(t, "")
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	c.exec("INSERT INTO t VALUES(randomblob(20000))")
	image = c.serialize()
	c.close()
	for _, suffix := range []string{"", "-ledger"} {
		if err := os.Remove(p.path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	p.params = params
	return p, image
}

func TestRestoreBringsALostDatabaseBack(t *testing.T) {
	p, image := lost(t, "&restore=auto")
	c := p.open()
	if got := c.serialize(); !bytes.Equal(got, image) {
		t.Errorf("%d bytes that differ from the %d that were shipped", len(got), len(image))
	}
	c.exec("INSERT INTO t VALUES('goes on')")
	image = c.serialize()
	c.close()
	p.mustEqual(image, "after going on")
}

func TestRestoreBeforeAHandle(t *testing.T) {
	p, image := lost(t, "")
	h, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica), vfs.WithRestore())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c := p.open()
	if got := c.serialize(); !bytes.Equal(got, image) {
		t.Errorf("%d bytes that differ from the %d that were shipped", len(got), len(image))
	}
	if s := h.Status(); s.State == "unclaimed" {
		t.Errorf("status: %+v", s)
	}
}

// A handle of a new database has its ledger before there is a file. The connection that
// makes that has nothing to restore.
func TestRestoreWithAHandleOnANewDatabase(t *testing.T) {
	p := newPlace(t, "&restore=auto")
	h, err := vfs.Open(p.path, vfs.WithReplica("file://"+p.replica), vfs.WithRestore())
	if err != nil {
		t.Fatal(err)
	}
	c := p.open()
	c.exec("CREATE TABLE t(a)")
	image := c.serialize()
	c.close()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	p.mustEqual(image, "new database")
}

func TestRestoreOnceForManyConnections(t *testing.T) {
	p, image := lost(t, "&restore=auto")
	var wg sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		wg.Go(func() { errs[i] = tryOpen(p.uri()) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := p.open().serialize(); !bytes.Equal(got, image) {
		t.Errorf("%d bytes that differ from the %d that were shipped", len(got), len(image))
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(p.path), ".*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRestoreIsOffUnlessAskedFor(t *testing.T) {
	for _, params := range []string{"", "&restore=off"} {
		p, _ := lost(t, params)
		if got := p.open().serialize(); len(got) > 4096 {
			t.Errorf("%q: %d bytes of an empty database", params, len(got))
		}
	}
	p := newPlace(t, "&restore=yes")
	stderr := captureStderr(t, func() { _ = tryOpen(p.uri()) })
	if want := `option restore="yes": allowed is auto, off`; !strings.Contains(stderr, want) {
		t.Errorf("stderr %q, want %q", stderr, want)
	}
}

// A restore of another process that is under way keeps its files.
func TestRestoreLeavesOthersFilesAlone(t *testing.T) {
	p, _ := lost(t, "&restore=auto")
	foreign := filepath.Join(filepath.Dir(p.path), ".app.db.walferry-restore-ABCDEFGHIJKL")
	other := filepath.Join(filepath.Dir(p.path), ".app.dbx.walferry-restore-ABCDEFGHIJKL")
	for _, name := range []string{foreign, other} { // without a ledger, so nobody can tell whose they are
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.open().close()
	for _, name := range []string{foreign, other} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
}
