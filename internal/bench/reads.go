package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mattn/go-sqlite3"
)

// readLoad is one way of reading the mid-sized database. SQLite's own cache keeps its default of
// 2 MB, so that nearly every page comes through the VFS.
type readLoad struct {
	name string
	mmap bool
	scan bool
}

var readLoads = []readLoad{
	{name: "point reads"},
	{name: "full scan", scan: true},
	{name: "mmap point reads", mmap: true},
	{name: "mmap full scan", mmap: true, scan: true},
}

// readLimit bounds how long a child reads; the number of reads is fixed, and this is never reached
// unless something is very slow.
const readLimit = 2 * time.Minute

// readSpec tells a child what to read.
type readSpec struct {
	Target target
	Scan   bool
	Ops    int // reads, or scans
	Round  int // seeds the choice of rows
}

// readResult is what a child measured.
type readResult struct {
	Ops     int
	Elapsed time.Duration
	P50     int64 // of one read or scan, nanoseconds
}

func (r readResult) rate() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

func readMeasurements() []measurement {
	var all []measurement
	for _, load := range readLoads {
		all = append(all, measurement{load.name, func(b *bench) error { return measureReads(b, load) }})
	}
	return all
}

func measureReads(b *bench, load readLoad) error {
	// Some 2 us a point read and 100 ms a scan of 100 MB: one to two seconds each.
	ops := int(400_000 * b.Load.Seconds() / full.Load.Seconds())
	if load.scan {
		ops = max(int(24*b.Load.Seconds()/full.Load.Seconds()), 3)
	}
	got, err := compare(b, b.sides(), func(s side, dir string, round int) (readResult, error) {
		t := b.target(s, dir)
		if load.mmap {
			t.MmapSize = int64(b.Mid) * 2
		}
		return b.read(dir, readSpec{Target: t, Scan: load.scan, Ops: ops, Round: round})
	})
	if err != nil {
		return err
	}
	b.table.add(newFigure(load.name+": median time", duration, got,
		func(r readResult) float64 { return float64(r.P50) }, within(0.02)))
	if !load.scan {
		b.table.add(newFigure(load.name+": throughput", perSecond, got, readResult.rate, withinRate(0.02)))
	}
	return nil
}

// read runs one child on a fresh copy of the mid-sized database.
func (b *bench) read(dir string, spec readSpec) (result readResult, err error) {
	if err := b.copyBase(b.Mid, spec.Target); err != nil {
		return result, err
	}
	c, err := b.startChild("read", spec)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return result, err
	}
	if spec.Target.Side == litestream {
		l, err := b.startLitestream(dir, spec.Target)
		if err != nil {
			return result, err
		}
		defer func() { err = errors.Join(err, l.stop()) }()
	}
	if err := c.start(); err != nil {
		return result, err
	}
	err = c.receive(&result)
	return result, err
}

// readChild: receives a readSpec, opens, says ready, goes, sends a readResult.
func readChild(l *link) error {
	var spec readSpec
	if err := l.receive(&spec); err != nil {
		return err
	}
	c, err := spec.Target.open()
	if err != nil {
		return err
	}
	rows, err := c.value("SELECT max(id) FROM rows")
	if err != nil {
		return err
	}
	query := "SELECT v FROM rows WHERE id = ?"
	if spec.Scan {
		query = "SELECT sum(length(v)) FROM rows"
	}
	stmt, err := c.prepare(query)
	if err != nil {
		return err
	}
	// One pass fills the operating system's cache, so that the disk is not what is compared.
	if _, err := c.value("SELECT sum(length(v)) FROM rows"); err != nil {
		return err
	}
	latencies := make([]int64, spec.Ops)
	for i := range latencies {
		latencies[i] = -1
	}
	if err := l.ready(); err != nil {
		return err
	}

	begin := time.Now()
	err = reads(stmt, spec, rows.(int64), latencies)
	result := readResult{Ops: spec.Ops, Elapsed: time.Since(begin)}
	if err = errors.Join(err, stmt.Close(), c.Close()); err != nil {
		return err
	}
	slices.Sort(latencies)
	result.P50 = percentile(latencies, 50)
	return l.send(result)
}

// reads runs the statement once per latency, with a random row where it takes one.
func reads(stmt *sqlite3.SQLiteStmt, spec readSpec, rows int64, latencies []int64) error {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(uint64(spec.Round), 5))
	args := bind(make([]driver.Value, stmt.NumInput())...)
	begin := time.Now()
	for i := range latencies {
		if !spec.Scan {
			args[0].Value = 1 + rng.Int64N(rows)
		}
		start := time.Now()
		result, err := stmt.QueryContext(ctx, args)
		if err != nil {
			return err
		}
		if _, err := firstValue(result); err != nil {
			return err
		}
		end := time.Now()
		latencies[i] = int64(end.Sub(start))
		if end.Sub(begin) > readLimit {
			return fmt.Errorf("only %d of %d reads in %v", i+1, len(latencies), readLimit)
		}
	}
	return nil
}
