package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted is a small file system of its own, in memory.
func mounted(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = tempDir(t)
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Skip("mount tmpfs: ", err) // it takes root
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// remount makes it read-only or writable again.
func remount(t *testing.T, dir string, flags uintptr) error {
	t.Helper()
	return unix.Mount("none", dir, "", unix.MS_REMOUNT|flags, "")
}

// fill leaves so many bytes of a file system free.
func fill(t *testing.T, dir string, free int64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, max(1, int64(st.Bavail)*st.Bsize-free)); err != nil {
		t.Fatal(err)
	}
}

func free(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
}

// TestFault_TheReplicasDiskIsFull leaves room for less and less of what is to be shipped.
func TestFault_TheReplicasDiskIsFull(t *testing.T) {
	for _, room := range some([]int64{0, 4096, 3 * 4096, 8192, 16384, 65536, 200000}, 1) {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			disk := mounted(t, "size=8m")
			p.objects, p.replica = disk, "file://"+disk
			p = p.with("WF_REPLICA=" + p.replica)
			s := p.client("close_timeout=1s")
			s.exec("CREATE TABLE t(v)")
			s.exec("PRAGMA walferry_sync")
			fill(t, disk, room)
			for range 50 {
				s.exec("INSERT INTO t VALUES(randomblob(20000))")
			}
			eventually(t, "the status says that the disk is full", func() bool {
				return strings.Contains(s.status("cause"), "no space left") && s.status("state") != "shipping" && s.status("lag_ms") != "0"
			})
			s.fails("exec PRAGMA walferry_sync", "no space left")
			if left, _ := filepath.Glob(filepath.Join(disk, "ltx", "*", ".walferry*")); len(left) != 0 {
				t.Errorf("%v is left on a full disk", left)
			}
			free(t, disk)
			eventually(t, "it ships when there is room", func() bool { _, ok := s.try("exec PRAGMA walferry_sync"); return ok })
			mustEqual(t, "restore", p.restored(), p.image())
			s.end()
			mustEqual(t, "restore after the close", p.restored(), p.image())
		})
	}
}

// TestFault_TheReplicasDiskIsReadOnly remounts it and back.
func TestFault_TheReplicasDiskIsReadOnly(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	disk := mounted(t, "size=8m")
	p.objects, p.replica = disk, "file://"+disk
	p = p.with("WF_REPLICA=" + p.replica)
	s := p.client("close_timeout=1s")
	s.exec("CREATE TABLE t(v)")
	s.exec("PRAGMA walferry_sync")
	if err := remount(t, disk, unix.MS_RDONLY); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		s.exec("INSERT INTO t VALUES(randomblob(200))")
	}
	s.fails("exec PRAGMA walferry_sync", "read-only file system")
	if state := s.status("state"); state != "refused" {
		t.Errorf("state %s", state)
	}
	if err := remount(t, disk, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it ships when it is writable", func() bool { _, ok := s.try("exec PRAGMA walferry_sync"); return ok })
	mustEqual(t, "restore", p.restored(), p.image())
	s.end()
}

// TestFault_TheDatabasesDiskIsFull fills the disk of the database at many sizes: a statement
// fails where one of plain SQLite does, the host lives, and what was committed is shipped.
func TestFault_TheDatabasesDiskIsFull(t *testing.T) {
	for _, room := range some([]int64{0, 4096, 8192, 3 * 4096, 5 * 4096, 16 * 4096, 40 * 4096, 70 * 4096, 120 * 4096, 300 * 4096}, 2) {
		for _, when := range []string{"before the open", "in use"} {
			t.Run(fmt.Sprint(room, " ", when), func(t *testing.T) {
				t.Parallel()
				p := newPlace(t)
				disk := mounted(t, "size=8m")
				p.db = filepath.Join(disk, "app.db")
				p = p.with("WF_DB=" + p.db)
				q := newPlace(t) // the same without walferry
				q.db = filepath.Join(mounted(t, "size=8m"), "app.db")
				q = q.with("WF_DB=" + q.db)
				plain := q.client("vfs=plain")
				plain.exec("PRAGMA journal_mode=WAL")
				for _, sql := range []string{"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t(v) VALUES(randomblob(20000))"} {
					plain.exec(sql)
				}
				b, err := os.ReadFile(q.image())
				if err == nil {
					err = os.WriteFile(p.db, b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				var s client
				if when == "in use" {
					s = p.client("close_timeout=1s")
					s.exec("PRAGMA walferry_sync")
				}
				fill(t, disk, room)
				if when != "in use" {
					s = client{p.start("client.py", "close_timeout=1s")}
					if text, ok := s.try("open"); !ok {
						t.Fatalf("the open fails: %s", text) // its connection has read nothing yet
					}
				}
				good := 0
				for i := range 40 {
					if text, ok := s.try(fmt.Sprintf("exec INSERT INTO t(v) VALUES(printf('%%.*c', 8000, '%d'))", i%10)); ok {
						good++
					} else if !strings.Contains(text, "full") && !strings.Contains(text, "disk I/O error") && !strings.Contains(text, "unable to open") {
						t.Errorf("a statement on a full disk fails with %q", text)
					}
				}
				text, ok := s.try("exec PRAGMA walferry_sync")
				if state, cause := s.status("state"), s.status("cause"); ok != (state == "shipping") || !ok && (cause == "" || cause == "None") {
					t.Errorf("a sync says %q, the status %q: %q", text, state, cause)
				}
				free(t, disk)
				s.exec("INSERT INTO t(v) VALUES('there is room')")
				eventually(t, "it ships when there is room", func() bool { _, ok := s.try("exec PRAGMA walferry_sync"); return ok })
				mustEqual(t, "restore", p.restored(), p.image())
				if n := p.query(p.image(), "SELECT count(*) FROM t"); n != fmt.Sprint(good+2) {
					t.Errorf("%s rows, not %d", n, good+2)
				}
				s.end()
				plain.end()
				mustEqual(t, "restore after the close", p.restored(), p.image())
			})
		}
	}
}
