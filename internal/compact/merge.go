package compact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
	"github.com/walferry/walferry/internal/spool"
)

const (
	// fanIn is how many files are merged at a time. More are merged in
	// stages, with an unlinked file between one stage and the next.
	fanIn = 64

	// opening is how many of them are asked for at once.
	opening = 8

	// abortTime is what cleaning up after a failed upload may take.
	abortTime = 10 * time.Second
)

// Merge writes one object to a level that does what inputs do one after the other,
// and returns it: its ModTime is the time of its newest transaction. Inputs have their
// sizes, as List gives them. Each begins
// at the latest where the one before it ends, and reaches further. Inputs from TXID 1
// on give a snapshot, for level 9.
//
// The newest version of each page is copied as it is compressed. The header is that of
// the last input but for the range, so that it still tells when, and by whom (the node
// id), the newest transaction was written; the database's checksum travels along.
// The same inputs give the same bytes.
//
// Where an object of that name is there already, that is success: somebody else has
// merged the same. A damaged input makes no output; the error then wraps
// ltxfile.ErrCorrupt and names it. One that wraps objstore.ErrNotExist says that somebody else
// removes objects here too, and the caller lists again.
//
// Memory is bounded by some 32 MiB. In dir, which must have room for the output, up to
// three times where there are more than fanIn inputs, lie files without a name.
func Merge(ctx context.Context, store objstore.Store, inputs []objstore.Object, level int, dir string) (objstore.Object, error) {
	if err := check(inputs, level); err != nil {
		return objstore.Object{}, err
	}
	last := inputs[len(inputs)-1]
	out := objstore.Object{Level: level, Min: inputs[0].Min, Max: last.Max}
	m := merger{dir: dir}
	defer m.discard()
	files := make([]input, len(inputs))
	for i, o := range inputs {
		files[i] = stored(store, o)
	}
	files, err := m.reduce(ctx, files)
	body := &spool.Spool{Dir: dir}
	defer body.Reset()
	var head ltx.Header
	if err == nil {
		head, err = m.merge(ctx, files, body)
	}
	if err == nil {
		err = body.Flush()
	}
	var meta objstore.Meta
	if err == nil {
		err = retry.Do(ctx, func() (err error) {
			meta, err = store.Meta(ctx, last)
			return err
		})
	}
	if err == nil {
		meta.Timestamp = time.UnixMilli(head.Timestamp).UTC()
		out.Size, out.ModTime = body.Size(), meta.Timestamp
		out, err = create(ctx, store, out, body, meta)
	}
	if err != nil {
		return objstore.Object{}, fmt.Errorf("merge into %v: %w", out, err)
	}
	return out, nil
}

// check looks at the names.
func check(inputs []objstore.Object, level int) error {
	if len(inputs) == 0 {
		return fmt.Errorf("%w: there are none", ErrInputs)
	}
	if level < 1 || level > objstore.SnapshotLevel || level == objstore.SnapshotLevel && inputs[0].Min != 1 {
		return fmt.Errorf("%w: what begins with %v cannot lie at level %d", ErrInputs, inputs[0], level)
	}
	for i := 1; i < len(inputs); i++ {
		if a, b := inputs[i-1], inputs[i]; !follows(a.Max, b) {
			return fmt.Errorf("%w: %v after %v", ErrInputs, b, a)
		}
	}
	return nil
}

// follows reports whether an object takes a database at a TXID further.
func follows(have ltx.TXID, o objstore.Object) bool { return o.Min <= have+1 && o.Max > have }

// merger merges files into one.
type merger struct {
	dir    string
	stages [2]*spool.Spool // one is read, the other written
}

func (m *merger) discard() {
	for _, s := range m.stages {
		if s != nil {
			s.Reset()
		}
	}
}

// reduce merges neighbours until there are few enough for one merge.
func (m *merger) reduce(ctx context.Context, files []input) ([]input, error) {
	for n := 0; len(files) > fanIn; n = 1 - n {
		if m.stages[n] == nil {
			m.stages[n] = &spool.Spool{Dir: m.dir}
		}
		to := m.stages[n]
		to.Reset()
		var next []input
		for len(files) > 0 {
			group := files[:min(fanIn, len(files))]
			files = files[len(group):]
			at := to.Size()
			if _, err := m.merge(ctx, group, to); err != nil {
				return nil, err
			}
			next = append(next, section(to, at, to.Size()-at, group[0].min, group[len(group)-1].max))
		}
		if err := to.Flush(); err != nil {
			return nil, err
		}
		files = next
	}
	return files, nil
}

// merge writes one file, and returns its header.
func (m *merger) merge(ctx context.Context, files []input, to io.Writer) (ltx.Header, error) {
	cursors, err := start(ctx, files)
	defer func() {
		for _, c := range cursors {
			if c != nil && !c.ended {
				c.src.Close()
			}
		}
	}()
	if err != nil {
		return ltx.Header{}, err
	}
	head := cursors[len(cursors)-1].header
	head.MinTXID, head.Flags, head.PreApplyChecksum = files[0].min, ltx.HeaderFlagNoChecksum, 0
	w := ltxfile.NewWriter(to, m.dir)
	defer w.Discard()
	if err := w.WriteHeader(head); err != nil {
		return head, err
	}
	plain := make([]byte, head.PageSize)
	for _, c := range cursors {
		if err := c.next(plain); err != nil {
			return head, err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return head, context.Cause(ctx)
		}
		newest := lowest(cursors)
		if newest == nil {
			return head, w.Close()
		}
		pgno := newest.frame.Pgno
		if pgno <= head.Commit {
			if err := w.WriteSum(pgno, newest.frame.Block, newest.frame.Sum); err != nil {
				return head, err
			}
		}
		for _, c := range cursors {
			if !c.ended && c.frame.Pgno == pgno {
				if err := c.next(plain); err != nil {
					return head, err
				}
			}
		}
	}
}

// start opens the files and holds their headers against each other.
func start(ctx context.Context, files []input) ([]*cursor, error) {
	cursors := make([]*cursor, len(files))
	g := group.New() // without a context of its own: what it opens outlives it
	g.SetLimit(opening)
	for i, in := range files {
		g.Go(func() (err error) {
			cursors[i], err = in.start(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return cursors, err
	}
	for i, c := range cursors {
		if size := cursors[0].header.PageSize; c.header.PageSize != size {
			return cursors, c.failed(fmt.Errorf("%w: its pages have %d bytes, those before it %d", ltxfile.ErrCorrupt, c.header.PageSize, size))
		}
		switch {
		case c.min == 1:
			c.grown = 0
		case i > 0:
			c.grown = cursors[i-1].header.Commit
		default:
			c.grown = math.MaxUint32
		}
	}
	return cursors, nil
}

// lowest returns the newest cursor of those at the lowest page; nil when all have
// ended.
func lowest(cursors []*cursor) (at *cursor) {
	for _, c := range cursors {
		if !c.ended && (at == nil || c.frame.Pgno <= at.frame.Pgno) {
			at = c
		}
	}
	return at
}

// create stores the output. A try whose outcome is not known is made again, and
// what it may have left of an upload is aborted.
func create(ctx context.Context, store objstore.Store, o objstore.Object, body objstore.Body, m objstore.Meta) (objstore.Object, error) {
	var uploads []string
	exists, tries := false, 0
	name := objstore.Object{Level: o.Level, Min: o.Min, Max: o.Max}
	err := retry.Do(ctx, func() error {
		tries++
		err := store.Create(ctx, name, body, m, func(id string) { uploads = append(uploads, id) })
		if exists = errors.Is(err, objstore.ErrExist); exists {
			return nil
		}
		return err
	})
	if err != nil || tries > 1 || exists {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		for _, id := range uploads {
			_ = store.AbortUpload(clean, name, id)
		}
	}
	if err != nil || !exists {
		return o, err
	}
	return there(ctx, store, name)
}

// there looks at an object that was there already: its name and its header must
// say the same.
func there(ctx context.Context, store objstore.Store, name objstore.Object) (objstore.Object, error) {
	found, ok := name, false
	var broken error
	err := retry.Do(ctx, func() error {
		_, _, err := objstore.ReadHeader(ctx, store, name)
		if errors.Is(err, ltx.ErrInvalidFile) {
			broken = err
			return nil
		} else if err != nil {
			return err
		}
		all, err := store.List(ctx, name.Level, name.Min)
		for _, o := range all {
			if o.Min == name.Min && o.Max == name.Max {
				found, ok = o, true
			}
		}
		return err
	})
	switch {
	case err != nil:
		return found, err
	case broken != nil:
		return found, fmt.Errorf("what is there under that name is not it, remove it: %w", broken)
	case !ok:
		return found, fmt.Errorf("%v: %w: it was there a moment ago", name, objstore.ErrNotExist)
	}
	return found, nil
}
