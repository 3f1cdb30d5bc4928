package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ownCall is a system call that walferry makes for its own files.
type ownCall struct {
	name   string
	calls  string
	paths  func(p *place) []string // nil: nobody else in the program makes this call
	params []string
	late   bool // it is made some seconds after the begin
	again  bool // it is not made where all is new
}

var ownCalls = []ownCall{
	{name: "ledger open", calls: "openat", paths: (*place).ledgerPath},
	{name: "ledger stat", calls: "fstat,newfstatat,statx", paths: (*place).ledgerPath},
	{name: "ledger allocate", calls: "fallocate"},
	{name: "ledger map", calls: "mmap", paths: (*place).ledgerPath},
	{name: "ledger sync", calls: "fdatasync", paths: (*place).ledgerPath},
	{name: "ledger poke", calls: "pwrite64", paths: (*place).ledgerPath},
	{name: "ledger lock", calls: "fcntl", paths: (*place).ledgerPath},
	{name: "ledger chmod", calls: "fchmod,fchown", paths: (*place).ledgerPath},
	{name: "watch begin", calls: "inotify_init1"},
	{name: "watch add", calls: "inotify_add_watch"},
	{name: "boot id open", calls: "openat", paths: func(*place) []string { return []string{"/proc/sys/kernel/random/boot_id"} }},
	{name: "spool open", calls: "openat", paths: func(p *place) []string { return []string{p.dir} }},
	{name: "store open", calls: "openat", paths: (*place).storePaths},
	{name: "store mkdir", calls: "mkdirat"},
	{name: "store time", calls: "utimensat,futimesat,utimes"},
	{name: "store xattr", calls: "fsetxattr"},
	{name: "store sync", calls: "fsync"},
	{name: "store link", calls: "linkat"},
	{name: "store list", calls: "getdents64", paths: (*place).storePaths, again: true},
	{name: "store remove", calls: "unlinkat", late: true, params: []string{"snapshot_interval=1s", "l0_retention=1s", "retention=1s"}},
}

func (p *place) ledgerPath() []string { return []string{p.db + "-ledger"} }

// storePaths are the directories of the replica.
func (p *place) storePaths() []string {
	paths := []string{p.objects, filepath.Join(p.objects, "ltx"), filepath.Join(p.objects, "marks")}
	for level := range 10 {
		paths = append(paths, filepath.Join(p.objects, "ltx", fmt.Sprint(level)))
	}
	return paths
}

// full reports that a whole matrix is asked for, as `make faults` does.
func full() bool { return os.Getenv("WALFERRY_TEST_FAULTS") == "all" }

// some are the first n of the values, or all.
func some[T any](all []T, n int) []T {
	if full() {
		return all
	}
	return all[:n]
}

// table collects a line for each case and logs them together.
type table struct {
	mu    sync.Mutex
	lines []string
}

func (tab *table) add(format string, args ...any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.lines = append(tab.lines, fmt.Sprintf(format, args...))
}

func (tab *table) log(t *testing.T) {
	slices.Sort(tab.lines)
	t.Logf("%d cases:\n%s", len(tab.lines), strings.Join(tab.lines, "\n"))
}

// TestFault_FilesOfOurs lets every system call that walferry makes for its own files fail, while
// a database is opened and while it is in use. No statement fails, the status tells
// the truth, and when the fault is over everything is shipped.
func TestFault_FilesOfOurs(t *testing.T) {
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	i := 0
	errnos := []string{"ENOSPC", "EIO", "EMFILE", "EACCES", "EDQUOT", "EROFS"}
	for _, c := range ownCalls {
		for _, phase := range []string{"first open", "open again", "run"} {
			for _, errno := range errnos {
				for _, when := range []string{"1+", "1", "2", "3"} {
					// Without the whole matrix each call meets one error, and the next another.
					usual := phase == "first open" && !c.again || phase == "open again" && c.again
					if !full() && (!usual || when != "1+" || errno != errnos[i%len(errnos)]) {
						continue
					}
					t.Run(fmt.Sprint(c.name, " ", phase, " ", errno, " ", when), func(t *testing.T) {
						t.Parallel()
						fileFault(t, tab, c, phase, errno, when)
					})
				}
			}
		}
		i++
	}
}

func fileFault(t *testing.T, tab *table, c ownCall, phase, errno, when string) {
	p := newPlace(t)
	s := client{p.start("client.py", append([]string{"close_timeout=2s"}, c.params...)...)}
	begin := func() {
		s.do("open")
		s.exec("CREATE TABLE IF NOT EXISTS t(v)")
	}
	if phase == "open again" {
		q := p.client()
		q.exec("CREATE TABLE t(v)")
		q.end()
	}
	s.do("loaded?") // it has loaded the extension
	if phase == "run" {
		begin()
		s.exec("PRAGMA walferry_sync")
	}
	r := rule{calls: c.calls, errno: errno, when: when}
	if c.paths != nil {
		r.paths = c.paths(p)
	}
	fault := s.inject(r)
	if phase != "run" {
		begin()
	}
	rows, failed, said := 0, 0, ""
	for until := time.Now().Add(5 * time.Second); rows < 15 || c.late && fault.hits() == 0 && time.Now().Before(until); {
		for range 5 {
			s.exec("INSERT INTO t VALUES(randomblob(5000))")
			rows++
		}
		said = ""
		if text, ok := s.try("exec PRAGMA walferry_sync"); !ok {
			failed, said = failed+1, text
			if when == "1+" { // others are over already
				s.tellsOf(text)
			}
		} else {
			mustEqual(t, "a sync succeeded during the fault, and the replica", p.restored(), p.image())
		}
	}
	hits := fault.end()
	p.recovers(s, rows)
	tab.add("%-16s %-10s %-6s %-2s  %2d failed calls, %d failed syncs  %s", c.name, phase, errno, when, hits, failed, said)
}

// tellsOf fails the test unless the status says why a sync failed with that text.
func (s client) tellsOf(text string) {
	s.t.Helper()
	state, cause := s.status("state"), s.status("cause")
	if state == "shipping" && s.status("lag_ms") != "0" {
		return // nobody could be woken
	}
	if state == "shipping" || state == "" || cause == "" || cause == "None" {
		s.t.Errorf("a sync says %q, and the status %q, cause %q", text, state, cause)
	}
}
