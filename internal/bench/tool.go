package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// toolRun is what running another program cost.
type toolRun struct {
	Elapsed time.Duration // from its start to its end
	Peak    int64         // resident bytes
}

// runTool runs a program to its end, for no longer than childLimit. Its error carries what the
// program said.
func (b *bench) runTool(program string, args ...string) (toolRun, error) {
	ctx, cancel := context.WithTimeout(b.ctx, childLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = b.environ()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return toolRun{}, fmt.Errorf("start %s: %w", program, err)
	}
	peak := watchPeak(cmd.Process.Pid)
	err := cmd.Wait()
	run := toolRun{Elapsed: time.Since(begin), Peak: peak()}
	if err != nil {
		return run, fmt.Errorf("%s %q: %w: %s", program, args, err, bytes.TrimSpace(said.Bytes()))
	}
	return run, nil
}

// watchPeak notes the peak memory of a process every two milliseconds, because nobody can ask when
// it has ended. The function it returns ends the watch and returns the last figure.
func watchPeak(pid int) func() int64 {
	stop, result := make(chan struct{}), make(chan int64)
	go func() {
		var largest int64
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			// An error means that the process has ended and its figures with it.
			if peak, _, err := memory(pid); err == nil {
				largest = max(largest, peak)
			}
			select {
			case <-tick.C:
			case <-stop:
				result <- largest
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-result
	}
}

// fsyncFile makes a file durable and returns how long that took.
func fsyncFile(path string) (elapsed time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	begin := time.Now()
	err = f.Sync()
	return time.Since(begin), err
}

// fileSize returns the summed sizes of files.
func fileSize(paths ...string) (int64, error) {
	var sum int64
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}
