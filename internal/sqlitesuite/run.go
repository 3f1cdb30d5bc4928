package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// outcome is one run of a file.
type outcome struct {
	cases  []result
	failed int
	end    string // how the process ended, if not by itself with the file's last line
	normal bool   // locking_mode=EXCLUSIVE was read as NORMAL
}

type result struct {
	name string
	ok   bool
	got  string // if not ok
}

// file runs one over both.
func (c *config) file(ctx context.Context, path, mode string) report {
	name := filepath.Base(path)
	r := report{name: name, mode: mode, files: 1}
	dir, err := os.MkdirTemp(c.scratch, name+"-")
	if err != nil {
		r.problems = append(r.problems, err.Error())
		return r
	}
	defer os.RemoveAll(dir)
	var both sync.WaitGroup
	begun := time.Now()
	both.Go(func() { r.plain = c.plain(ctx, path, mode, filepath.Join(dir, "plain")) })
	both.Go(func() { r.ours = c.process(ctx, "walferry", path, mode, filepath.Join(dir, "walferry")) })
	both.Wait()
	r.differences, r.expected, r.steps = compare(name, mode, r.plain, r.ours, c.known)
	r.databases(c.databases(ctx, name, mode, filepath.Join(dir, "walferry")))
	r.took = time.Since(begun)
	return r
}

// plain takes the results of an earlier run if it may.
func (c *config) plain(ctx context.Context, path, mode, dir string) outcome {
	cache := filepath.Join(c.root, "results", mode, filepath.Base(path))
	if c.cached {
		if o, err := readOutcome(cache); err == nil {
			return o
		}
	}
	o := c.process(ctx, "plain", path, mode, dir)
	if o.end != "" {
		return o
	}
	if b, err := os.ReadFile(filepath.Join(dir, "results")); err == nil && os.MkdirAll(filepath.Dir(cache), 0o755) == nil {
		_ = os.WriteFile(cache, b, 0o644)
	}
	return o
}

// process runs a file in a process of its own.
func (c *config) process(ctx context.Context, which, path, mode, dir string) outcome {
	for _, d := range []string{dir, filepath.Join(dir, "aside"), c.logs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return outcome{end: err.Error()}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	aside := ""
	env := append(os.Environ(), "SUITE_TESTER="+c.tester())
	if which == "walferry" {
		if !c.keep {
			aside = filepath.Join(dir, "aside")
		}
		env = append(env, c.environment(dir)...)
	}
	results := filepath.Join(dir, "results")
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, which), c.script("driver.tcl"), path, mode, results, aside)
	cmd.Dir, cmd.Env = dir, env
	// With the processes that the tests start, and only with those.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	log, err := os.Create(filepath.Join(c.logs, filepath.Base(path)+"."+mode+"."+which))
	if err != nil {
		return outcome{end: err.Error()}
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	o, readErr := readOutcome(results)
	switch exit := new(exec.ExitError); {
	case ctx.Err() != nil:
		o.end = "took longer than " + c.timeout.String()
	case errors.As(err, &exit) && exit.ExitCode() >= 0: // failed cases
		if !finished(log.Name()) {
			o.end = "ended before the file did: " + exit.String()
		}
	case err != nil:
		o.end = err.Error()
	case readErr != nil:
		o.end = readErr.Error()
	}
	return o
}

// environment makes walferry the default VFS, with replicas below dir.
func (c *config) environment(dir string) []string {
	replicas := filepath.Join(dir, "replica")
	return []string{
		"WALFERRY_DEFAULT=1", "WALFERRY_REPLICA=file://" + replicas + "/{path}", "WALFERRY_WAL=keep", "WALFERRY_INTERVAL=50ms",
		"WALFERRY_CLOSE_TIMEOUT=5s", "WALFERRY_TAKEOVER=1", "WALFERRY_LOG=off",
		"SUITE_REPLICAS=" + replicas, "SUITE_ASIDE_MAX=" + itoa(c.aside),
	}
}

// finished tells whether the file came to its last line, finish_test.
func finished(log string) bool {
	b, err := os.ReadFile(log)
	return err == nil && strings.Contains(string(b), " errors out of ")
}

func readOutcome(path string) (o outcome, err error) {
	f, err := os.Open(path)
	if err != nil {
		return o, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		verdict, rest, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			o.normal = o.normal || verdict == "exclusive"
			continue
		}
		name, got, _ := strings.Cut(rest, "\t")
		o.cases = append(o.cases, result{name, verdict == "ok", got})
		if verdict != "ok" {
			o.failed++
		}
	}
	return o, lines.Err()
}
