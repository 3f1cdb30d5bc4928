package systest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// injection lets system calls of a running program fail for as long as it lasts. It is strace,
// which sees the calls of C and of Go alike.
type injection struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	log  string
	what string
}

// rule says which calls fail, how, and at which of them: of each thread those that when
// names, "2" or "1+". Without paths any file's.
type rule struct {
	calls, errno, when string
	paths              []string
}

func (r rule) String() string { return fmt.Sprintf("%s=%s at %s", r.calls, r.errno, r.when) }

// inject begins the faults of a rule in a program and all its threads. It returns when
// strace has got hold of them.
func (p *proc) inject(r rule) *injection {
	p.t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		missing(p.t, "strace", "apt-get install strace")
	}
	i := &injection{t: p.t, done: make(chan struct{}), log: filepath.Join(tempDir(p.t), "strace"), what: r.String()}
	args := []string{"-f", "-o", i.log, "-e", "trace=" + r.calls, "-e", "inject=" + r.calls + ":error=" + r.errno + ":when=" + r.when}
	for _, path := range r.paths {
		args = append(args, "-P", path)
	}
	i.cmd = exec.Command(strace, append(args, "-p", strconv.Itoa(p.cmd.Process.Pid))...)
	i.cmd.Env = append(os.Environ(), "LC_ALL=C")
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := i.cmd.StderrPipe()
	if err == nil {
		err = i.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	attached := make(chan struct{})
	var told atomic.Value
	go func() {
		defer close(i.done)
		var text strings.Builder
		once := false
		for s := bufio.NewScanner(said); s.Scan(); {
			text.WriteString(s.Text() + "\n")
			told.Store(text.String())
			if strings.Contains(s.Text(), fmt.Sprintf("Process %d attached", p.cmd.Process.Pid)) && !once {
				once = true
				close(attached)
			}
		}
		_ = i.cmd.Wait()
	}()
	p.t.Cleanup(func() { i.end() })
	select {
	case <-attached:
	case <-i.done:
		p.t.Fatalf("strace has ended: %v", told.Load())
	case <-time.After(patience):
		p.t.Fatal("strace does not attach")
	}
	return i
}

// end lets the program go on by itself and returns how many of its calls failed. It may
// be called again.
func (i *injection) end() (hits int) {
	_ = i.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-i.done:
	case <-time.After(patience):
		_ = i.cmd.Process.Kill()
		<-i.done
	}
	return i.hits()
}

// hits is how many calls have failed so far.
func (i *injection) hits() int {
	b, _ := os.ReadFile(i.log)
	return strings.Count(string(b), "(INJECTED)")
}

// recovers fails the test unless a client whose fault is over ships again by itself, with
// all of its rows, and ends it.
func (p *place) recovers(s client, rows int) {
	t := p.t
	t.Helper()
	eventually(t, "it ships when the fault is over", func() bool {
		_, ok := s.try("exec PRAGMA walferry_sync")
		return ok
	})
	if state, last := s.status("state"), s.status("last_error"); state != "shipping" || last != "" {
		t.Errorf("all is well, and the status says %q, last error %q", state, last)
	}
	mustEqual(t, "restore after the fault", p.restored(), p.image())
	s.exec("INSERT INTO t VALUES('after')")
	s.end()
	mustEqual(t, "restore after the close", p.restored(), p.image())
	if n := p.query(p.db, "SELECT count(*) FROM t"); n != fmt.Sprint(rows+1) {
		t.Errorf("%s rows of %d are there", n, rows+1)
	}
}
