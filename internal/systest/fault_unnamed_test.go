package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inodes is up to which number files of a test's own file system are known: there a file
// has one more than the one that was made before it.
const inodes = 1000

// unnamed are the files without a name that a directory may have, as /proc shows them.
func unnamed(dirs ...string) (paths []string) {
	for _, dir := range dirs {
		for n := range inodes {
			paths = append(paths, fmt.Sprintf("%s/#%d", dir, n))
		}
	}
	return paths
}

// TestFault_FilesWithoutAName lets what walferry does with its temporary files fail while a batch
// passes through them: what is read from the database, what is on its way to the store, and
// what a directory as the store is given. No statement fails, a sync does and says why, and
// when the fault is over everything is shipped.
func TestFault_FilesWithoutAName(t *testing.T) {
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	const writes = "write,pwrite64,copy_file_range,sendfile,splice"
	spool := func(p *place) []string { return []string{p.dir} }
	body := func(p *place) []string { return []string{filepath.Join(p.objects, "ltx", "0")} }
	for _, c := range []struct {
		name, calls string
		dirs        func(p *place) []string
		errnos      []string
	}{
		{"spool write", writes, spool, []string{"ENOSPC", "EIO", "EDQUOT"}},
		{"spool read", "pread64,read", spool, []string{"EIO"}},
		{"body write", writes, body, []string{"EIO", "ENOSPC", "EDQUOT"}},
		{"body sync", "fsync", body, []string{"EIO"}},
	} {
		for _, errno := range some(c.errnos, 1) {
			for _, when := range some([]string{"1+", "2", "3+"}, 1) {
				t.Run(fmt.Sprint(c.name, " ", errno, " ", when), func(t *testing.T) {
					t.Parallel()
					p := newPlace(t)
					disk := mounted(t, "size=64m")
					p.dir, p.db, p.objects = disk, filepath.Join(disk, "app.db"), filepath.Join(disk, "replica")
					p.replica = "file://" + p.objects
					p = p.with("WF_DB="+p.db, "WF_REPLICA="+p.replica)
					s := p.client("close_timeout=2s", "snapshot_interval=0")
					s.exec("CREATE TABLE t(v)")
					s.shipNow()
					fault := s.inject(rule{calls: c.calls, errno: errno, when: when, paths: unnamed(c.dirs(p)...)})
					rows, failed, said := 0, 0, ""
					for range 3 {
						s.exec("INSERT INTO t VALUES(randomblob(2000000))") // more than what is kept in memory
						rows++
						if text, ok := s.try("exec PRAGMA walferry_sync"); !ok {
							failed, said = failed+1, text
							if when == "1+" {
								s.tellsOf(text)
							}
						} else {
							mustEqual(t, "a sync succeeded during the fault, and the replica", p.restored(), p.image())
						}
					}
					hits := fault.end()
					tab.add("%-12s %-6s %-2s  %2d failed calls, %d failed syncs  %s", c.name, errno, when, hits, failed, said)
					words := map[string]string{"ENOSPC": "no space left", "EIO": "input/output error", "EDQUOT": "quota exceeded"}[errno]
					if c.name == "body write" && errno == "EDQUOT" {
						words = "no space left" // as the store says it
					}
					// The others are counted for each thread by itself, and one may make too few calls.
					if when == "1+" && (hits == 0 || failed != 3 || !strings.Contains(said, words)) {
						t.Errorf("%d calls and %d of 3 syncs have failed: %s", hits, failed, said)
					}
					p.recovers(s, rows)
					if left, err := os.ReadDir(filepath.Join(p.objects, "ltx", "0")); err != nil || strings.HasPrefix(left[0].Name(), ".") {
						t.Errorf("%v, %v", left, err)
					}
				})
			}
		}
	}
}
