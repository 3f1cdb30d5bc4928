package systest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// worn is a disk that turns read-only under the programs that write to it.
type worn struct {
	dir  string
	turn func(p *place, s client)
	mend func() // when the program has ended
}

// wornDisk is an ext4 on a loop device, which does that when the kernel meets an error in it.
func wornDisk(t *testing.T) worn {
	t.Helper()
	image, dir := filepath.Join(tempDir(t), "disk"), tempDir(t)
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, 16<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	mount := []string{"-o", "loop,errors=remount-ro", image, dir}
	if exec.Command("mkfs.ext4", "-q", "-F", image).Run() != nil || exec.Command("mount", mount...).Run() != nil {
		t.Skip("an image of ext4 cannot be mounted here: it takes root; failing calls stand for it")
	}
	t.Cleanup(func() { must("umount", dir) })
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	trigger := "/sys/fs/ext4/" + filepath.Base(string(bytes.TrimSpace(device))) + "/trigger_fs_error"
	if _, statErr := os.Stat(trigger); err != nil || statErr != nil {
		t.Skip("this kernel lets nobody cause an error: ", err, statErr)
	}
	return worn{
		dir: dir,
		turn: func(*place, client) {
			if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil {
				t.Fatal("the disk is still writable")
			}
		},
		mend: func() {
			must("umount", dir)
			_ = exec.Command("e2fsck", "-fy", image).Run() // its status tells of what was mended
			must("mount", mount...)
		},
	}
}

// wornCalls needs no such disk: the calls that would fail are made to fail.
func wornCalls(t *testing.T) worn {
	return worn{
		dir: tempDir(t),
		turn: func(p *place, s client) {
			s.inject(rule{
				calls: "pwrite64,write,fallocate,ftruncate,unlink,unlinkat,fsync,fdatasync,mkdirat,linkat", errno: "EROFS", when: "1+",
				paths: []string{p.dir, p.db, p.db + "-wal", p.db + "-shm", p.db + "-ledger", p.db + "-journal"},
			})
		},
		mend: func() {},
	}
}

// TestFault_TheDatabasesDiskTurnsReadOnly has commits in the WAL that are not shipped yet when it
// does: statements that read go on, those that write fail as without walferry, a sync
// says why, the close ends, and the next open ships what there was and no more.
func TestFault_TheDatabasesDiskTurnsReadOnly(t *testing.T) {
	for what, disk := range map[string]func(*testing.T) worn{"a disk": wornDisk, "its calls": wornCalls} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			turnsReadOnly(t, newPlace(t), disk(t))
		})
	}
}

func turnsReadOnly(t *testing.T, p *place, disk worn) {
	p.dir, p.db = disk.dir, filepath.Join(disk.dir, "app.db")
	p = p.with("WF_DB=" + p.db)
	s := p.client("interval=1h", "close_timeout=1s", "snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	for range 30 {
		s.exec("INSERT INTO t VALUES(randomblob(3000))")
	}
	s.shipNow()
	shipped, before := p.image(), p.newest()
	for range 5 {
		s.exec("INSERT INTO t VALUES(randomblob(3000))")
	}
	syncAll(t, p.dir) // what is not on the disk is not there when it is mounted again

	disk.turn(p, s)
	for range 3 {
		if text, ok := s.try("exec INSERT INTO t VALUES('lost')"); ok || !strings.Contains(text, "disk I/O error") && !strings.Contains(text, "readonly") {
			t.Errorf("a statement that writes says %q", text)
		}
		s.fails("exec PRAGMA walferry_sync", "Read-only file system")
		if n := s.get("SELECT count(*) FROM t"); n != "35" {
			t.Errorf("%s rows can be read", n)
		}
	}
	if s.status("lag_ms") == "0" || s.status("state") == "shipping" && s.status("pending_pages") == "0" {
		t.Errorf("the status says that all is shipped: %s, lag %s ms", s.status("state"), s.status("lag_ms"))
	}
	mustEqual(t, "restore", p.restored(), shipped)
	s.end()

	disk.mend()
	s = p.client("interval=1h", "snapshot_interval=0")
	if n := s.get("SELECT count(*) FROM t"); n != "35" {
		t.Errorf("%s rows are there", n)
	}
	s.shipNow()
	if pages, objects := p.after(before); pages > 12 || objects == 0 {
		t.Errorf("%d pages in %d objects were sent for five rows", pages, objects)
	}
	p.comesBack()
	s.end()
	p.comesBack()
}

// syncAll has all of a file system written to its disk.
func syncAll(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		t.Fatal(err)
	}
}
