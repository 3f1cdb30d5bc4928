package history

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// Policy says what of a history is kept. A zero value keeps all of its kind.
type Policy struct {
	Retention Limits
	L0        time.Duration // level-0 files that are merged are kept for this long
	Marks     time.Duration // marks, and what they name, are kept for this long
}

// Expired returns what a policy does not keep, the oldest first. What is left restores
// the newest state, every mark that is kept, and any moment of the retention time as merged
// files tell it. Since more objects never make less restorable, that holds as well
// after any part of it was removed, in any order.
//
//   - The base is the newest snapshot as old as the retention time. Snapshots before it and
//     files that end at or before it go, level-0 files not before they are L0 old. With no
//     snapshot as old as that nothing goes on its account.
//   - Level-0 files that are merged go when they are L0 old.
//   - Where sizes or points are too many, the base moves to newer snapshots; if the newest is
//     not enough, files that the next level holds too go, the oldest first. What the newest
//     state and marks need stays even if the limit does not hold.
//   - The newest file of each level stays, and everything while later files are
//     stranded behind a gap: a listing of two moments may look like that.
//
// Ages are those of ModTime. In a directory that is the data's time. In a bucket it is
// when the object was written, which is never earlier; objects look younger than what they
// hold and are kept too long rather than too short, and so do copies of a replica. Only a now
// that is ahead of the store's clock errs the other way, by what the two differ: a
// store refuses more than 15 minutes.
//
// The database's size is in bytes; 0 where it is not known, which suspends a limit in
// multiples of it. Nothing is asked of the store.
func (h *History) Expired(p Policy, now time.Time, databaseSize int64) (objects []objstore.Object, marks []objstore.Mark) {
	var musts []ltx.TXID
	for _, m := range h.Marks {
		if p.Marks > 0 && now.Sub(m.Time) > p.Marks {
			marks = append(marks, m)
		} else {
			musts = append(musts, m.TXID)
		}
	}
	all, highest := h.Objects(), h.highest()
	if len(all) == 0 || !findPaths(all, download).reaches(highest) {
		return nil, marks
	}
	left := all
	for again := true; again; { // a file that is thinned out may have been what others were kept for
		k := newKeeper(p, now, left, append(musts, highest))
		var kept set
		kept, again = k.choose(databaseSize)
		left = k.only(kept)
	}
	kept := setOf(left)
	objects = slices.DeleteFunc(all, func(o objstore.Object) bool { return kept[keyOf(o)] })
	slices.SortStableFunc(objects, func(a, b objstore.Object) int { return cmp.Compare(a.Max, b.Max) })
	return objects, marks
}

// set is a set of objects.
type set map[key]bool

func setOf(objects []objstore.Object) set {
	s := make(set, len(objects))
	for _, o := range objects {
		s[keyOf(o)] = true
	}
	return s
}

// keeper decides what is kept.
type keeper struct {
	policy Policy
	now    time.Time
	all    []objstore.Object
	ways   paths      // of all
	musts  []ltx.TXID // what has to be restorable whatever the limits

	snapshots []objstore.Object // by Max
	newest    set               // of each level
	merged    []objstore.Object // the runs of TXIDs that files at levels above 0 hold, without snapshots
}

func newKeeper(p Policy, now time.Time, all []objstore.Object, musts []ltx.TXID) *keeper {
	k := &keeper{policy: p, now: now, all: all, ways: findPaths(all, download), newest: set{}}
	k.musts = slices.DeleteFunc(slices.Clone(musts), func(t ltx.TXID) bool { return !k.ways.reaches(t) })
	var last [Levels]objstore.Object
	for _, o := range all {
		if o.Max > last[o.Level].Max {
			last[o.Level] = o
		}
		switch {
		case isSnapshot(o):
			k.snapshots = append(k.snapshots, o)
		case o.Level > 0:
			k.merged = append(k.merged, o)
		}
	}
	for _, o := range last {
		k.newest[keyOf(o)] = true
	}
	slices.SortFunc(k.snapshots, func(a, b objstore.Object) int { return cmp.Compare(a.Max, b.Max) })
	slices.SortFunc(k.merged, func(a, b objstore.Object) int { return cmp.Compare(a.Min, b.Min) })
	chain := k.merged[:0]
	for _, o := range k.merged {
		switch n := len(chain); {
		case !k.ways.leads(o):
		case n > 0 && o.Min <= chain[n-1].Max:
			chain[n-1].Max = max(chain[n-1].Max, o.Max)
		default:
			chain = append(chain, o)
		}
	}
	k.merged = chain
	return k
}

func isSnapshot(o objstore.Object) bool { return o.Level == objstore.SnapshotLevel && o.Min == 1 }

// older reports that an object is known to be older than d; with d = 0 none is.
func (k *keeper) older(o objstore.Object, d time.Duration) bool {
	return d > 0 && !o.ModTime.IsZero() && k.now.Sub(o.ModTime) > d
}

// isMerged reports that merged files hold what a level-0 file does.
func (k *keeper) isMerged(o objstore.Object) bool {
	i := sort.Search(len(k.merged), func(i int) bool { return k.merged[i].Max >= o.Max })
	return i < len(k.merged) && k.merged[i].Min <= o.Min
}

// choose returns what is kept, and whether files were thinned out.
func (k *keeper) choose(databaseSize int64) (kept set, thinned bool) {
	base := -1
	for i, s := range k.snapshots {
		if k.older(s, k.policy.Retention.Age) {
			base = i
		}
	}
	kept = k.keep(base)
	over := k.limit(databaseSize)
	if !over(kept) {
		return kept, false
	}
	last := len(k.snapshots) - 1
	base += 1 + sort.Search(last-base, func(i int) bool { return !over(k.keep(base + 1 + i)) })
	kept = k.keep(min(base, last))
	if over(kept) {
		thinned = k.thin(kept, over)
	}
	return kept, thinned
}

// limit returns what tells that a set is beyond the limits of size and number.
func (k *keeper) limit(databaseSize int64) func(set) bool {
	l := k.policy.Retention
	most := l.Bytes
	if times := l.Times * float64(databaseSize); times > 0 && (most == 0 || times < float64(most)) {
		most = int64(times)
	}
	return func(kept set) bool {
		if most > 0 {
			var size int64
			for _, o := range k.all {
				if kept[keyOf(o)] {
					size += o.Size
				}
			}
			if size > most {
				return true
			}
		}
		return l.Points > 0 && k.points(kept) > l.Points
	}
}

// points counts the restore points of a set that are more than level-0 files.
func (k *keeper) points(kept set) (n int) {
	merged := map[ltx.TXID]bool{}
	for _, o := range k.all {
		if o.Level > 0 && kept[keyOf(o)] {
			merged[o.Max] = true
		}
	}
	for _, s := range findPaths(k.only(kept), download).stops {
		if merged[s.txid] {
			n++
		}
	}
	return n
}

func (k *keeper) only(kept set) []objstore.Object {
	return slices.DeleteFunc(slices.Clone(k.all), func(o objstore.Object) bool { return !kept[keyOf(o)] })
}

// keep returns what is kept with a snapshot as the base; -1 is none.
func (k *keeper) keep(base int) set {
	var from ltx.TXID
	if base >= 0 {
		from = k.snapshots[base].Max
	}
	kept := set{}
	needed := slices.Clone(k.musts)
	for _, o := range k.all {
		before := o.Max <= from && !(isSnapshot(o) && o.Max == from)
		goes := before
		if o.Level == 0 {
			goes = k.older(o, k.policy.L0) && (before || k.isMerged(o))
		}
		if goes && !k.newest[keyOf(o)] {
			continue
		}
		kept[keyOf(o)] = true
		if !before && k.ways.reaches(o.Max) {
			needed = append(needed, o.Max)
		}
	}
	k.mend(kept, needed)
	return kept
}

// mend adds what is missing to a set so that it reaches all that is needed, and of that
// the least.
func (k *keeper) mend(kept set, needed []ltx.TXID) {
	have := findPaths(k.only(kept), download)
	needed = slices.DeleteFunc(needed, have.reaches)
	if len(needed) == 0 {
		return
	}
	ways := findPaths(k.all, func(o objstore.Object) int64 {
		if kept[keyOf(o)] {
			return 1
		}
		return download(o)
	})
	for _, t := range needed {
		i, _ := ways.find(t) // all that is needed can be reached
		for _, o := range ways.to(i) {
			kept[keyOf(o)] = true
		}
	}
}
