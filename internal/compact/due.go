package compact

import (
	"cmp"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// every is how often levels 1 to 3 are merged, on multiples of the wall clock:
// Litestream's numbers, so that either goes on where the other stopped.
var every = [...]time.Duration{1: 30 * time.Second, 2: 5 * time.Minute, 3: time.Hour}

// Job is a merge that is due.
type Job struct {
	Level  int
	Inputs []objstore.Object
}

// Due returns the merges that levels 1 to 3 are due for, given all levels as they
// are listed, the lowest level first. A level takes all that the one below it
// has and it has not, once in each of its slots of the clock: not while its newest object
// is of the present one. What a merge makes may be due for the next level, so the caller
// lists again until nothing is.
//
// Where objects are missing, there is a job for each run without a gap. Where objects
// overlap because several compact, each run takes those that reach furthest.
func Due(levels [objstore.SnapshotLevel + 1][]objstore.Object, now time.Time) []Job {
	var jobs []Job
	for level := 1; level < len(every); level++ {
		end, early := ltx.TXID(0), false
		slot := now.Truncate(every[level])
		for _, o := range levels[level] {
			if o.Max <= end {
				continue
			}
			// A time far ahead is of another clock, and says nothing.
			end = o.Max
			early = !o.ModTime.Before(slot) && o.ModTime.Before(now.Add(every[level]))
		}
		if early {
			continue
		}
		for _, run := range runs(levels[level-1], end) {
			jobs = append(jobs, Job{level, run})
		}
	}
	return jobs
}

// runs are the objects that lead on from a TXID, a slice for each stretch of
// history without a gap.
func runs(objs []objstore.Object, have ltx.TXID) (all [][]objstore.Object) {
	objs = slices.Clone(objs)
	slices.SortFunc(objs, func(a, b objstore.Object) int {
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	var run []objstore.Object
	for i := 0; ; {
		// The furthest of those that go on from here, and of these the shortest.
		best := -1
		for ; i < len(objs) && objs[i].Min <= have+1; i++ {
			if objs[i].Max > have && (best < 0 || objs[i].Max >= objs[best].Max) {
				best = i
			}
		}
		if best >= 0 {
			run = append(run, objs[best])
			have = objs[best].Max
			continue
		}
		if len(run) > 0 {
			all, run = append(all, run), nil
		}
		if i == len(objs) {
			return all
		}
		have = objs[i].Min - 1
	}
}
