package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// bigResult is one round of one side with the big database: into the replica, and back. The plain
// side is lz4, which does the least that can be done: compress a file, and decompress it.
type bigResult struct {
	Bytes       int64 // of the database
	Stored      int64 // of what was made of it
	Out, Back   time.Duration
	OutDurable  time.Duration // and on the disk; only lz4 needs the difference, the others fsync themselves
	BackDurable time.Duration
	OutPeak     int64 // resident bytes; of the process that opens the database for the plain side
	BackPeak    int64
}

// rate returns a function that gives bytes of database per second of the duration that pick picks.
func rate(pick func(bigResult) time.Duration) func(bigResult) float64 {
	return func(r bigResult) float64 { return float64(r.Bytes) / pick(r).Seconds() }
}

const needLZ4 = "not measured: lz4 is not installed (apt-get install lz4)"

func measureBig(b *bench) error {
	shippers := b.shippers()
	if len(shippers) == 0 {
		b.table.skip("first snapshot, restore", notShipping)
		return nil
	}
	lz4, err := exec.LookPath("lz4")
	haveLZ4 := err == nil
	got, err := compare(b, append([]side{plain}, shippers...), func(s side, dir string, _ int) (bigResult, error) {
		t := b.target(s, dir)
		if err := b.copyBase(b.Big, t); err != nil {
			return bigResult{}, err
		}
		switch {
		case s == litestream:
			return b.bigLitestream(t, dir)
		case s == walferry:
			return b.bigWalferry(t, dir)
		case haveLZ4:
			return b.bigPlain(t, dir, lz4)
		}
		return b.bigBase(t)
	})
	if err != nil {
		return err
	}

	// What a process holds more than one that opens the same database, round by round. litestream is
	// a process of its own, without a base.
	over := samples[float64]{}
	for i, r := range got[walferry] {
		over[walferry] = append(over[walferry], float64(r.OutPeak-got[plain][i].OutPeak))
	}
	if !haveLZ4 {
		delete(got, plain)
	}
	same := func(v float64) float64 { return v }
	backPeak := func(r bigResult) float64 { return float64(r.BackPeak) }
	out := fmt.Sprintf("first snapshot of %v", b.Big)
	back := fmt.Sprintf("restore of %v", b.Big)
	figures := []figure{
		newFigure(out+" (plain: lz4 -1)", bytesPerSec, got, rate(func(r bigResult) time.Duration { return r.Out }), atLeastTimes(0.5)),
		newFigure(out+" (lz4 -1, fsync)", bytesPerSec, got, rate(func(r bigResult) time.Duration { return r.OutDurable }), goal{}),
		newFigure(back+" (plain: lz4 -d)", bytesPerSec, got, rate(func(r bigResult) time.Duration { return r.Back }), atLeastTimes(0.5)),
		newFigure(back+" (lz4 -d, fsync)", bytesPerSec, got, rate(func(r bigResult) time.Duration { return r.BackDurable }), goal{}),
	}
	if !haveLZ4 {
		for i := range figures {
			figures[i].note = needLZ4
		}
	}
	b.table.add(figures...)
	b.table.add(
		newFigure(out+": size stored, of the database", percent, got, func(r bigResult) float64 { return 100 * float64(r.Stored) / float64(r.Bytes) }, goal{}),
		newFigure(out+": memory over the base", amount, over, same, atMost(64e6)),
		newFigure(back+": peak memory", amount, got, backPeak, atMost(64e6)),
	)
	return nil
}

// bigBase opens and closes the database on the plain side: the memory of a process that only does that.
func (b *bench) bigBase(t target) (bigResult, error) {
	opened, err := ask[snapshotResult](b, "snapshot", t)
	return bigResult{OutPeak: opened.Peak}, err
}

func (b *bench) bigPlain(t target, dir, lz4 string) (bigResult, error) {
	r, err := b.bigBase(t)
	if err != nil {
		return r, err
	}
	packed, unpacked := filepath.Join(dir, "app.db.lz4"), filepath.Join(dir, "unpacked.db")
	step := func(file string, args ...string) (toolRun, time.Duration, error) {
		flushDisk()
		run, err := b.runTool(lz4, args...)
		if err != nil {
			return run, 0, err
		}
		more, err := fsyncFile(file)
		return run, run.Elapsed + more, err
	}
	out, durable, err := step(packed, "-1", "-f", "-q", t.DB, packed)
	if err != nil {
		return r, err
	}
	r.Out, r.OutDurable = out.Elapsed, durable
	back, durable, err := step(unpacked, "-d", "-f", "-q", packed, unpacked)
	if err != nil {
		return r, err
	}
	r.Back, r.BackDurable, r.BackPeak = back.Elapsed, durable, back.Peak
	return r, r.measureFiles(t, []string{packed}, unpacked)
}

func (b *bench) bigWalferry(t target, dir string) (r bigResult, err error) {
	shipped, err := ask[snapshotResult](b, "snapshot", t)
	if err != nil {
		return r, err
	}
	r.Out, r.OutDurable, r.OutPeak = shipped.Elapsed, shipped.Elapsed, shipped.Peak
	return r, b.bigRestore(&r, t, dir, b.Command)
}

// bigLitestream counts litestream's first upload from its start, with no application beside it.
func (b *bench) bigLitestream(t target, dir string) (r bigResult, err error) {
	flushDisk()
	begin := time.Now()
	l, err := b.startLitestream(dir, t)
	r.Out = time.Since(begin)
	r.OutDurable = r.Out
	if err = errors.Join(err, l.stop()); err != nil {
		return r, err
	}
	return r, b.bigRestore(&r, t, dir, b.Litestream)
}

// bigRestore restores the replica with a program that takes litestream's arguments.
func (b *bench) bigRestore(r *bigResult, t target, dir, program string) error {
	restored := filepath.Join(dir, "restored.db")
	flushDisk()
	run, err := b.runTool(program, "restore", "-o", restored, fileURL(t.Replica))
	if err != nil {
		return err
	}
	r.Back, r.BackDurable, r.BackPeak = run.Elapsed, run.Elapsed, run.Peak
	objects, err := objectNames(t.Replica)
	if err != nil {
		return err
	}
	return r.measureFiles(t, objects, restored)
}

// measureFiles fills in the sizes, and refuses a round whose result is not a database of the same
// size: what was fast because it was not done is no measurement.
func (r *bigResult) measureFiles(t target, stored []string, restored string) (err error) {
	if r.Bytes, err = fileSize(t.DB); err != nil {
		return err
	}
	if r.Stored, err = fileSize(stored...); err != nil {
		return err
	}
	got, err := fileSize(restored)
	if err == nil && got != r.Bytes {
		err = fmt.Errorf("%s has %d bytes, the database %d", restored, got, r.Bytes)
	}
	return err
}

// snapshotResult is what a child measured.
type snapshotResult struct {
	Elapsed time.Duration // from the open until everything is in the replica
	Peak    int64         // resident bytes
}

// snapshotChild: receives a target, says ready, opens and ships, sends a snapshotResult.
func snapshotChild(l *link) error {
	var t target
	if err := l.receive(&t); err != nil {
		return err
	}
	if err := l.ready(); err != nil {
		return err
	}
	begin := time.Now()
	c, err := t.open()
	if err != nil {
		return err
	}
	result := snapshotResult{Elapsed: time.Since(begin)}
	if result.Peak, err = ownPeak(); err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.Close(); err != nil {
		return err
	}
	return l.send(result)
}
