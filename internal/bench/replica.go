package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/walferry/walferry/internal/compact"
	"github.com/walferry/walferry/internal/objstore"
)

// needLitestreamVFS is the result of a goal that is stated against it, in a run without it.
const needLitestreamVFS = "not judged: give LITESTREAM_VFS=path (make litestream-vfs)"

// replica is a bucket that is read where it lies, and the database whose content it has.
type replica struct {
	local target
	url   string // through a slow way, behind which proxy counts
	proxy *counter
	rows  int64
}

// tail is what follows the snapshot: of how many small commits the merged objects and the level 0
// ones are, as an hour of an application leaves them.
var tail = []struct{ level, commits int }{{3, 300}, {2, 200}, {1, 30}, {1, 30}, {0, 15}}

// withReplica calls use with a replica of the big database, far away.
func (b *bench) withReplica(use func(replica) error) error {
	return b.withSnapshot(b.Big, func(inDir, inS3 target) (err error) {
		if err := plantTail(b.ctx, inDir); err != nil {
			return err
		}
		for _, level := range []int{0, 1, 2, 3} {
			objects, err := inDir.objects(level)
			if err != nil {
				return err
			}
			for _, o := range objects {
				if err := plant(o, inS3, level); err != nil {
					return err
				}
			}
		}
		proxy, err := b.count(b.s3.Endpoint)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, proxy.close()) }()
		link, err := startSlow(proxy.Endpoint, away(farAway))
		if err != nil {
			return err
		}
		defer link.close()
		r := replica{local: inDir, url: inS3.S3.through(link.Endpoint).URL, proxy: proxy}
		r.local.Side = plain
		if r.rows, err = r.local.rows(); err != nil {
			return err
		}
		return use(r)
	})
}

// plantTail puts tail behind the snapshot of a replica in a directory: small commits, which walferry
// merges. As after a while, level 0 has those of level 1 still.
func plantTail(ctx context.Context, to target) error {
	store, err := objstore.New(to.url(), objstore.Options{})
	if err != nil {
		return err
	}
	newest, err := to.newest()
	if err != nil {
		return err
	}
	total := 0
	for _, part := range tail {
		total += part.commits
	}
	if err := plantCommits(to.DB, to, total, aFewPages); err != nil {
		return err
	}
	commits, err := store.List(ctx, 0, newest+1)
	if err != nil {
		return err
	}
	for _, part := range tail {
		inputs := commits[:part.commits]
		commits = commits[part.commits:]
		if part.level == 0 {
			continue
		}
		if _, err := compact.Merge(ctx, store, inputs, part.level, filepath.Dir(to.DB)); err != nil {
			return err
		}
		if part.level > 1 {
			if err := store.RemoveAll(ctx, inputs); err != nil {
				return err
			}
		}
	}
	return nil
}

// rows is the largest id of the target's table.
func (t target) rows() (n int64, err error) {
	c, err := t.connect()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	v, err := c.value("SELECT max(id) FROM rows")
	if err != nil {
		return 0, err
	}
	return v.(int64), nil
}

// readers are the sides that read.
func (b *bench) readers() []side {
	all := []side{plain, walferry}
	if b.LitestreamVFS != "" {
		all = append(all, litestream)
	}
	return all
}

// replicaResult is what two processes of one side measured in one round.
type replicaResult struct {
	Open, Cold, Warm phase // of the first
	Part             phase // of the second
	All              phase // of the second; not of litestream, which would take hours
}

// measureReplica reads with each side what the local file has. The plain side reads that file, and says
// what must come out.
func measureReplica(b *bench) error {
	if b.Control {
		b.table.skip("replica", notShipping)
		return nil
	}
	return b.withReplica(func(from replica) error {
		want := map[int]replicaResult{} // by round
		got, err := compareRounds(b, b.repeats(), b.readers(), func(s side, dir string, round int) (replicaResult, error) {
			r, err := b.readReplica(s, dir, from, round)
			if w, known := want[round]; err == nil && known {
				err = r.same(w)
			}
			want[round] = r
			return r, err
		})
		if err != nil {
			return err
		}
		b.table.add(replicaFigures(b.reading, fmt.Sprintf("replica of %v, %v away", b.Big, farAway), got)...)

		b.progress("  idle, %v", b.Idle)
		remote := slices.DeleteFunc(b.readers(), func(s side) bool { return s == plain })
		idle, err := compareRounds(b, 1, remote, func(s side, dir string, _ int) (int64, error) { return b.idleReplica(s, dir, from) })
		if err != nil {
			return err
		}
		b.table.add(newFigure(fmt.Sprintf("replica: requests in %v without a read", b.Idle), count, idle,
			func(n int64) float64 { return float64(n) }, atMost(0)))
		return nil
	})
}

// same refuses a result that is not what another side read.
func (r replicaResult) same(w replicaResult) error {
	if r.Cold.Check != w.Cold.Check || r.Part.Check != w.Part.Check {
		return errors.New("it has read something else than the other side")
	}
	return nil
}

// readReplica runs one side. Every process has an empty cache of its own; that of the operating system
// has the server's files in it.
func (b *bench) readReplica(s side, dir string, from replica, round int) (result replicaResult, err error) {
	rng := rand.New(rand.NewPCG(uint64(round), 11))
	ids := make([]int64, b.Points)
	for i := range ids {
		ids[i] = 1 + rng.Int64N(from.rows)
	}
	err = b.withReader(s, dir, from, ids, func(r *reader) (err error) {
		if result.Open, err = r.do(readerStep{Do: "open"}); err != nil {
			return err
		}
		if result.Cold, err = r.do(readerStep{Do: "points"}); err != nil {
			return err
		}
		result.Warm, err = r.do(readerStep{Do: "warm", Seconds: b.Warm.Seconds()})
		return err
	})
	if err != nil {
		return result, err
	}
	err = b.withReader(s, dir, from, nil, func(r *reader) (err error) {
		if _, err = r.do(readerStep{Do: "open"}); err != nil {
			return err
		}
		first := from.rows / 3
		part := int64(float64(from.rows) * float64(b.Part) / float64(b.Big))
		if result.Part, err = r.do(readerStep{Do: "scan", From: first, To: first + part}); err != nil || s == litestream {
			return err
		}
		result.All, err = r.do(readerStep{Do: "scan", From: 1, To: from.rows})
		return err
	})
	return result, err
}

// withReader calls use with a reader, and ends it.
func (b *bench) withReader(s side, dir string, from replica, ids []int64, use func(*reader) error) error {
	r, err := b.startReader(s, dir, from, ids)
	if err != nil {
		return err
	}
	return errors.Join(use(r), r.end())
}

// replicaFigures condenses the results.
func replicaFigures(how reading, name string, got samples[replicaResult]) []figure {
	theirs := func(what string, u unit, pick func(replicaResult) float64, g goal) figure {
		without := samples[replicaResult]{}
		for s, results := range got {
			if s != plain {
				without[s] = results
			}
		}
		f := newFigureTo(litestream, name+": "+what, u, without, pick, g)
		if len(got[litestream]) == 0 && g.kind != noGoal {
			f.note = needLitestreamVFS
		}
		return f
	}
	open := func(r replicaResult) phase { return r.Open }
	cold := func(r replicaResult) phase { return r.Cold }
	part := func(r replicaResult) phase { return r.Part }
	points := fmt.Sprintf("%s random point reads", count(float64(how.Points)))
	scan := fmt.Sprintf("scan of %v of it, cold", how.Part)
	figures := []figure{
		theirs("open to first row", duration, elapsed(open), atMostTimes(0.5)),
		theirs("open to first row, requests", count, asked(open), atMostTimes(0.5)),
		theirs("open to first row, bytes", amount, moved(open), goal{}),
		theirs("memory after open", amount, func(r replicaResult) float64 { return float64(r.Open.Grown) }, atMostTimes(0.5)),
		theirs(points+", cold", duration, elapsed(cold), atMostTimes(0.7)),
		theirs(points+", cold, bytes", amount, moved(cold), atMostTimes(1)),
		theirs(points+", cold, requests", count, asked(cold), goal{}),
		newFigure(name+": the same, warm", perSecond, got, func(r replicaResult) float64 {
			return float64(r.Warm.Reads) / r.Warm.Elapsed.Seconds()
		}, atLeastTimes(0.5)),
		theirs(scan, duration, elapsed(part), atMostTimes(0.25)),
		theirs(scan+", bytes", amount, moved(part), goal{}),
		theirs(scan+", requests", count, asked(part), goal{}),
	}
	whole := samples[replicaResult]{plain: got[plain], walferry: got[walferry]}
	all := func(r replicaResult) phase { return r.All }
	return append(figures,
		newFigure(name+": scan of all of it, cold (plain: warm)", duration, whole, elapsed(all), goal{}),
		newFigure(name+": scan of all of it, cold, bytes", amount, samples[replicaResult]{walferry: got[walferry]}, moved(all), goal{}),
		newFigure(name+": scan of all of it, cold, requests", count, samples[replicaResult]{walferry: got[walferry]}, asked(all), goal{}),
	)
}

func elapsed(pick func(replicaResult) phase) func(replicaResult) float64 {
	return func(r replicaResult) float64 { return float64(pick(r).Elapsed) }
}

func asked(pick func(replicaResult) phase) func(replicaResult) float64 {
	return func(r replicaResult) float64 { return float64(pick(r).Requests) }
}

func moved(pick func(replicaResult) phase) func(replicaResult) float64 {
	return func(r replicaResult) float64 { return float64(pick(r).Bytes) }
}

// idleReplica counts the requests of a replica that is open and that nobody reads.
func (b *bench) idleReplica(s side, dir string, from replica) (n int64, err error) {
	err = b.withReader(s, dir, from, nil, func(r *reader) error {
		if _, err := r.do(readerStep{Do: "open"}); err != nil {
			return err
		}
		// What the first row has set in motion comes to rest.
		if err := b.sleep(2 * time.Second); err != nil {
			return err
		}
		before := from.proxy.traffic()
		if err := b.sleep(b.Idle); err != nil {
			return err
		}
		n = from.proxy.traffic().requests - before.requests
		return nil
	})
	return n, err
}
