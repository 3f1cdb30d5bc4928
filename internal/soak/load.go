package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
	"github.com/walferry/walferry/internal/s3test"
)

// process is a child that runs.
type process struct {
	cmd *exec.Cmd
	in  io.Closer // closing it asks the child to end

	mu      sync.Mutex // protects samples
	samples []sample
	read    chan struct{} // closed when its output has ended
}

// start starts a child with variables of its own.
func start(task, arg string, n uint64, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, arg, fmt.Sprint(n&(1<<40-1))), read: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), childEnv+"="+task, "WALFERRY_LOG=off"), env...)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s sample
			if json.Unmarshal(lines.Bytes(), &s) == nil {
				p.mu.Lock()
				p.samples = append(p.samples, s)
				p.mu.Unlock()
			}
		}
	}()
	return p, nil
}

func (p *process) wait() error {
	<-p.read
	return p.cmd.Wait()
}

// end asks a child to end, and waits.
func (p *process) end() error {
	p.in.Close()
	return p.wait()
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.wait()
}

// alone runs a task that is measured apart, with a directory for a store.
func alone(ctx context.Context, task string, n int) error {
	dir, err := os.MkdirTemp("", "walferry-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for i := range n {
		if task != "many" {
			break
		}
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o755); err != nil {
			return err
		}
	}
	p, err := start(task, dir, uint64(n), "WALFERRY_REPLICA=file://"+dir+"/replica/{path}", "WALFERRY_INTERVAL=100ms")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("%s: %w", task, err)
	}
	if task == "opens" && len(p.samples) == 2 {
		return stayed(task, p.samples[:1], p.samples[1:])
	}
	return nil
}

// load is the mixed load with faults.
func load(ctx context.Context, c config) error {
	dir, err := os.MkdirTemp("", "walferry-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := s3test.Launch(ctx, c.server, dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := server.MakeBucket(ctx, "soak"); err != nil {
		return err
	}
	store, err := newProxy(server.Endpoint)
	if err != nil {
		return err
	}
	defer store.server.Close()
	for k, v := range server.Environ() {
		os.Setenv(k, v)
	}
	env := []string{"AWS_ENDPOINT_URL_S3=" + store.addr, "WALFERRY_REPLICA=s3://soak/{path}", "WALFERRY_INTERVAL=200ms",
		"WALFERRY_CLOSE_TIMEOUT=1s"}

	faults, heal := context.WithTimeout(ctx, c.duration)
	defer heal()
	var moods sync.WaitGroup
	moods.Go(func() { store.live(faults, rand.New(rand.NewPCG(c.seed, 2))) })
	errs := make([]error, c.databases)
	var all sync.WaitGroup
	for i := range c.databases {
		path := filepath.Join(dir, fmt.Sprint("db", i), "app.db")
		all.Go(func() { errs[i] = soakOne(faults, path, c.seed+uint64(i)*100, env) })
	}
	all.Wait()
	heal()
	moods.Wait()
	for m := range store.counts {
		fmt.Printf("the store %s: %d requests\n", moodText[m], store.counts[m].Load())
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// soakOne is one database: a process that stays and one that is killed again and again. When
// the faults have ended its replica must restore to it.
func soakOne(faults context.Context, path string, seed uint64, env []string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 3))
	stays, err := start("write", path, seed, env...)
	if err != nil {
		return err
	}
	kills := 0
	for faults.Err() == nil {
		p, err := start("write", path, seed+uint64(kills)+1, env...)
		if err != nil {
			return err
		}
		select {
		case <-faults.Done():
		case <-p.read:
		case <-time.After(time.Duration(500+r.IntN(8000)) * time.Millisecond):
		}
		kills++
		select {
		case <-p.read:
			return errors.Join(fmt.Errorf("%s: a writer ended by itself", path), p.wait(), stays.end())
		default:
			p.kill()
		}
	}
	if err := stays.end(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	last, err := start("write", path, seed, env...) // whoever was killed has left something
	if err == nil {
		err = last.end()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Printf("%s: %d writers were killed, %d samples\n", filepath.Base(filepath.Dir(path)), kills, len(stays.samples))
	if len(stays.samples) >= 10 {
		before, after := fifths(stays.samples)
		err = stayed(filepath.Base(filepath.Dir(path)), before, after)
	}
	return errors.Join(err, comesBack(path))
}

// comesBack restores a replica and holds it against its database.
func comesBack(path string) error {
	store, err := objstore.New("s3://soak"+path, objstore.Options{})
	if err != nil {
		return err
	}
	out := path + ".restored"
	defer os.Remove(out)
	if _, err := restore.Restore(context.Background(), store, out, restore.Options{}); err != nil {
		return err
	}
	want, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s: the replica restores to other bytes than the database has", path)
	}
	return nil
}
