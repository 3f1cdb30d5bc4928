package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// idleSpec tells a child what to hold open, and for how long.
type idleSpec struct {
	Targets []target
	For     time.Duration
}

// idleResult is what happened while nothing was asked for.
type idleResult struct {
	Requests int64
	CPU      time.Duration
	For      time.Duration
	Resident int64 // bytes at the end
}

// core returns the share of one core in percent.
func (r idleResult) core() float64 { return 100 * r.CPU.Seconds() / r.For.Seconds() }

// idleChild: receives an idleSpec, opens all databases, says ready, sits still, sends an idleResult.
func idleChild(l *link) error {
	var spec idleSpec
	if err := l.receive(&spec); err != nil {
		return err
	}
	conns := make([]*conn, len(spec.Targets))
	for i, t := range spec.Targets {
		var err error
		if conns[i], err = t.open(); err != nil {
			return err
		}
	}
	requests := func() (sum int64, err error) {
		for i, t := range spec.Targets {
			n, err := t.requests(conns[i])
			if err != nil {
				return 0, err
			}
			sum += n
		}
		return sum, nil
	}
	if err := l.ready(); err != nil {
		return err
	}

	requestsBefore, err := requests()
	if err != nil {
		return err
	}
	cpuBefore, err := ownCPU()
	if err != nil {
		return err
	}
	begin := time.Now()
	time.Sleep(spec.For)
	result := idleResult{For: time.Since(begin)}
	cpuAfter, err := ownCPU()
	if err != nil {
		return err
	}
	requestsAfter, err := requests()
	if err != nil {
		return err
	}
	result.CPU, result.Requests = cpuAfter-cpuBefore, requestsAfter-requestsBefore
	if _, result.Resident, err = memory(os.Getpid()); err != nil {
		return err
	}
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		return err
	}
	return l.send(result)
}

// measureIdle watches one and then many open databases, once: a minute is its own average.
func measureIdle(b *bench) error {
	for _, n := range []int{1, b.IdleMany} {
		got := samples[idleResult]{}
		for _, s := range b.sides() {
			b.progress("  %s, %d databases, %v", s, n, b.Idle)
			r, err := measureIn(b, func(dir string) (idleResult, error) { return b.idle(s, dir, n) })
			if err != nil {
				return fmt.Errorf("%s, %d databases: %w", s, n, err)
			}
			got[s] = append(got[s], r)
		}
		name, cpu := "idle, 1 database", 0.1
		if n > 1 {
			name, cpu = fmt.Sprintf("idle, %d databases", n), 1
		}
		if ours, ships := got[walferry]; ships {
			b.table.add(newFigure(name+": requests", count, samples[idleResult]{walferry: ours},
				func(r idleResult) float64 { return float64(r.Requests) }, atMost(0)))
		}
		b.table.add(
			newFigure(name+": CPU, of a core", percent, got, idleResult.core, atMost(cpu)),
			newFigure(name+": resident", amount, got, func(r idleResult) float64 { return float64(r.Resident) }, goal{}),
		)
	}
	return nil
}

// idle runs one child with n databases open. litestream's processor time and memory are added to the
// child's, because both are needed for what walferry does in one process.
func (b *bench) idle(s side, dir string, n int) (result idleResult, err error) {
	spec := idleSpec{For: b.Idle}
	for i := range n {
		home := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(home, 0o755); err != nil {
			return result, err
		}
		t := b.target(s, home)
		if err := b.copyBase(0, t); err != nil {
			return result, err
		}
		spec.Targets = append(spec.Targets, t)
	}
	c, err := b.startChild("idle", spec)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return result, err
	}
	var l *beside
	if s == litestream {
		if l, err = b.startLitestream(dir, spec.Targets...); err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
	}
	// What the first snapshots set in motion comes to rest.
	if err := b.sleep(2 * b.Interval); err != nil {
		return result, err
	}
	before, err := l.cpu()
	if err != nil {
		return result, err
	}
	if err := c.start(); err != nil {
		return result, err
	}
	if err := c.receive(&result); err != nil {
		return result, err
	}
	after, err := l.cpu()
	if err != nil {
		return result, err
	}
	result.CPU += after - before
	if l != nil {
		_, now, err := memory(l.cmd.Process.Pid)
		if err != nil {
			return result, err
		}
		result.Resident += now
	}
	return result, nil
}
