package systest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/version"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "record what this version writes in testdata/upgrade")

// TestUpgrade_WhatEveryVersionWroteIsGoneOnWith opens databases with ledgers and replicas
// that released versions have written: one that was closed, and one whose process was
// killed with 50 rows that it had not shipped. Each has 50 rows at a mark and 100 in all.
// With -update the version at hand is recorded.
func TestUpgrade_WhatEveryVersionWroteIsGoneOnWith(t *testing.T) {
	if *update {
		record(t)
	}
	archives, err := filepath.Glob(script("upgrade/*.tar.gz"))
	if err != nil || len(archives) == 0 {
		t.Fatal("there is nothing recorded", err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		killed := strings.HasSuffix(name, "-killed")
		rows := "100"
		if killed {
			rows = "150"
		}
		for what, check := range map[string]func(p *place, rows string, killed bool){
			"the replica alone": (*place).replicaAlone,
			"a copy":            (*place).copyOfAll,
			"in its place":      (*place).inItsPlace,
			"after a restart":   (*place).afterRestart,
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				p := newPlace(t)
				unpack(t, archive, p.dir)
				check(p, rows, killed)
			})
		}
	}
}

// replicaAlone lists, proves and restores the replica, and goes on from a restore.
func (p *place) replicaAlone(string, bool) {
	t := p.t
	if r := p.walferry("ls", p.replica).ok(t); !strings.Contains(r.stdout, "half") {
		t.Errorf("ls does not know the mark: %s", r.stdout)
	}
	p.walferry("verify", p.replica).ok(t)
	for flags, want := range map[string]string{"-mark=half": "50", "-txid=3": "25", "": "100"} {
		out := filepath.Join(tempDir(t), "out.db")
		args := []string{"restore", "-o", out, p.replica}
		if flags != "" {
			args = []string{"restore", flags, "-o", out, p.replica}
		}
		p.walferry(args...).ok(t)
		if got := p.query(out, "SELECT count(*) FROM t"); got != want {
			t.Errorf("restore %s has %s rows, want %s", flags, got, want)
		}
	}
	for _, f := range []string{"", "-wal", "-shm", "-ledger"} {
		if err := os.Remove(p.db + f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	p.walferry("restore", "-o", p.db, p.replica).ok(t)
	p.goOn("")
	p.comesBack()
	p.walferry("compact", p.replica).ok(t) // with today's rules
	p.walferry("verify", p.replica).ok(t)
	mustEqual(t, "restore after compact", p.restored(), p.image())
}

// copyOfAll is another machine, where no ledger proves anything: nothing ships without
// a takeover.
func (p *place) copyOfAll(rows string, _ bool) {
	before := len(p.list())
	s := p.client("snapshot_interval=0")
	if got := s.get("SELECT count(*) FROM t"); got != rows {
		p.t.Errorf("the database has %s rows, want %s", got, rows)
	}
	eventually(p.t, "the database is unclaimed", func() bool { return s.status("state") == "unclaimed" })
	s.end()
	if n := len(p.list()); n != before {
		p.t.Errorf("%d objects were put without a proof", n-before)
	}
	p.goOn("takeover=1")
	p.comesBack()
	p.walferry("verify", p.replica).ok(p.t)
}

// inItsPlace is the same machine, in the same run of it; afterRestart in another. What
// the ledger knows of the store is believed. Where the last close was clean not even a
// comparison is made; after a kill one may be, since SQLite recovers the WAL.
func (p *place) inItsPlace(_ string, killed bool)   { p.pages(ledger.BootID(), killed) }
func (p *place) afterRestart(_ string, killed bool) { p.pages([16]byte{1}, killed) }

// pages goes on, and counts what is compared and sent.
func (p *place) pages(boot [16]byte, killed bool) {
	p.adoptIdentity(boot)
	all := p.header().All
	before, most := p.newest(), 0
	if killed {
		most = 12
	}
	s := p.client("snapshot_interval=0")
	s.get("SELECT count(*) FROM t")
	s.exec("PRAGMA walferry_sync")
	if sent, _ := p.after(before); sent > most {
		p.t.Errorf("%d pages were sent again", sent)
	}
	s.end()
	if now := p.header(); now.All != all && !killed {
		p.t.Error("every page was compared")
	}
	before = p.newest()
	p.goOn("")
	if sent, _ := p.after(before); sent > 3 {
		p.t.Errorf("%d pages were sent for one row", sent)
	}
	p.comesBack()
}

// goOn writes a row, which must ship.
func (p *place) goOn(param string) {
	p.t.Helper()
	params := []string{"snapshot_interval=0"}
	if param != "" {
		params = append(params, param)
	}
	s := p.client(params...)
	s.exec("INSERT INTO t(v) VALUES('new')")
	s.exec("PRAGMA walferry_sync")
	s.end()
}

func (p *place) header() *ledger.Header {
	p.t.Helper()
	b, err := os.ReadFile(p.db + "-ledger")
	if err != nil {
		p.t.Fatal(err)
	}
	return (*ledger.Header)(unsafe.Pointer(&b[0]))
}

// adoptIdentity writes into the ledger what it would know if its files had always been
// these. The stamp of a clean close goes along.
func (p *place) adoptIdentity(boot [16]byte) {
	p.t.Helper()
	f, err := os.OpenFile(p.db+"-ledger", os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		p.t.Fatal(err)
	}
	h := p.header()
	h.Boot = boot
	h.OwnIno, h.OwnBtimeNs = st.Ino, uint64(st.Btime.Sec)*1e9+uint64(st.Btime.Nsec)
	h.DBDev, h.DBIno = ledger.Inode(p.db)
	if h.Stamp.Valid != 0 {
		h.Stamp = ledger.StampOf(p.db)
	}
	if _, err := f.WriteAt(unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Sizeof(*h)), 0); err != nil {
		p.t.Fatal(err)
	}
}

// record makes the two archives of this version.
func record(t *testing.T) {
	p := newPlace(t)
	s := p.client("interval=1h")
	s.exec("PRAGMA page_size=512")
	s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	rows := func(n int) {
		s.exec("BEGIN")
		for range n {
			s.exec("INSERT INTO t(v) VALUES(hex(randomblob(20)))")
		}
		s.exec("COMMIT")
	}
	s.exec("PRAGMA walferry_sync") // TXID 1 and 2
	rows(25)
	s.exec("PRAGMA walferry_sync")
	rows(25)
	s.get("SELECT walferry_mark('half')")
	s.end()
	p.walferry("compact", "-retention", "forever", p.replica).ok(t)
	s = p.client("interval=1h")
	rows(50)
	s.end()
	p.pack("closed")
	s = p.client("interval=1h")
	rows(50)
	s.kill()
	p.pack("killed")
}

// pack writes an archive of the place, without the traces of this machine.
func (p *place) pack(what string) {
	t := p.t
	h := p.header()
	h.SetReplica("file:///backup/app")
	b, err := os.ReadFile(p.db + "-ledger")
	if err != nil {
		t.Fatal(err)
	}
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(h)), unsafe.Sizeof(*h)))
	if err := os.MkdirAll(script("upgrade"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(script("upgrade/" + version.Version + "-" + what + ".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, _ := gzip.NewWriterLevel(out, gzip.BestCompression)
	w := tar.NewWriter(z)
	err = filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, "-shm") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if path == p.db+"-ledger" {
			content = b
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(p.dir, path)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: fi.ModTime(), Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err = errors.Join(err, w.Close(), z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o700)
		}
		if err == nil {
			err = os.WriteFile(name, content, 0o600)
		}
		if err == nil {
			err = os.Chtimes(name, h.ModTime, h.ModTime)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
