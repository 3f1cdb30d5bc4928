package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// calibration is how long the plain side writes to find how many commits fill a round.
const calibration = time.Second

// maxOps bounds what a child writes, and the memory of its latencies.
const maxOps = 1 << 21

// writeMeasurements returns one measurement for each load and way of syncing.
func writeMeasurements() []measurement {
	var all []measurement
	for i, load := range writeLoads {
		for _, sync := range []string{"NORMAL", "FULL"} {
			if load.big && sync == "FULL" {
				continue
			}
			name := load.name + " " + sync
			all = append(all, measurement{name, func(b *bench) error { return measureWrites(b, name, i, sync) }})
		}
	}
	return all
}

func measureWrites(b *bench, name string, load int, sync string) error {
	once := func(s side, dir string, spec writeSpec) (writeResult, error) {
		spec.Target, spec.Load = b.target(s, dir), load
		spec.Target.Sync = sync
		return b.write(dir, spec)
	}
	trial, err := measureIn(b, func(dir string) (writeResult, error) {
		return once(plain, dir, writeSpec{Ops: maxOps, Limit: min(calibration, b.Load)})
	})
	if err != nil {
		return fmt.Errorf("calibrate: %w", err)
	}
	ops := min(max(int(trial.rate()*b.Load.Seconds()), 1), maxOps)
	b.progress("  %d commits a round", ops)

	got, err := compare(b, b.sides(), func(s side, dir string, round int) (writeResult, error) {
		return once(s, dir, writeSpec{Ops: ops, Round: round})
	})
	if err != nil {
		return err
	}
	// The goals for CPU and memory are stated for the load on which they are hardest to reach.
	cpu := goal{}
	if name == "one-row commits NORMAL" {
		cpu = atMostTimes(1.25)
	}
	b.table.add(
		newFigure(name+": p50", duration, got, func(r writeResult) float64 { return float64(r.P50) }, within(0.03)),
		newFigure(name+": throughput", perSecond, got, writeResult.rate, withinRate(0.03)),
		newFigure(name+": p99", duration, got, func(r writeResult) float64 { return float64(r.P99) }, atMostTimes(1.2)),
		worstFigure(name+": worst stall", duration, got, func(r writeResult) float64 { return float64(r.Max) }),
		newFigure(name+": CPU per commit", duration, got, writeResult.cpu, cpu),
		newFigure(name+": largest WAL", amount, got, func(r writeResult) float64 { return float64(r.WAL) }, atMostTimes(1.1)),
		newFigure(name+": peak memory", amount, got, func(r writeResult) float64 { return float64(r.Peak) }, goal{}),
	)
	shipped := maps.Clone(got)
	maps.DeleteFunc(shipped, func(s side, _ []writeResult) bool { return !slices.Contains(b.shippers(), s) })
	if len(shipped) > 0 {
		b.table.add(newFigure(name+": objects made", count, shipped, func(r writeResult) float64 { return float64(r.Objects) }, goal{}))
	}
	return nil
}

// write runs one child on a fresh copy of the load's database, with litestream beside it where the
// side says so.
func (b *bench) write(dir string, spec writeSpec) (result writeResult, err error) {
	bytes := size(0)
	if writeLoads[spec.Load].big {
		bytes = b.Mid
	}
	if err := b.copyBase(bytes, spec.Target); err != nil {
		return result, err
	}
	c, err := b.startChild("write", spec)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return result, err
	}
	var l *beside
	if spec.Target.Side == litestream {
		if l, err = b.startLitestream(dir, spec.Target); err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
	}
	before, err := l.cpu()
	if err != nil {
		return result, err
	}
	earlier, err := objectNames(spec.Target.Replica)
	if err != nil {
		return result, err
	}
	wal := watchSize(b.ctx, spec.Target.DB+"-wal")
	defer wal.close()
	if err := c.start(); err != nil {
		return result, err
	}
	if err := c.receive(&result); err != nil {
		return result, err
	}
	result.WAL = wal.close()
	after, err := l.cpu()
	if err != nil {
		return result, err
	}
	result.CPU += after - before
	objects, err := objectNames(spec.Target.Replica)
	if err != nil {
		return result, err
	}
	result.Objects = len(objects) - len(earlier)
	if spec.Target.Side == walferry && result.Objects == 0 {
		return result, errors.New("nothing was shipped, so nothing was measured")
	}
	return result, nil
}

// sizeWatcher notes the largest size of a file, looking every two milliseconds.
type sizeWatcher struct {
	stop    context.CancelFunc
	done    chan struct{}
	largest int64 // written by run, read after done
}

func watchSize(ctx context.Context, path string) *sizeWatcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &sizeWatcher{stop: cancel, done: make(chan struct{})}
	go w.run(ctx, path)
	return w
}

// run looks until ctx ends. A file that is not there, before the first write or after the last
// close, has no size.
func (w *sizeWatcher) run(ctx context.Context, path string) {
	defer close(w.done)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if info, err := os.Stat(path); err == nil {
			w.largest = max(w.largest, info.Size())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends the watcher and returns the largest size it saw. It may be called twice.
func (w *sizeWatcher) close() int64 {
	w.stop()
	<-w.done
	return w.largest
}
