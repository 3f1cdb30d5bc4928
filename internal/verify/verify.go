package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
	"github.com/walferry/walferry/internal/sqlcheck"
)

// Options of Verify; the zero value is usable.
type Options struct {
	Quick    bool   // no scratch restore
	Dir      string // where it is made; empty: the directory for temporary files
	Progress func(done, total int64)
}

// relists is how often objects may leave the store meanwhile, because a writer is at
// work, before that is an error.
const relists = 20

// verifier is the work on one replica.
type verifier struct {
	store  objstore.Store
	opts   Options
	h      *history.History
	report *Report
	times  map[ltx.TXID]time.Time
	proven map[ltx.TXID]bool
}

// Verify reads everything that a store holds. The error is for what could not be
// looked at: damage is in the report.
func Verify(ctx context.Context, store objstore.Store, opts Options) (*Report, error) {
	start := time.Now()
	if opts.Progress == nil {
		opts.Progress = func(int64, int64) {}
	}
	v := &verifier{
		store: store, opts: opts, times: map[ltx.TXID]time.Time{}, proven: map[ltx.TXID]bool{},
		report: &Report{Replica: store.String(), Checked: "not asked", Findings: []Finding{}, bad: map[key]bool{}},
	}
	if err := v.walk(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("verify %s: %w", store, err)
	}
	v.gaps()
	v.conclude()
	if !opts.Quick && v.report.Restore != nil {
		if err := v.check(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("verify %s: %w", store, err)
		}
	}
	r := v.report
	r.Sound = len(r.Findings) == 0
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return byEnd(objstore.Object{Max: a.Since}, objstore.Object{Max: b.Since}) })
	r.Duration = time.Since(start)
	r.Seconds = r.Duration.Seconds()
	return r, nil
}

// walk decodes every object, in order.
func (v *verifier) walk(ctx context.Context) (err error) {
	w := &walk{found: v.found, proof: func(t ltx.TXID) { v.proven[t] = true }}
	done := map[key]bool{}
	bytes := int64(0)
	if v.h, err = history.List(ctx, v.store); err != nil {
		return err
	}
	if len(v.h.Objects()) == 0 {
		return history.ErrNothing
	}
	todo := v.h.Objects()
	slices.SortFunc(todo, byEnd)
	for lists := 0; len(todo) > 0; {
		n, size := 1, todo[0].Size
		for n < len(todo) && n < batchObjects && size+todo[n].Size <= batchBytes {
			size += todo[n].Size
			n++
		}
		v.opts.Progress(bytes, max(bytes+1, v.h.Size()))
		files, err := decode(ctx, v.store, todo[:n])
		if err != nil {
			return err
		}
		again := false
		for _, f := range files {
			if again = f.gone; again {
				break
			}
			done[keyOf(f.object)] = true
			bytes += f.object.Size
			v.take(w, f)
		}
		todo = todo[n:]
		if !again {
			continue
		}
		// Merged meanwhile: what replaces it is in a new listing.
		if lists++; lists > relists {
			return errors.New("objects leave the replica faster than they are read; try again later")
		}
		if v.h, err = history.List(ctx, v.store); err != nil {
			return err
		}
		todo = slices.DeleteFunc(v.h.Objects(), func(o objstore.Object) bool { return done[keyOf(o)] })
		slices.SortFunc(todo, byEnd)
	}
	w.settle()
	r := v.report
	r.PageSize, r.Pages, r.Objects, r.Bytes = w.pageSize, uint32(len(w.sums)), len(done), bytes
	if w.silent > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d states carry no checksum: their objects are whole and fit each other, which is not proof", w.silent))
	}
	return nil
}

func (v *verifier) take(w *walk, f *file) {
	switch {
	case f.foreign:
		v.found(Foreign, []*file{f}, f.wrong.Error())
	case f.wrong != nil:
		v.found(Corrupt, []*file{f}, strings.TrimPrefix(f.wrong.Error(), ltxfile.ErrCorrupt.Error()+": "))
	default:
		if t := timeOf(f); v.times[f.object.Max].IsZero() || f.object.Level == 0 {
			v.times[f.object.Max] = t
		}
		w.take(f)
	}
}

// found adds a finding about files, none of which can be relied on any more.
func (v *verifier) found(kind string, files []*file, text string) {
	x := Finding{Kind: kind, Text: text}
	for _, f := range files {
		x.Objects = append(x.Objects, f.object.String())
		x.objects = append(x.objects, f.object)
		v.report.bad[keyOf(f.object)] = true
		since := f.object.Min
		if since == 1 {
			since = f.object.Max // a snapshot is of its end
		}
		if x.Since == 0 || since < x.Since {
			x.Since, x.Time = since, timeOf(f)
		}
	}
	v.report.Findings = append(v.report.Findings, x)
}

// gaps adds what is missing.
func (v *verifier) gaps() {
	for _, g := range v.h.Gaps() {
		text := fmt.Sprintf("TXIDs %s to %s are in no file, and later ones build on them", g.From, g.To)
		if g.From == g.To {
			text = fmt.Sprintf("TXID %s is in no file, and later ones build on it", g.From)
		}
		v.report.Findings = append(v.report.Findings, Finding{Kind: Missing, Since: g.From, Time: v.near(g.From), Text: text})
	}
	for level, objects := range v.h.Levels[:objstore.SnapshotLevel] {
		for i := 1; i < len(objects); i++ {
			if from, to := objects[i-1].Max+1, objects[i].Min-1; from <= to && !v.isGap(from, to) {
				v.report.Notes = append(v.report.Notes, fmt.Sprintf(
					"level %d lacks TXIDs %s to %s; another level has them, merged", level, from, to))
			}
		}
	}
}

func (v *verifier) isGap(from, to ltx.TXID) bool {
	for _, g := range v.h.Gaps() {
		if g.From <= to && from <= g.To {
			return true
		}
	}
	return false
}

// near is the time of the last state before a TXID that is known.
func (v *verifier) near(txid ltx.TXID) (t time.Time) {
	best := ltx.TXID(0)
	for at, when := range v.times {
		if at <= txid && at > best {
			best, t = at, when
		}
	}
	return t
}

// without is the history without some objects.
func without(h *history.History, bad map[key]bool) *history.History {
	rest := &history.History{Marks: h.Marks}
	for level, objects := range h.Levels {
		for _, o := range objects {
			if !bad[keyOf(o)] {
				rest.Levels[level] = append(rest.Levels[level], o)
			}
		}
	}
	return rest
}

// manyFindings is up to how many it is worked out what each costs.
const manyFindings = 50

// conclude works out what can be restored and what not.
func (v *verifier) conclude() {
	r := v.report
	all := v.h.Points()
	for _, o := range v.h.Objects() {
		r.Newest.TXID = max(r.Newest.TXID, o.Max)
	}
	r.Newest.Time = v.near(r.Newest.TXID)
	for i := range r.Findings[:min(len(r.Findings), manyFindings)] {
		x := &r.Findings[i]
		bad := map[key]bool{}
		for _, o := range x.objects {
			bad[keyOf(o)] = true
		}
		if len(bad) > 0 {
			x.Lost = lost(all, without(v.h, bad).Points())
		}
	}
	left := without(v.h, r.bad).Points()
	r.States = len(left)
	for _, p := range left {
		if v.proven[p] {
			r.Proven++
		}
	}
	if len(left) > 0 {
		oldest, newest := left[0], left[len(left)-1]
		r.Oldest = &Point{oldest, v.near(oldest)}
		r.Restore = &Point{newest, v.near(newest)}
	}
	for _, m := range v.h.Marks {
		if _, ok := slices.BinarySearch(left, m.TXID); !ok {
			r.Findings = append(r.Findings, Finding{Kind: Lost, Since: m.TXID, Time: m.Time.UTC(), Text: fmt.Sprintf("mark %q cannot be restored", m.Name)})
		}
	}
}

// lost are the points of all that are not in left, in runs.
func lost(all, left []ltx.TXID) (runs []Range) {
	i, open := 0, false
	for _, p := range all {
		for i < len(left) && left[i] < p {
			i++
		}
		if i < len(left) && left[i] == p {
			open = false
			continue
		}
		if !open {
			runs, open = append(runs, Range{From: p}), true
		}
		runs[len(runs)-1].To = p
		runs[len(runs)-1].States++
	}
	return runs
}

// Hide is a store without the objects that were found to be damaged or suspect: what
// is restored from it, is from what is left.
func (r *Report) Hide(store objstore.Store) objstore.Store { return &hiding{store, r.bad} }

type hiding struct {
	objstore.Store
	bad map[key]bool
}

func (s *hiding) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	all, err := s.Store.List(ctx, level, from)
	return slices.DeleteFunc(all, func(o objstore.Object) bool { return s.bad[keyOf(o)] }), err
}

// check restores the newest state and asks SQLite about it.
func (v *verifier) check(ctx context.Context) error {
	dir, err := os.MkdirTemp(v.opts.Dir, "walferry-verify-*")
	if err != nil {
		return fmt.Errorf("scratch restore: %w; name another directory with -dir, or give -quick", err)
	}
	defer os.RemoveAll(dir)
	r := v.report
	out := filepath.Join(dir, "scratch.db")
	_, err = restore.Restore(ctx, r.Hide(v.store), out, restore.Options{Target: history.Target{TXID: r.Restore.TXID}, Progress: v.opts.Progress})
	if errors.Is(err, restore.ErrCorrupt) || errors.Is(err, restore.ErrMismatch) {
		r.Checked = "damaged"
		r.Findings = append(r.Findings, Finding{Kind: Different, Since: r.Restore.TXID, Time: r.Restore.Time, Text: "the scratch restore failed: " + err.Error()})
		return nil
	}
	if err != nil {
		return fmt.Errorf("scratch restore: %w", err)
	}
	problems, err := sqlcheck.Check(ctx, out, true)
	if errors.Is(err, sqlcheck.ErrUncheckable) {
		r.Checked = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	r.Checked = "ok"
	if problems == nil {
		return nil
	}
	r.Checked = "damaged"
	more := ""
	if len(problems) > 1 {
		more = fmt.Sprintf(", and %d more", len(problems)-1)
	}
	r.Findings = append(r.Findings, Finding{
		Kind: Unsound, Since: r.Restore.TXID, Time: r.Restore.Time,
		Text: fmt.Sprintf("every file is whole, but integrity_check of TXID %s says: %s%s", r.Restore.TXID, problems[0], more),
	})
	return nil
}
