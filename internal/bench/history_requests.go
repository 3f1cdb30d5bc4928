package main

import (
	"errors"
	"fmt"
	"time"
)

// fivePerSecond is the pace of an application that a few people use.
const fivePerSecond = 200 * time.Millisecond

// trafficResult is what one side asked of the S3 server.
type trafficResult struct {
	Writing time.Duration // how long it was counted under writes
	Written requests
	Idle    requests
}

// perHour scales the requests of one kind under writes to an hour.
func (r trafficResult) perHour(v verb) float64 {
	return float64(r.Written[v]) * float64(time.Hour) / float64(r.Writing)
}

// measureRequests counts requests at the server: under a few commits a second, and after them. What
// happens once an hour or once a day, the merge into level 3 and the snapshot, is not in the figures
// unless the watch is as long.
func measureRequests(b *bench) error {
	if b.Control {
		b.table.skip("requests", notShipping)
		return nil
	}
	got, err := compareRounds(b, 1, b.shippers(), func(s side, dir string, _ int) (trafficResult, error) { return b.traffic(s, dir) })
	if err != nil {
		return err
	}
	goals := [verbs]goal{verbPut: atMost(3800), verbList: atMost(100)}
	for v, g := range goals {
		name := fmt.Sprintf("history: %s per hour at 5 commits/s (scaled from %v)", verbNames[v], b.Watch)
		b.table.add(newFigure(name, count, got, func(r trafficResult) float64 { return r.perHour(verb(v)) }, g))
	}
	b.table.add(newFigure(fmt.Sprintf("history: requests in %v without a commit, after those", b.Idle), count, got,
		func(r trafficResult) float64 { return float64(r.Idle.sum()) }, atMost(0)))
	return nil
}

// traffic runs one side. The first snapshot is in the bucket before anything is counted.
func (b *bench) traffic(s side, dir string) (r trafficResult, err error) {
	k, err := b.bucket()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, k.remove()) }()
	proxy, err := b.count(b.s3.Endpoint)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, proxy.close()) }()
	t := b.target(s, dir)
	t.S3 = k.through(proxy.Endpoint)
	if err := b.copyBase(0, t); err != nil {
		return r, err
	}
	c, err := b.startChild("paced", pacedSpec{Target: t, Ship: true, Every: fivePerSecond, Ops: int(b.Watch / fivePerSecond)})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return r, err
	}
	if s == litestream {
		l, err := b.startLitestream(dir, t)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
	}
	before := proxy.now()
	if err := c.start(); err != nil {
		return r, err
	}
	var done pacedResult
	if err := c.receive(&done); err != nil {
		return r, err
	}
	r.Writing, r.Written = done.Elapsed, proxy.since(before)
	if r.Written[verbPut] == 0 {
		return r, errors.New("nothing was shipped, so nothing was counted")
	}
	// The last commits are shipped, and what they made due is done.
	if err := b.sleep(2 * b.Interval); err != nil {
		return r, err
	}
	before = proxy.now()
	if err := b.sleep(b.Idle); err != nil {
		return r, err
	}
	r.Idle = proxy.since(before)
	return r, nil
}
