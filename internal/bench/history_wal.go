package main

import (
	"errors"
	"fmt"
	"time"
)

// steadily is the pace of the writes beside an upload: they fill a WAL in little more than a second.
const steadily = 10 * time.Millisecond

// pageUpdates is the write load that changes pages all over a database, and lets it stay as large.
const pageUpdates = 2

// growth is how far a WAL grew, and the commits that were made meanwhile.
type growth struct {
	WAL int64
	Ops int
}

// upload is a snapshot of which the effect on the WAL is measured.
type upload struct {
	name  string
	later bool // one that snapshot_interval asks for, not the first
}

// measureWAL lets a snapshot upload slowly beside an application that writes, and compares the largest
// WAL with that of the same writes without any of it.
func measureWAL(b *bench) error {
	if b.Control {
		b.table.skip("WAL while a snapshot uploads", notShipping)
		return nil
	}
	for _, u := range []upload{{name: "the first"}, {name: "a later", later: true}} {
		got, ops := samples[growth]{}, 1
		for _, s := range append(b.shippers(), plain) {
			if u.later && s == litestream {
				continue // it makes one from the replica
			}
			b.progress("  %s snapshot, %s", u.name, s)
			g, err := measureIn(b, func(dir string) (growth, error) {
				if s == plain {
					return b.walOf(b.target(plain, dir), ops, nil)
				}
				return b.walBeside(s, dir, u)
			})
			if err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
			got[s], ops = []growth{g}, max(ops, g.Ops)
		}
		b.table.add(newFigure(
			fmt.Sprintf("history: largest WAL while %s snapshot of %v uploads at %v/s", u.name, b.Big, size(b.Uplink)),
			amount, got, func(g growth) float64 { return float64(g.WAL) }, atMostTimes(1.2)))
	}
	return nil
}

// walBeside measures one side with a slow way to a bucket of its own.
func (b *bench) walBeside(s side, dir string, u upload) (g growth, err error) {
	k, err := b.bucket()
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, k.remove()) }()
	link, err := startSlow(b.s3.Endpoint, uplink(b.Uplink))
	if err != nil {
		return g, err
	}
	defer link.close()
	t := b.target(s, dir)
	t.S3 = k
	if err := b.copyBase(b.Big, t); err != nil {
		return g, err
	}
	snapshots, levels := 1, []int{9}
	if s == litestream {
		levels = []int{0, 9} // its first object of level 0 holds everything too
	}
	if u.later {
		// The first goes there fast.
		if _, err := ask[snapshotResult](b, "snapshot", t); err != nil {
			return g, err
		}
		t.SnapshotInterval = time.Second
		snapshots = 2
	}
	t.S3 = k.through(link.Endpoint)
	return b.walOf(t, maxOps, func() (err error) {
		if s == litestream {
			l, err := b.launchLitestream(dir, "", t)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.stop()) }()
		}
		return b.waitForObjects(t, snapshots, levels...)
	})
}

// walOf writes at a steady pace until beside returns, or ops commits, and watches the WAL.
func (b *bench) walOf(t target, ops int, beside func() error) (g growth, err error) {
	if t.Side == plain {
		if err := b.copyBase(b.Big, t); err != nil {
			return g, err
		}
	}
	t.Sync = "NORMAL"
	c, err := b.startChild("paced", pacedSpec{Target: t, Load: pageUpdates, Every: steadily, Ops: ops})
	if err != nil {
		return g, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return g, err
	}
	wal := watchSize(b.ctx, t.DB+"-wal")
	defer wal.close()
	if err := c.start(); err != nil {
		return g, err
	}
	if beside != nil {
		if err := beside(); err != nil {
			return g, err
		}
		if err := c.send(cue{}); err != nil {
			return g, err
		}
	}
	var done pacedResult
	if err := c.receive(&done); err != nil {
		return g, err
	}
	return growth{WAL: wal.close(), Ops: done.Ops}, nil
}
