package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// farAway is the round trip to the server of the long history.
const farAway = 20 * time.Millisecond

// restoreResult is one round of one program with a replica.
type restoreResult struct {
	Elapsed time.Duration
	Over    float64 // memory beyond the base; of walferry only
}

// measureRestore restores the same replica, which walferry has written, with both programs: from a
// directory and from the S3 server.
func measureRestore(b *bench) error {
	if b.Control {
		b.table.skip("restore", notShipping)
		return nil
	}
	return b.withSnapshot(b.Big, func(inDir, inS3 target) error {
		for _, from := range []struct {
			t    target
			name string
		}{{inDir, "a directory"}, {inS3, "S3"}} {
			name := fmt.Sprintf("history: restore of %v from %s", b.Big, from.name)
			got, err := b.restores(b.repeats(), from.t, from.t.url())
			if err != nil {
				return fmt.Errorf("from %s: %w", from.name, err)
			}
			b.addRestore(name, got, 0.3)
		}
		return nil
	})
}

// measureMany restores a snapshot and a long tail of small objects from a server that is not near.
func measureMany(b *bench) error {
	if b.Control {
		b.table.skip("many files", notShipping)
		return nil
	}
	return b.withSnapshot(b.Mid, func(_, inS3 target) (err error) {
		if err := plantCommits(inS3.DB, inS3, b.Files, aFewPages); err != nil {
			return err
		}
		link, err := startSlow(b.s3.Endpoint, away(farAway))
		if err != nil {
			return err
		}
		defer link.close()
		got, err := b.restores(b.repeats(), inS3, inS3.S3.through(link.Endpoint).URL)
		if err != nil {
			return err
		}
		b.addRestore(fmt.Sprintf("history: restore of a snapshot of %v and %s files, %v away", b.Mid, count(float64(b.Files)), farAway), got, 0.2)
		return nil
	})
}

func (b *bench) addRestore(name string, got samples[restoreResult], limit float64) {
	ours := samples[restoreResult]{walferry: got[walferry]}
	b.table.add(
		newFigureTo(litestream, name, duration, got, func(r restoreResult) float64 { return float64(r.Elapsed) }, atMostTimes(limit)),
		newFigure(name+": memory over the base", amount, ours, func(r restoreResult) float64 { return r.Over }, overBase),
	)
}

// withSnapshot calls use with two replicas that hold the same first snapshot of a database, in a
// directory and in a bucket. Both targets name the database, which nobody opens.
func (b *bench) withSnapshot(bytes size, use func(inDir, inS3 target) error) error {
	_, err := measureIn(b, func(dir string) (_ struct{}, err error) {
		k, err := b.bucket()
		if err != nil {
			return struct{}{}, err
		}
		defer func() { err = errors.Join(err, k.remove()) }()
		inDir := b.target(walferry, dir)
		if err := b.copyBase(bytes, inDir); err != nil {
			return struct{}{}, err
		}
		if _, err := ask[snapshotResult](b, "snapshot", inDir); err != nil {
			return struct{}{}, err
		}
		inS3 := inDir
		inS3.S3 = k
		for _, level := range allLevels {
			objects, err := inDir.objects(level)
			if err != nil {
				return struct{}{}, err
			}
			for _, o := range objects {
				if err := plant(o, inS3, level); err != nil {
					return struct{}{}, err
				}
			}
		}
		return struct{}{}, use(inDir, inS3)
	})
	return err
}

// restores restores the replica at url with each program. t says which database must come out of it.
func (b *bench) restores(rounds int, t target, url string) (samples[restoreResult], error) {
	return compareRounds(b, rounds, b.shippers(), func(s side, dir string, _ int) (r restoreResult, err error) {
		program := b.Command
		if s == litestream {
			program = b.Litestream
		}
		out := filepath.Join(dir, "restored.db")
		flushDisk()
		run, err := b.runTool(program, "restore", "-o", out, url)
		if err != nil {
			return r, err
		}
		r.Elapsed = run.Elapsed
		if err := sameContent(t.DB, out); err != nil {
			return r, err
		}
		if s == walferry {
			r.Over, err = b.overIdle(run, "restore", "-if-replica-exists", "-o", filepath.Join(dir, "none.db"), nothing(dir))
		}
		return r, err
	})
}

// sameContent refuses a file that is not the other: what was fast because it was not done, or done
// wrong, is no measurement.
func sameContent(want, got string) error {
	a, err := os.Open(want)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		return err
	}
	defer b.Close()
	one, other := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(one)) {
		n, errA := io.ReadFull(a, one)
		m, errB := io.ReadFull(b, other)
		if n != m || !bytes.Equal(one[:n], other[:m]) {
			return fmt.Errorf("%s is not what %s is, in the MiB from byte %d on", got, want, at)
		}
		if errA != nil || errB != nil {
			ended := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			if ended(errA) && ended(errB) {
				return nil
			}
			return errors.Join(errA, errB)
		}
	}
}
