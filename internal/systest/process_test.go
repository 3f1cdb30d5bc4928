package systest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds everything that a test waits for.
const patience = 40 * time.Second

// result is a program that has ended.
type result struct {
	stdout, stderr string
	code           int // -1: a signal ended it
}

// run runs a program to its end.
func run(t testing.TB, dir string, env []string, stdin, path string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, env, strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %q: %v\n%s%s", path, args, errors.Join(err, ctx.Err()), r.stdout, r.stderr)
	}
	return r
}

// ok fails the test unless the program succeeded.
func (r result) ok(t testing.TB) result {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit status %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
	}
	return r
}

// errors are the lines that walferry wrote to stderr, without the warning about
// the distribution's SQLite.
func (r result) errors() []string { return walferryLines(r.stderr) }

func walferryLines(stderr string) (lines []string) {
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "walferry: ") && !strings.Contains(line, "WAL-reset bug") {
			lines = append(lines, strings.TrimSuffix(strings.TrimPrefix(line, "walferry: "), "\n"))
		}
	}
	return lines
}

// proc is a program that runs beside the test. It is killed at the end of the
// test.
type proc struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	err   lockedBuffer
	seen  []string // lines that expect passed over; its goroutine's
	ended chan struct{}

	patience time.Duration
}

// start starts a program whose lines of output the test awaits.
func start(t testing.TB, dir string, env []string, path string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(path, args...), lines: make(chan string, 1<<16), ended: make(chan struct{}), patience: patience}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = dir, env, &p.err
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in = in
	go func() {
		defer close(p.ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// send writes a line to the program's standard input.
func (p *proc) send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("send %q: %v\n%s", line, err, p.err.String())
	}
}

// expect awaits a line that begins with prefix and returns the rest of it.
func (p *proc) expect(prefix string) string {
	p.t.Helper()
	timer := time.NewTimer(p.patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("ended without a line %q (%v)\nstdout:\n%s\nstderr:\n%s", prefix, p.cmd.ProcessState, strings.Join(p.seen, "\n"), p.err.String())
			}
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest)
			}
			p.seen = append(p.seen, line)
		case <-timer.C:
			p.t.Fatalf("no line %q in %v\nstdout:\n%s\nstderr:\n%s", prefix, p.patience, strings.Join(p.seen, "\n"), p.err.String())
		}
	}
}

// rest awaits the end and returns the lines that were not taken.
func (p *proc) rest() (lines []string) {
	p.t.Helper()
	p.wait()
	for line := range p.lines {
		lines = append(lines, line)
	}
	return lines
}

// finish closes the program's input and awaits its success.
func (p *proc) finish() {
	p.t.Helper()
	_ = p.in.Close()
	p.wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("%v\nstderr:\n%s", p.cmd.ProcessState, p.err.String())
	}
}

func (p *proc) wait() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(p.patience):
		p.t.Fatalf("did not end in %v\nstderr:\n%s", p.patience, p.err.String())
	}
}

// kill ends the program as kill -9 does, and waits for its end.
func (p *proc) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.ended
}

// eventually polls what another process brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// lockedBuffer takes what a process writes while the test may read it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
