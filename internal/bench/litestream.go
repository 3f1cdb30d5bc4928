package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// beside is a litestream that replicates the databases of some targets.
type beside struct {
	cmd *exec.Cmd
	log *os.File
}

// firstUpload bounds the wait for litestream's first upload.
const firstUpload = 10 * time.Minute

// startLitestream starts `litestream replicate` for the targets and returns when the first object of
// each is in its replica. The databases must exist. Its output goes to a file in dir.
func (b *bench) startLitestream(dir string, targets ...target) (*beside, error) {
	l, err := b.launchLitestream(dir, "", targets...)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if err := b.waitForObjects(t, 1, 0, 9); err != nil {
			return nil, errors.Join(fmt.Errorf("litestream: %w", err), l.stop())
		}
	}
	return l, nil
}

// launchLitestream starts `litestream replicate` for the targets, with settings at the head of its
// configuration, and does not wait for anything.
func (b *bench) launchLitestream(dir, settings string, targets ...target) (*beside, error) {
	var config strings.Builder
	fmt.Fprintf(&config, "%sdbs:\n", settings)
	for _, t := range targets {
		fmt.Fprintf(&config, "  - path: %q\n    replica:\n      url: %q\n", t.DB, t.url())
	}
	path := filepath.Join(dir, "litestream.yml")
	if err := os.WriteFile(path, []byte(config.String()), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "litestream.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(b.ctx, b.Litestream, "replicate", "-config", path)
	cmd.Env = b.environ()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start litestream: %w", err), log.Close())
	}
	return &beside{cmd, log}, nil
}

// waitForObjects waits until a target's replica has n objects on some levels together.
func (b *bench) waitForObjects(t target, n int, levels ...int) error {
	for end := time.Now().Add(firstUpload); time.Now().Before(end); {
		names, err := t.objects(levels...)
		if err != nil || len(names) >= n {
			return err
		}
		if err := b.sleep(5 * time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("fewer than %d objects on levels %v of %s after %v", n, levels, t.url(), firstUpload)
}

// stop ends the process this handle belongs to, by force if it does not end by itself.
func (l *beside) stop() error {
	if l == nil {
		return nil
	}
	force := time.AfterFunc(15*time.Second, func() { _ = l.cmd.Process.Kill() })
	defer force.Stop()
	err := l.cmd.Process.Signal(os.Interrupt)
	// How it ends is not our affair: it was told to.
	var exit *exec.ExitError
	if waited := l.cmd.Wait(); !errors.As(waited, &exit) {
		err = errors.Join(err, waited)
	}
	return errors.Join(err, l.log.Close())
}

// cpu returns the processor time used so far; 0 for no litestream.
func (l *beside) cpu() (time.Duration, error) {
	if l == nil {
		return 0, nil
	}
	return cpuOf(l.cmd.Process.Pid)
}
