package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// needLitestream is the result of a goal that is stated against litestream, in a run without it.
const needLitestream = "not judged: give LITESTREAM=path"

// overBase is the goal for memory beyond that of a process that has nothing to do.
var overBase = atMost(64e6)

// repeats is the number of rounds of what takes minutes.
func (b *bench) repeats() int { return min(b.Rounds, b.Repeats) }

// firstResult is one round of a first snapshot into a directory.
type firstResult struct {
	Elapsed time.Duration // until the whole database is in the replica
	Peak    int64         // resident bytes of the process that ships; on the plain side of one that opens
}

// measureFirst compares first snapshots. litestream's is over with its first object, which holds the
// whole database; it copies that to its levels and snapshots later.
func measureFirst(b *bench) error {
	if b.Control {
		b.table.skip("first snapshot", notShipping)
		return nil
	}
	got, err := compareRounds(b, b.repeats(), b.sides(), func(s side, dir string, _ int) (firstResult, error) {
		t := b.target(s, dir)
		if err := b.copyBase(b.Big, t); err != nil {
			return firstResult{}, err
		}
		if s == litestream {
			return b.firstLitestream(t, dir)
		}
		r, err := ask[snapshotResult](b, "snapshot", t)
		return firstResult(r), err
	})
	if err != nil {
		return err
	}
	over := samples[float64]{}
	for i, r := range got[walferry] {
		over[walferry] = append(over[walferry], float64(r.Peak-got[plain][i].Peak))
	}
	delete(got, plain) // which did nothing
	name := fmt.Sprintf("history: first snapshot of %v to a directory", b.Big)
	b.table.add(
		newFigureTo(litestream, name, duration, got, func(r firstResult) float64 { return float64(r.Elapsed) }, atMostTimes(0.3)),
		newFigure(name+": memory over the base", amount, over, itself, overBase),
	)
	return nil
}

// firstLitestream times litestream from its start, with no application beside it.
func (b *bench) firstLitestream(t target, dir string) (r firstResult, err error) {
	flushDisk()
	begin := time.Now()
	l, err := b.startLitestream(dir, t)
	r.Elapsed = time.Since(begin)
	if err != nil {
		return r, err
	}
	r.Peak, _, err = memory(l.cmd.Process.Pid)
	if stopped := l.stop(); err == nil {
		err = stopped
	}
	return r, err
}

func itself(v float64) float64 { return v }

// overIdle is how much more memory a run of the walferry command took than a run of the same
// command had to take, which had nothing to do.
func (b *bench) overIdle(run toolRun, idle ...string) (float64, error) {
	base, err := b.runTool(b.Command, idle...)
	return float64(run.Peak - base.Peak), err
}

// nothing is the URL of a replica that does not exist.
func nothing(dir string) string { return fileURL(filepath.Join(dir, "nothing")) }
