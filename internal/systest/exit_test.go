package systest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestExit_HoweverAProgramEnds nothing is lost: what ends by exit(3) has shipped all that it
// committed, and what is killed by a signal leaves it to the next open. A transaction that
// was open is in neither.
func TestExit_HoweverAProgramEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(s client)
		ships bool // before it ends
	}{
		"end of input":                  {func(s client) { _ = s.in.Close() }, true},
		"end of input in a transaction": {func(s client) { s.exec("BEGIN"); s.exec("INSERT INTO t VALUES('open')"); _ = s.in.Close() }, true},
		"SIGINT":                        {func(s client) { s.signal(syscall.SIGINT) }, true},
		"SIGINT in a transaction": {func(s client) {
			s.exec("BEGIN IMMEDIATE")
			s.exec("INSERT INTO t VALUES('open')")
			s.signal(syscall.SIGINT)
		}, true},
		"SIGTERM":                          {func(s client) { s.signal(syscall.SIGTERM) }, false},
		"SIGHUP":                           {func(s client) { s.signal(syscall.SIGHUP) }, false},
		"SIGKILL in a transaction":         {func(s client) { s.exec("BEGIN"); s.exec("INSERT INTO t VALUES('open')"); s.signal(syscall.SIGKILL) }, false},
		"exit in a thread's statement":     {func(s client) { s.send("exit-busy") }, true},
		"exit with a statement unfinished": {func(s client) { s.send("exit-reading") }, true},
		"_exit":                            {func(s client) { s.send("_exit") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			s := p.client("interval=1h")
			s.exec("CREATE TABLE t(v)")
			s.shipNow()
			for _, v := range []string{"1", "2", "3"} {
				s.exec("INSERT INTO t VALUES(" + v + ")")
			}
			c.end(s)
			s.wait()
			want := ""
			if c.ships {
				want = "1,2,3"
			}
			if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != want {
				t.Errorf("the replica has %q, want %q", got, want)
			}
			if lines := walferryLines(s.err.String()); len(lines) != 0 {
				t.Errorf("the log says %q", lines)
			}
			s = p.client()
			s.get("SELECT count(*) FROM t")
			s.shipNow()
			if got := p.query(p.restored(), "SELECT group_concat(v) FROM t"); got != "1,2,3" {
				t.Errorf("after the next open the replica has %q", got)
			}
			s.end()
			p.comesBack()
		})
	}
}

func (s client) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// TestExit_CtrlCInTheShell ends the shell with Ctrl-C, from within its signal handler, while
// it waits for a line and while it runs a statement that does not end.
func TestExit_CtrlCInTheShell(t *testing.T) {
	for name, line := range map[string]string{
		"waiting": "",
		"running": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT max(x) FROM c;",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			shell := client{start(t, p.dir, p.env, sqlite3Shell(t), "-batch")}
			for _, l := range []string{".load " + strings.TrimSuffix(extension(t), ".so"), ".open " + p.uri("&interval=1h"), "CREATE TABLE t(v);", "PRAGMA walferry_sync;",
				"INSERT INTO t VALUES('last');", "SELECT 'ready';"} {
				shell.send(l)
			}
			shell.expect("ready")
			if line != "" {
				shell.send(line)
				eventually(t, "the statement runs", func() bool { return cpuTicks(t, shell.cmd.Process.Pid) > 20 })
			}
			shell.signal(syscall.SIGINT) // ends a statement, and with it what reads a script
			_ = shell.cmd.Process.Signal(syscall.SIGINT)
			_ = shell.in.Close()
			shell.wait()
			if got := p.query(p.restored(), "SELECT v FROM t"); got != "last" {
				t.Errorf("the replica has %q", got)
			}
			p.comesBack()
		})
	}
}

// cpuTicks is the time that a process has run.
func cpuTicks(t *testing.T, pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
	n, err := strconv.Atoi(fields[12]) // utime
	if err != nil {
		t.Fatal(err)
	}
	return n
}
