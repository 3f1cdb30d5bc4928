package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mattn/go-sqlite3"
)

// writeLoad is a kind of commit, one statement each, so that the time of a statement is that of its
// whole transaction.
type writeLoad struct {
	name string
	sql  string
	big  bool // works on the mid-sized database
	args func(i int, rng *rand.Rand, rows int64, args []driver.NamedValue)
}

var writeLoads = []writeLoad{
	{
		name: "one-row commits", sql: "INSERT INTO events(v) VALUES(?)",
		args: func(i int, _ *rand.Rand, _ int64, args []driver.NamedValue) {
			args[0].Value = payloads[i%len(payloads)]
		},
	},
	{name: "100-row commits", sql: "INSERT INTO events(v) SELECT v FROM source"},
	{
		name: "8-page updates", sql: "UPDATE rows SET n = n + 1 WHERE id IN (?,?,?,?,?,?,?,?)", big: true,
		args: func(_ int, rng *rand.Rand, rows int64, args []driver.NamedValue) {
			for i := range args {
				args[i].Value = 1 + rng.Int64N(rows)
			}
		},
	},
}

// payloads are made before any clock runs.
var payloads = func() []string {
	all := make([]string, 64)
	for i := range all {
		all[i] = payload(i)
	}
	return all
}()

// writeSpec tells a child what to write.
type writeSpec struct {
	Target target
	Load   int           // index in writeLoads
	Ops    int           // commits to make
	Limit  time.Duration // end earlier after this long; 0: never
	Round  int           // seeds the choice of pages: the sides of a round write the same ones
}

// writeResult is what a child measured of itself; times are in nanoseconds.
type writeResult struct {
	Ops           int
	Elapsed       time.Duration // of the commits, without opening and closing
	CPU           time.Duration // from the first commit until after the close, and so all shipping
	P50, P99, Max int64         // of one commit
	Peak          int64         // resident bytes
	WAL           int64         // largest size seen; the parent fills it in
	Objects       int           // that came into the replica meanwhile; the parent fills it in
}

func (r writeResult) rate() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }
func (r writeResult) cpu() float64  { return float64(r.CPU) / float64(r.Ops) }

// writeChild: receives a writeSpec, opens, says ready, goes, closes, sends a writeResult.
func writeChild(l *link) error {
	var spec writeSpec
	if err := l.receive(&spec); err != nil {
		return err
	}
	c, err := spec.Target.open()
	if err != nil {
		return err
	}
	load := writeLoads[spec.Load]
	stmt, err := c.prepare(load.sql)
	if err != nil {
		return err
	}
	rows := int64(0)
	if load.big {
		v, err := c.value("SELECT max(id) FROM rows")
		if err != nil {
			return err
		}
		rows = v.(int64)
	}
	latencies := make([]int64, spec.Ops)
	for i := range latencies {
		latencies[i] = -1 // have the memory now: a page fault is not a slow commit
	}
	if err := l.ready(); err != nil {
		return err
	}

	before, err := ownCPU()
	if err != nil {
		return err
	}
	begin := time.Now()
	done, err := commits(stmt, load, spec, rows, latencies)
	elapsed := time.Since(begin)
	if err = errors.Join(err, stmt.Close(), c.Close()); err != nil {
		return err
	}
	after, err := ownCPU()
	if err != nil {
		return err
	}
	result := writeResult{Ops: done, Elapsed: elapsed, CPU: after - before}
	latencies = latencies[:done]
	slices.Sort(latencies)
	result.P50, result.P99, result.Max = percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 100)
	if result.Peak, err = ownPeak(); err != nil {
		return err
	}
	return l.send(result)
}

// commits runs the load, notes how long each commit took, and returns how many there were.
func commits(stmt *sqlite3.SQLiteStmt, load writeLoad, spec writeSpec, rows int64, latencies []int64) (int, error) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(uint64(spec.Round), 4))
	args := bind(make([]driver.Value, stmt.NumInput())...)
	begin := time.Now()
	for i := range latencies {
		if load.args != nil {
			load.args(i, rng, rows, args)
		}
		start := time.Now()
		if _, err := stmt.ExecContext(ctx, args); err != nil {
			return i, err
		}
		end := time.Now()
		latencies[i] = int64(end.Sub(start))
		if spec.Limit > 0 && end.Sub(begin) > spec.Limit {
			return i + 1, nil
		}
	}
	return len(latencies), nil
}
