package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/compact"
	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// Keep says how long a history is kept, and how. The zero value lets it grow:
// nothing is merged and nothing removed.
type Keep struct {
	// SnapshotInterval is the age of the newest snapshot at which another is
	// made, if something has changed since.
	SnapshotInterval time.Duration

	// Policy is what may be removed. Its L0 must be positive.
	Policy history.Policy
}

func (k Keep) on() bool { return k.SnapshotInterval > 0 }

// levelEvery is how often levels 1 to 3 are merged, on multiples of the wall
// clock: Litestream's own numbers, so that either goes on where the other stopped.
var levelEvery = [3]time.Duration{30 * time.Second, 5 * time.Minute, time.Hour}

const (
	// trimMost is the longest that level 0 waits to be trimmed, and sweepMost
	// that retention is not looked at: each look costs a list of some levels.
	trimMost  = 5 * time.Minute
	sweepMost = time.Hour

	// keepPause is how long chores are left alone after a failure, at first;
	// it doubles up to keepPauseMost.
	keepPause     = 30 * time.Second
	keepPauseMost = time.Hour

	// recentMost bounds what is remembered of level 0; more of it is listed.
	recentMost = 4096
)

// trimEvery and sweepEvery follow the policy where that is short.
func (k Keep) trimEvery() time.Duration { return min(trimMost, k.Policy.L0) }

func (k Keep) sweepEvery() time.Duration {
	every := min(sweepMost, k.SnapshotInterval)
	if t := k.Policy.Retention.Age; t > 0 {
		every = min(every, t)
	}
	return max(every, time.Second)
}

// passed reports that a multiple of every lies between a time in milliseconds
// and now.
func passed(ms int64, now time.Time, every time.Duration) bool {
	t := time.UnixMilli(ms)
	return ms == 0 || t.Truncate(every).Before(now.Truncate(every)) || t.After(now.Add(every)) // the clock was wrong
}

// chores keep a history: they merge objects, trim level 0, and apply retention.
// They run in a goroutine of their own, one run at a time, beside batches and
// never in their way: they read and write the store and nothing else. A run begins
// after a batch, so without commits there is none. What it learns goes into the
// ledger when the shipper takes its result.
type chores struct {
	result chan chored // of the run under way; nil: there is none
	cancel context.CancelFunc
	grown  bool              // this process has put an object in this term
	pause  time.Time         // no run before, since the last one failed
	again  <-chan time.Time  // then
	failed time.Duration     // the last pause; 0 after a success
	told   string            // the failure that was logged
	recent []objstore.Object // level 0 from the end of level 1 on, as put by this process
}

type chored struct {
	kept  ledger.Kept
	err   error
	panic *group.Panic
}

// noteRecent remembers an object of level 0 for the next merge, which then
// needs no list of them.
func (c *chores) noteRecent(o objstore.Object) {
	if n := len(c.recent); n > 0 && c.recent[n-1].Max+1 != o.Min || n == recentMost {
		c.recent = c.recent[:0]
	}
	c.recent = append(c.recent, o)
}

// keepFromNow begins the book-keeping of a history that begins: nothing is due
// before the next multiple of each interval.
func (s *Shipper) keepFromNow(h *ledger.Header) {
	now := s.cfg.now().UnixMilli()
	h.Kept = ledger.Kept{
		LevelEnd: [3]uint64{1, 1, 1}, LevelMs: [3]int64{now, now, now},
		SnapshotTXID: 1, SnapshotMs: now, TrimmedMs: now, SweptMs: now,
	}
}

// startChores begins a run if something is due. Who has put nothing has nothing
// to see to.
func (s *Shipper) startChores() {
	h := s.header()
	now := s.cfg.now()
	if !s.cfg.Keep.on() || s.chores.result != nil || !s.chores.grown || s.state.Stuck() || now.Before(s.chores.pause) {
		return
	}
	ready := s.snapshot.ready()
	if !ready && !s.cfg.Keep.due(h.Kept, now, s.snapshot.object != nil) {
		return
	}
	run := &chore{
		store: noting{s.cfg.Store, &h.KeepUpload}, keep: s.cfg.Keep, kept: h.Kept, now: now, head: ltx.TXID(h.TXID), dir: filepath.Dir(s.cfg.Database),
		size: int64(h.DBPages) * int64(h.PageSize), recent: slices.Clone(s.chores.recent),
	}
	if h.DBPages == ledger.None {
		run.size = 0
	}
	if ready {
		run.finished = s.takeSnapshot()
	}
	run.copying = s.snapshot.object != nil
	ctx, cancel := context.WithCancel(s.ctx)
	result := make(chan chored, 1)
	s.chores.result, s.chores.cancel = result, cancel
	go func() {
		var r chored
		r.panic = group.Catch(func() { r.err = run.all(ctx) })
		r.kept = run.kept
		result <- r
	}()
}

// due reports that a run would find something to do. While a copy is being made
// nothing is removed.
func (k Keep) due(kept ledger.Kept, now time.Time, copying bool) bool {
	for i, every := range levelEvery {
		if passed(kept.LevelMs[i], now, every) {
			return true
		}
	}
	return !copying && passed(kept.TrimmedMs, now, k.trimEvery()) || !copying && passed(kept.SweptMs, now, k.sweepEvery())
}

// endChores takes the result of a run.
func (s *Shipper) endChores(r chored) {
	c := &s.chores
	c.cancel()
	c.result, c.cancel = nil, nil
	if r.panic != nil {
		panic(r.panic)
	}
	h := s.header()
	if s.ledger.Load().Lost() || atomic.LoadUint64(&h.ShipperEpoch) != s.term {
		return
	}
	// A snapshot of our own may have been made meanwhile.
	if h.SnapshotTXID > r.kept.SnapshotTXID {
		r.kept.SnapshotTXID, r.kept.SnapshotMs = h.SnapshotTXID, h.SnapshotMs
	}
	h.Kept = r.kept
	if i, _ := slices.BinarySearchFunc(c.recent, ltx.TXID(h.LevelEnd[0])+1, func(o objstore.Object, t ltx.TXID) int {
		return cmp.Compare(o.Min, t)
	}); i > 0 {
		c.recent = slices.Delete(c.recent, 0, i)
	}
	if errors.Is(r.err, context.Canceled) {
		return // by us: the next run goes on
	}
	s.keepFailed(r.err)
	s.startChores() // a snapshot may have become ready meanwhile
}

// keepFailed tells that a chore went wrong, or with nil that all is well again.
func (s *Shipper) keepFailed(err error) {
	c, h := &s.chores, s.header()
	text := ""
	if c.again = nil; err == nil {
		c.failed = 0
	} else {
		text = "the history is not kept as it should be: " + err.Error()
		c.failed = min(max(2*c.failed, keepPause), keepPauseMost)
		c.pause, c.again = s.cfg.now().Add(c.failed), time.After(c.failed)
	}
	if h.KeepError() != text {
		h.SetKeepError(text)
	}
	if text != "" && text != c.told {
		s.cfg.Log(true, text)
	}
	c.told = text
}

// finishChores does what is due before the process goes, at most until the
// deadline.
func (s *Shipper) finishChores(deadline time.Time) {
	if s.startChores(); s.chores.result == nil {
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-s.chores.result:
		s.endChores(r)
	case <-timer.C:
		s.stopChores()
	case <-s.ctx.Done():
		s.stopChores()
	}
}

// stopChores ends the run under way and waits for its end.
func (s *Shipper) stopChores() {
	if s.chores.result != nil {
		s.chores.cancel()
		s.endChores(<-s.chores.result)
	}
}

// chore is one run.
type chore struct {
	store  objstore.Store
	keep   Keep
	kept   ledger.Kept
	now    time.Time
	head   ltx.TXID
	size   int64 // of the database; 0: not known
	dir    string
	recent []objstore.Object

	finished *finished // a copy to make a snapshot of; nil: none
	copying  bool      // the objects of now are wanted for one: nothing is removed
}

// all does what is due: merges before removals, and the lower level before the
// higher, whose inputs it makes.
func (c *chore) all(ctx context.Context) error {
	if c.finished != nil {
		made, err := c.finished.put(ctx, c.store, c.dir)
		if err != nil {
			return fmt.Errorf("make snapshot: %w", err)
		}
		c.kept.SnapshotTXID, c.kept.SnapshotMs = uint64(made.Max), c.now.UnixMilli()
	}
	for i := range levelEvery {
		if !passed(c.kept.LevelMs[i], c.now, levelEvery[i]) {
			continue
		}
		if err := c.merge(ctx, i+1); err != nil {
			return err
		}
		c.kept.LevelMs[i] = c.now.UnixMilli()
	}
	switch {
	case c.copying:
	case c.finished != nil, passed(c.kept.SweptMs, c.now, c.keep.sweepEvery()):
		if err := c.sweep(ctx); err != nil {
			return err
		}
		c.kept.SweptMs, c.kept.TrimmedMs = c.now.UnixMilli(), c.now.UnixMilli()
	case passed(c.kept.TrimmedMs, c.now, c.keep.trimEvery()):
		if err := c.trim(ctx); err != nil {
			return err
		}
		c.kept.TrimmedMs = c.now.UnixMilli()
	}
	return nil
}

// merge brings a level up to what the one below it has.
func (c *chore) merge(ctx context.Context, level int) error {
	end, err := c.end(ctx, level)
	if err != nil {
		return err
	}
	inputs, err := c.below(ctx, level, end)
	if err != nil || len(inputs) == 0 {
		return err
	}
	if from := inputs[0].Min; end != 0 && from > end+1 && uint64(from) > c.kept.SnapshotTXID+1 {
		// What is missing cannot be had back, but the database can: a snapshot
		// makes the history whole from here on.
		c.kept.SnapshotMs = 1
	}
	merged, err := compact.Merge(ctx, c.store, inputs, level, c.dir)
	switch snapshot := c.kept.SnapshotTXID; {
	case err == nil:
	case errors.Is(err, ltxfile.ErrCorrupt) && snapshot > uint64(end):
		c.kept.LevelEnd[level-1] = snapshot // nothing before it is needed for what follows
		return err
	case errors.Is(err, ltxfile.ErrCorrupt):
		c.kept.SnapshotMs = 1
		return err
	default:
		// Perhaps somebody else compacts here too and has removed one: then
		// the next run looks for itself.
		c.kept.LevelEnd[level-1] = 0
		return err
	}
	c.kept.LevelEnd[level-1] = uint64(merged.Max)
	return nil
}

// end is where a level ends.
func (c *chore) end(ctx context.Context, level int) (ltx.TXID, error) {
	if end := c.kept.LevelEnd[level-1]; end != 0 {
		return ltx.TXID(end), nil
	}
	objects, err := c.store.List(ctx, level, 1)
	if err != nil {
		return 0, err
	}
	var end ltx.TXID
	for _, o := range objects {
		end = max(end, o.Max)
	}
	return end, nil
}

// below lists what a level has still to take from the one below it, up to the
// newest and without a gap.
func (c *chore) below(ctx context.Context, level int, end ltx.TXID) ([]objstore.Object, error) {
	objects := c.recent
	if level > 1 || len(objects) == 0 || objects[0].Min > end+1 && end != 0 || objects[len(objects)-1].Max != c.head {
		var err error
		if objects, err = c.store.List(ctx, level-1, end+1); err != nil {
			return nil, err
		}
	}
	from := len(objects)
	for i := len(objects) - 1; i >= 0; i-- {
		if objects[i].Min <= end || i < len(objects)-1 && objects[i].Max+1 != objects[i+1].Min {
			break
		}
		from = i
	}
	return objects[from:], nil
}

// trim removes what level 0 has kept for long enough and level 1 has too. Where a
// mark lies inside of a file of level 1, only level 0 can restore it; sweep
// knows more.
func (c *chore) trim(ctx context.Context) error {
	zero, err := c.store.List(ctx, 0, 1)
	if err != nil || len(zero) < 2 {
		return err
	}
	one, err := c.store.List(ctx, 1, zero[0].Min)
	if err != nil || len(one) == 0 {
		return err
	}
	marks, err := c.store.Marks(ctx)
	if err != nil {
		return err
	}
	return c.store.RemoveAll(ctx, trimmed(zero, one, marks, c.keep.Policy.L0))
}

// trimmed chooses from level 0 what files of level 1 replace, file by file. Ages
// are against the newest object and not this machine's clock, which may be wrong:
// that a name stays taken for a while is what tells two writers apart.
func trimmed(zero, one []objstore.Object, marks []objstore.Mark, keep time.Duration) (remove []objstore.Object) {
	newest := zero[len(zero)-1]
	for _, o := range zero {
		if o.ModTime.After(newest.ModTime) {
			newest.ModTime = o.ModTime
		}
	}
	for _, file := range one {
		if slices.ContainsFunc(marks, func(m objstore.Mark) bool { return file.Min <= m.TXID && m.TXID < file.Max }) {
			continue
		}
		from, _ := slices.BinarySearchFunc(zero, file.Min, func(o objstore.Object, t ltx.TXID) int { return cmp.Compare(o.Min, t) })
		to := from
		old := true
		for ; to < len(zero) && zero[to].Max <= file.Max; to++ {
			old = old && newest.ModTime.Sub(zero[to].ModTime) > keep && zero[to].Max != newest.Max
		}
		if old {
			remove = append(remove, zero[from:to]...)
		}
	}
	return remove
}

// sweep applies retention to all levels.
func (c *chore) sweep(ctx context.Context) error {
	h, err := history.List(ctx, c.store)
	if err != nil {
		return err
	}
	if c.kept.SnapshotMs = max(c.kept.SnapshotMs, 1); len(h.Levels[objstore.SnapshotLevel]) > 0 {
		n := len(h.Levels[objstore.SnapshotLevel])
		newest := h.Levels[objstore.SnapshotLevel][n-1]
		if c.kept.SnapshotTXID < uint64(newest.Max) {
			c.kept.SnapshotTXID, c.kept.SnapshotMs = uint64(newest.Max), newest.ModTime.UnixMilli()
		}
	}
	objects, marks := h.Expired(c.keep.Policy, c.now, c.size)
	if err := c.store.RemoveAll(ctx, objects); err != nil {
		return err
	}
	for _, m := range marks {
		if err := c.store.RemoveMark(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// noting writes down the upload under way, so that who follows can abort it.
type noting struct {
	objstore.Store
	upload *ledger.KeepUpload
}

// Create is part of Store.
func (n noting) Create(ctx context.Context, o objstore.Object, body objstore.Body, m objstore.Meta, _ func(string)) error {
	err := n.Store.Create(ctx, o, body, m, func(id string) {
		n.upload.Upload.Set(id)
		n.upload.Level, n.upload.Min, n.upload.Max = uint64(o.Level), uint64(o.Min), uint64(o.Max)
	})
	if err == nil || errors.Is(err, objstore.ErrExist) {
		n.upload.Max = 0
	}
	return err
}
