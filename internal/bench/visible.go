package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// visibleLimit bounds the wait for the object of the last commit.
const visibleLimit = 30 * time.Second

// markerRequest asks the child to commit a row that holds the marker.
type markerRequest struct{ Marker string }

// markerDone is the answer: when the commit returned, on the monotonic clock.
type markerDone struct{ At time.Duration }

// visibleChild: receives a target, opens, says ready, goes; then answers each markerRequest with a
// markerDone, and closes when the parent closes its input.
func visibleChild(l *link) error {
	var t target
	if err := l.receive(&t); err != nil {
		return err
	}
	c, err := t.open()
	if err != nil {
		return err
	}
	if err := l.ready(); err != nil {
		return errors.Join(err, c.Close())
	}
	for {
		var request markerRequest
		if err := l.dec.Decode(&request); err != nil {
			return c.Close() // the parent has what it wanted, or is gone
		}
		if err := c.exec("INSERT INTO events(v) VALUES(?)", request.Marker); err != nil {
			return err
		}
		at, err := monotonic()
		if err != nil {
			return err
		}
		if err := l.send(markerDone{at}); err != nil {
			return err
		}
	}
}

// measureVisible commits at random moments and watches the replica's directory for the first object
// whose pages hold what was committed. The watcher looks every millisecond, and so adds up to one.
func measureVisible(b *bench) error {
	if len(b.shippers()) == 0 {
		b.table.skip("commit to object visible", notShipping)
		return nil
	}
	delays := samples[[]float64]{}
	for _, s := range b.shippers() {
		d, err := measureIn(b, func(dir string) ([]float64, error) { return b.visible(s, dir) })
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		delays[s] = [][]float64{d}
	}
	at := func(p int) func([]float64) float64 {
		return func(d []float64) float64 {
			sorted := make([]int64, len(d))
			for i, v := range d {
				sorted[i] = int64(v)
			}
			slices.Sort(sorted)
			return float64(percentile(sorted, p))
		}
	}
	name := fmt.Sprintf("commit to object visible, %d commits: ", b.Commits)
	b.table.add(
		newFigure(name+"median", duration, delays, median, atMost(float64(b.Interval+50*time.Millisecond))),
		newFigure(name+"p99", duration, delays, at(99), atMost(float64(b.Interval+250*time.Millisecond))),
		newFigure(name+"max", duration, delays, at(100), goal{}),
	)
	return nil
}

// visible returns, for each commit, the nanoseconds from its return to the sight of its object.
func (b *bench) visible(s side, dir string) (delays []float64, err error) {
	t := b.target(s, dir)
	if err := b.copyBase(0, t); err != nil {
		return nil, err
	}
	c, err := b.startChild("visible", t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return nil, err
	}
	if s == litestream {
		l, err := b.startLitestream(dir, t)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
	}
	w := watch(b.ctx, t.Replica)
	defer w.close()
	if err := c.start(); err != nil {
		return nil, err
	}

	markers := make([]string, b.Commits)
	committed := make([]time.Duration, b.Commits)
	rng := rand.New(rand.NewPCG(6, 7))
	for i := range markers {
		if err := b.sleep(time.Duration(rng.Int64N(int64(2 * b.Interval)))); err != nil {
			return nil, err
		}
		markers[i] = fmt.Sprintf("marker %04d %016x", i, rng.Uint64())
		var done markerDone
		if err := c.send(markerRequest{markers[i]}); err != nil {
			return nil, err
		}
		if err := c.receive(&done); err != nil {
			return nil, err
		}
		committed[i] = done.At
	}
	seen, err := b.sightings(w, markers)
	if err != nil {
		return nil, err
	}
	for i := range markers {
		delays = append(delays, float64(seen[i]-committed[i]))
	}
	return delays, nil
}

// sightings returns when the first object with each marker was seen. It waits until every marker
// has been, for at most visibleLimit and ten intervals.
func (b *bench) sightings(w *watcher, markers []string) (map[int]time.Duration, error) {
	first := map[int]time.Duration{}
	looked := 0
	for end := time.Now().Add(visibleLimit + 10*b.Interval); time.Now().Before(end); {
		arrivals, err := w.after(looked)
		if err != nil {
			return nil, err
		}
		for _, a := range arrivals {
			found, err := holds(a.path, markers)
			if err != nil {
				return nil, err
			}
			for _, i := range found {
				if at, known := first[i]; !known || a.at < at {
					first[i] = a.at
				}
			}
		}
		looked += len(arrivals)
		if len(first) == len(markers) {
			return first, nil
		}
		if err := b.sleep(20 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d of %d commits are in no object", len(markers)-len(first), len(markers))
}

// sleep waits, or returns the error of the run's context.
func (b *bench) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}
