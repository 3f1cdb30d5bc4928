package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// walk is a database on its way through the history, as the sums of its pages.
type walk struct {
	at       ltx.TXID // 0: nowhere
	pageSize uint32
	sums     []uint64   // of page 1 first; the lock page's is 0
	changed  []ltx.TXID // when each page last changed
	xor      uint64     // of all sums
	stops    []ltx.TXID // states since the walk began, or began anew
	proven   bool       // the state carries a checksum that holds
	since    []*file    // applied since one did, or since the walk began while nothing has confirmed that
	waiting  []*file    // begin behind the state, until another file leads to where they end
	rivals   []*file    // contradict the file that the walk began with, which nothing has confirmed

	found  func(kind string, files []*file, text string)
	proof  func(ltx.TXID) // told states that are proven
	silent int            // states without a checksum
}

func (w *walk) lockPage() uint32 { return ledger.LockPage(w.pageSize) }

// take goes on with a file, compares it, or passes it over. Files come in the
// order of their last TXID, of those with the same the one that begins last first.
func (w *walk) take(f *file) {
	w.waiting = slices.DeleteFunc(w.waiting, func(o *file) bool { return o.object.Max < f.object.Max })
	whole := f.header.MinTXID == 1
	before := w.at
	switch {
	case whole && !complete(f):
		w.found(Corrupt, []*file{f}, "it should hold every page of the database, and does not")
	case w.at != 0 && f.object.Max == w.at:
		w.compare(f)
	case whole:
		w.restart(f)
	case w.at != 0 && f.object.Min <= w.at+1 && f.object.Max > w.at:
		w.advance(f)
	default:
		w.waiting = append(w.waiting, f)
	}
	if w.at == f.object.Max && before != w.at {
		for _, o := range w.waiting {
			if w.at == o.object.Max { // it may be lost on the way
				w.compare(o)
			}
		}
		w.waiting = nil
	}
}

// complete reports that a file holds every page of its database.
func complete(f *file) bool {
	lock, want := ledger.LockPage(f.header.PageSize), uint32(1)
	for _, p := range f.pages {
		if want == lock {
			want++
		}
		if p != want {
			return false
		}
		want++
	}
	if want == lock {
		want++
	}
	return want > f.header.Commit
}

// sumOf is what a whole file's pages come to.
func sumOf(f *file) (x uint64) {
	for _, s := range f.sums {
		x ^= s
	}
	return x
}

// restart begins with a file that holds every page.
func (w *walk) restart(f *file) {
	if w.at != 0 && f.header.PageSize != w.pageSize && w.proven {
		w.found(Foreign, []*file{f}, fmt.Sprintf("its pages have %d bytes, those of the database %d", f.header.PageSize, w.pageSize))
		return
	}
	if x := sumOf(f); f.checksum != 0 && f.checksum != x {
		w.found(Different, []*file{f}, fmt.Sprintf("its pages sum to %016x, the checksum that it carries is %016x", x, f.checksum))
		return
	}
	w.settle()
	w.pageSize = f.header.PageSize
	w.sums, w.changed = make([]uint64, f.header.Commit), make([]ltx.TXID, f.header.Commit)
	for i, p := range f.pages {
		w.sums[p-1] = f.sums[i]
		w.changed[p-1] = f.object.Max
	}
	w.xor, w.stops, w.since = sumOf(f), nil, []*file{f}
	w.stops = append(w.stops, f.object.Max)
	w.at = f.object.Max
	// Its checksum proves it whole. That it is of this database, the next ones prove.
	if w.proven = f.checksum != 0; w.proven {
		w.proof(w.at)
	} else {
		w.silent++
	}
}

// settle ends what nothing more can confirm: the file that the walk began with
// and those that contradict it are equally suspect.
func (w *walk) settle() {
	if len(w.rivals) > 0 {
		w.found(Different, append(slices.Clone(w.since), w.rivals...),
			"the first of these is whole, and none of the others goes on from it: it, or they, are of another history")
		w.lose()
	}
	w.rivals, w.since = nil, nil
}

// arrive makes the state that a file led to the current one.
func (w *walk) arrive(f *file) {
	w.at = f.object.Max
	w.stops = append(w.stops, w.at)
	w.since = append(w.since, f)
	if w.proven = f.checksum != 0; w.proven {
		w.prove()
	} else {
		w.silent++
	}
}

func (w *walk) prove() {
	for _, f := range w.rivals {
		w.found(Different, []*file{f}, "it does not go on from the state before it, which other objects confirm")
	}
	w.proven, w.since, w.rivals = true, nil, nil
	w.proof(w.at)
}

// advance applies a file, unless it cannot be right.
func (w *walk) advance(f *file) {
	if f.header.PageSize != w.pageSize {
		w.contradict(f, Foreign, fmt.Sprintf("its pages have %d bytes, those of the database %d", f.header.PageSize, w.pageSize))
		return
	}
	// What it comes to, before anything is changed.
	x, have, commit := w.xor, uint32(len(w.sums)), f.header.Commit
	grown := have
	for i, p := range f.pages {
		x ^= f.sums[i]
		if p <= have {
			x ^= w.sums[p-1]
			continue
		}
		if grown+1 == w.lockPage() {
			grown++
		}
		if p != grown+1 {
			break // seen below
		}
		grown = p
	}
	if grown+1 == w.lockPage() && grown < commit {
		grown++
	}
	if grown < commit {
		w.contradict(f, Foreign, fmt.Sprintf("page %d is missing: it makes %d pages of a database of %d", grown+1, commit, have))
		return
	}
	for p := commit; p < have; p++ {
		x ^= w.sums[p]
	}
	if f.checksum != 0 && f.checksum != x {
		w.contradict(f, Different, fmt.Sprintf("after it the database's pages sum to %016x, the checksum that it carries is %016x", x, f.checksum))
		return
	}
	if commit < have {
		w.sums, w.changed = w.sums[:commit], w.changed[:commit]
	}
	w.sums = append(w.sums, make([]uint64, commit-min(commit, have))...)
	w.changed = append(w.changed, make([]ltx.TXID, commit-min(commit, have))...)
	for i, p := range f.pages {
		if w.sums[p-1] != f.sums[i] {
			w.sums[p-1], w.changed[p-1] = f.sums[i], f.object.Max
		}
	}
	w.xor = x
	w.arrive(f)
}

// contradict is for a file that does not go on from the state that the walk is at.
func (w *walk) contradict(f *file, kind, text string) {
	switch {
	case len(w.since) == 0: // the state is proven
		w.found(kind, []*file{f}, text)
	case w.proven: // as it is, but not that it is this database's
		w.rivals = append(w.rivals, f)
	default:
		suspects := append(slices.Clone(w.since), f)
		w.lose()
		w.found(kind, suspects, fmt.Sprintf("%s: %s; it, or one of the %d objects before it that no checksum confirms, is wrong", f.object, text, len(suspects)-1))
	}
}

// compare holds a file against the state that it leads to.
func (w *walk) compare(f *file) {
	text := w.difference(f)
	switch {
	case text == "" && f.checksum == 0:
		return
	case text == "" && f.checksum == w.xor:
		if !w.proven {
			w.silent--
			w.prove()
		}
		return
	case text == "":
		text = fmt.Sprintf("the checksum that it carries is %016x, but the database at TXID %s sums to %016x", f.checksum, w.at, w.xor)
		if w.proven {
			w.found(Different, []*file{f}, text)
			return
		}
	case w.proven || f.checksum == w.xor:
		w.found(Different, []*file{f}, text)
		return
	}
	// The state is not proven. A snapshot may prove itself.
	others := w.since
	if f.header.MinTXID == 1 && f.checksum != 0 && f.checksum == sumOf(f) {
		w.found(Different, slices.Clone(others), fmt.Sprintf("%s: %s, and it carries a checksum that holds", f.object, text))
		w.lose()
		w.restart(f)
		return
	}
	w.found(Different, append(slices.Clone(others), f), text+"; no checksum tells which of them is right")
	w.lose()
}

// lose ends a walk that has come to a state that cannot be relied on.
func (w *walk) lose() {
	w.at, w.sums, w.changed, w.since, w.rivals, w.proven = 0, nil, nil, nil, nil, false
}

// difference says how a file differs from the state that it leads to, if it does.
func (w *walk) difference(f *file) string {
	if f.header.PageSize != w.pageSize {
		return fmt.Sprintf("its pages have %d bytes, those of the database %d", f.header.PageSize, w.pageSize)
	}
	if int(f.header.Commit) != len(w.sums) {
		return fmt.Sprintf("after it the database has %d pages, after the objects that it replaces %d", f.header.Commit, len(w.sums))
	}
	for i, p := range f.pages {
		if w.sums[p-1] != f.sums[i] {
			return fmt.Sprintf("its page %d is not the one that the objects have that it replaces", p)
		}
	}
	// What has changed since it begins must be in it, where that is known.
	if f.header.MinTXID == 1 || !slices.Contains(w.stops, f.object.Min-1) {
		return ""
	}
	i := 0
	for p, at := range w.changed {
		for i < len(f.pages) && f.pages[i] < uint32(p+1) {
			i++
		}
		if at >= f.object.Min && (i == len(f.pages) || f.pages[i] != uint32(p+1)) {
			return fmt.Sprintf("it lacks page %d, which changed at TXID %s", p+1, at)
		}
	}
	return ""
}

// timeOf is a file's time, or where that is not known its object's.
func timeOf(f *file) time.Time {
	if f.header.Timestamp != 0 && f.wrong == nil {
		return time.UnixMilli(f.header.Timestamp).UTC()
	}
	return f.object.ModTime.UTC()
}

// byEnd is the order in which a walk takes objects.
func byEnd(a, b objstore.Object) int {
	switch {
	case a.Max != b.Max:
		return int(min(max(int64(a.Max)-int64(b.Max), -1), 1))
	case a.Min != b.Min:
		return int(min(max(int64(b.Min)-int64(a.Min), -1), 1))
	}
	return a.Level - b.Level
}
