package systest

import (
	"os"
	"testing"
	"unsafe"

	"github.com/walferry/walferry/internal/ledger"
)

// dies runs a Python program whose last line ends it as kill -9 does.
func (p *place) dies(program string) {
	p.t.Helper()
	r := run(p.t, p.dir, p.env, "", python(p.t), "-c", "from wf import *\n"+program+"\nos.kill(os.getpid(), 9)\n")
	if r.code != -1 {
		p.t.Fatalf("exit status %d, and was to die\n%s", r.code, r.stderr)
	}
}

// losesPower leaves the files as a power loss may that came after a process was killed:
// the ledger is of another boot and has no mark that was not synced, and the WAL
// lacks its last bytes.
func (p *place) losesPower(frames int) {
	p.t.Helper()
	f, err := os.OpenFile(p.db+ledger.Suffix, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	const bits = 2 * ledger.SegmentPages / 8
	var h ledger.Header
	if _, err := f.WriteAt([]byte{'b', 'o', 'o', 't'}, int64(unsafe.Offsetof(h.Boot))); err != nil {
		p.t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, bits), ledger.HeaderSize); err != nil {
		p.t.Fatal(err)
	}
	fi, err := os.Stat(p.db + "-wal")
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Truncate(p.db+"-wal", fi.Size()-int64(frames)*(24+4096)); err != nil {
		p.t.Fatal(err)
	}
}

// tableOfPages makes a table each of whose rows fills a page.
const tableOfPages = `
c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
c.execute("BEGIN")
for i in range(40):
    c.execute("INSERT INTO t VALUES(?, ?)", (i, "x" * 3000))
c.execute("COMMIT")
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
sync(c)
`

// TestPowerLoss_WhatOthersWroteInsteadShips loses the newest commit, which was marked. A
// program without walferry is the first to come, and commits so often that the
// WAL goes on beyond where the marks ended.
func TestPowerLoss_WhatOthersWroteInsteadShips(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.dies(`
c = connect()
` + tableOfPages + `
c.execute("UPDATE t SET v = ? WHERE id = 1", ("y" * 3000,))
c.execute("UPDATE t SET v = ? WHERE id = 2", ("y" * 3000,))
sync(c)`)
	p.losesPower(1)
	p.python(`
f = plain()
assert one(f, "SELECT count(*) FROM t WHERE v LIKE 'y%'") == 1
c = connect()
sync(c)
for i in range(10, 20):
    f.execute("UPDATE t SET v = ? WHERE id = ?", ("z" * 3000, i))
c.execute("UPDATE t SET v = ? WHERE id = 30", ("z" * 3000,))
sync(c)
c.close()
f.close()
`)
	p.comesBack()
}

// TestPowerLoss_AForkedChildVouchesForNothing loses the marks of a commit that the WAL
// still has. A child that was forked before anybody opened the database is the first to
// come, and the last to close.
func TestPowerLoss_AForkedChildVouchesForNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.dies(`
c = connect(interval="1h")
` + tableOfPages + `
c.execute("UPDATE t SET v = ? WHERE id = 1", ("y" * 3000,))`)
	p.losesPower(0)
	p.python(`
pid = os.fork()
if pid == 0:
    c = connect()
    assert one(c, "SELECT count(*) FROM t WHERE v LIKE 'y%'") == 1
    c.close()
    os._exit(0 if not os.path.exists(DB + "-wal") else 1)
assert os.waitpid(pid, 0)[1] == 0
c = connect()
sync(c)
c.close()
`)
	p.comesBack()
}
