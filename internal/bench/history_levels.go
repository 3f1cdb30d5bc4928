package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// mergeInputs is how many level 0 objects a merge of the whole database has.
const mergeInputs = 16

// oneCopy is the goal for the bucket: beside the snapshot there may be no more than an object with
// some page of it, such as page 1, at each level.
const oneCopy = 1.001

// levelsResult is what the levels of a replica came to.
type levelsResult struct {
	Copies float64       // bytes of all objects / bytes of the first snapshot
	Merge  time.Duration // of as many bytes as the database has, and a new snapshot
	Over   float64       // memory of that beyond its base
}

// measureLevels compares what a first snapshot takes in the bucket when all levels have been merged,
// and measures a merge of the whole database. litestream's merges have no time of their own: they
// run in the process that replicates.
func measureLevels(b *bench) error {
	if b.Control {
		b.table.skip("levels", notShipping)
		return nil
	}
	got, err := compareRounds(b, 1, b.shippers(), func(s side, dir string, _ int) (levelsResult, error) {
		t := b.target(s, dir)
		if err := b.copyBase(b.Big, t); err != nil {
			return levelsResult{}, err
		}
		if s == litestream {
			return b.levelsLitestream(t, dir)
		}
		return b.levelsWalferry(t, dir)
	})
	if err != nil {
		return err
	}
	ours := samples[levelsResult]{walferry: got[walferry]}
	merge := fmt.Sprintf("history: merge %v and make a snapshot", b.Big)
	b.table.add(
		newFigure("history: bytes in the bucket for a first snapshot, all levels merged", copies, got, func(r levelsResult) float64 { return r.Copies }, atMost(oneCopy)),
		newFigure(merge, duration, ours, func(r levelsResult) float64 { return float64(r.Merge) }, goal{}),
		newFigure(merge+": memory over the base", amount, ours, func(r levelsResult) float64 { return r.Over }, overBase),
	)
	return nil
}

func (b *bench) levelsWalferry(t target, dir string) (r levelsResult, err error) {
	if _, err := ask[snapshotResult](b, "snapshot", t); err != nil {
		return r, err
	}
	first, err := t.stored(9)
	if err != nil {
		return r, err
	}
	if _, err := b.runTool(b.Command, "compact", t.url()); err != nil {
		return r, err
	}
	all, err := t.stored(allLevels...)
	if err != nil {
		return r, err
	}
	if first == 0 {
		return r, errors.New("there is no snapshot")
	}
	r.Copies = float64(all) / float64(first)

	// Every page is written again, in a few large commits. The levels begin anew, as each is merged
	// only once in 30 s or longer.
	for _, level := range []int{1, 2, 3} {
		if err := os.RemoveAll(t.level(level)); err != nil {
			return r, err
		}
	}
	if err := plantCommits(t.DB, t, mergeInputs, partOf(mergeInputs)); err != nil {
		return r, err
	}
	flushDisk()
	run, err := b.runTool(b.Command, "compact", "-snapshot", t.url())
	if err != nil {
		return r, err
	}
	r.Merge = run.Elapsed
	for _, level := range []int{1, 9} {
		now, err := t.stored(level)
		if err == nil && now < first {
			err = fmt.Errorf("level %d has %d bytes after the merge, a snapshot %d", level, now, first)
		}
		if err != nil {
			return r, err
		}
	}
	// What was due is done, so that another run has nothing to do but look.
	r.Over, err = b.overIdle(run, "compact", t.url())
	return r, err
}

// hurry makes litestream merge its levels one after the other within seconds instead of an hour, and
// make its snapshot then. It changes when, not what.
const hurry = "levels:\n  - interval: 1s\n  - interval: 2s\n  - interval: 3s\nsnapshot:\n  interval: 4s\n"

func (b *bench) levelsLitestream(t target, dir string) (r levelsResult, err error) {
	l, err := b.launchLitestream(dir, hurry, t)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	for _, level := range allLevels {
		if err := b.waitForObjects(t, 1, level); err != nil {
			return r, err
		}
	}
	first, err := t.stored(0)
	if err != nil {
		return r, err
	}
	all, err := t.stored(allLevels...)
	r.Copies = float64(all) / float64(max(first, 1))
	return r, err
}
