package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/walferry/walferry/internal/s3test"
)

// bench is one run: what was asked for, where it works, and the figures so far. One goroutine uses
// it; the watchers of a measurement have state of their own.
type bench struct {
	config
	ctx     context.Context // ends on SIGINT, and with it every process this program started
	scratch string          // removed by close
	exe     string          // this program, for the children
	table   table

	bases map[string]string // databases made once, by name, copied for each round
	next  int               // number of the next fresh directory
	s3    *s3test.Server    // started when it is first asked for
}

// measurement is one part of the report, chosen by -only.
type measurement struct {
	name string
	run  func(*bench) error
}

// measurements lists everything, in the order of the table.
func measurements() []measurement {
	all := writeMeasurements()
	all = append(all, readMeasurements()...)
	return append(all,
		measurement{"visible", measureVisible},
		measurement{"snapshot and restore", measureBig},
		measurement{"idle", measureIdle},
		measurement{"extension", measureExtension},
		measurement{"history: first snapshot", measureFirst},
		measurement{"history: levels", measureLevels},
		measurement{"history: restore", measureRestore},
		measurement{"history: many files", measureMany},
		measurement{"history: requests", measureRequests},
		measurement{"history: WAL", measureWAL},
		measurement{"replica", measureReplica},
	)
}

func newBench(ctx context.Context, cfg config) (*bench, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(dir, ".walferry-bench-")
	if err != nil {
		return nil, fmt.Errorf("make scratch directory: %w", err)
	}
	b := &bench{config: cfg, ctx: ctx, scratch: scratch, exe: exe, bases: map[string]string{}}
	b.table.sides = b.columns()
	return b, nil
}

// close ends what newBench and the measurements have started, and removes all their files.
func (b *bench) close() error {
	if b.s3 != nil {
		b.s3.Stop()
	}
	return os.RemoveAll(b.scratch)
}

// runAll takes the chosen measurements. A failure becomes a row of the table and part of the error,
// and the next measurement is taken all the same, unless the run was interrupted.
func (b *bench) runAll() error {
	var failures []error
	chosen := 0
	for _, m := range measurements() {
		if !b.Only.MatchString(m.name) {
			continue
		}
		chosen++
		begin := time.Now()
		b.progress("%s", m.name)
		err := m.run(b)
		if b.ctx.Err() != nil {
			return errors.Join(append(failures, errors.New("interrupted"))...)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", m.name, err))
			b.table.skip(m.name, "FAILED: "+err.Error())
		}
		b.progress("%s: done in %v", m.name, time.Since(begin).Round(100*time.Millisecond))
	}
	if chosen == 0 {
		return errors.New("-only matches no measurement")
	}
	return errors.Join(failures...)
}

// progress tells the person who waits what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// fresh makes an empty directory inside the scratch directory. The caller removes it when the
// measurement is over, so that a long run needs no more disk than a short one.
func (b *bench) fresh() (string, error) {
	b.next++
	dir := filepath.Join(b.scratch, fmt.Sprintf("%04d", b.next))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, nil
}

// notShipping is the result of what needs a replica in a run that has none.
const notShipping = "not measured: -control"

// samples holds, for each side, one result per round.
type samples[T any] map[side][]T

// compare measures every side once per round, forwards in even rounds and backwards in odd ones, each in
// a fresh directory.
func compare[T any](b *bench, sides []side, measure func(s side, dir string, round int) (T, error)) (samples[T], error) {
	return compareRounds(b, b.Rounds, sides, measure)
}

// compareRounds is compare with another number of rounds.
func compareRounds[T any](b *bench, rounds int, sides []side, measure func(s side, dir string, round int) (T, error)) (samples[T], error) {
	got := samples[T]{}
	for round := range rounds {
		b.progress("  round %d of %d", round+1, rounds)
		for i := range sides {
			if round%2 == 1 {
				i = len(sides) - 1 - i
			}
			result, err := measureIn(b, func(dir string) (T, error) { return measure(sides[i], dir, round) })
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", sides[i], round+1, err)
			}
			got[sides[i]] = append(got[sides[i]], result)
		}
	}
	return got, nil
}

// measureIn runs measure in a fresh directory and removes it.
func measureIn[T any](b *bench, measure func(dir string) (T, error)) (result T, err error) {
	if err := b.ctx.Err(); err != nil {
		return result, err
	}
	dir, err := b.fresh()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return measure(dir)
}
