package replica

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// View is one state of the database: which pages it has and where in the store each of them
// lies. It is not changed once it is made; all methods may be called from any goroutine.
type View struct {
	TXID     ltx.TXID
	Time     time.Time // of its last transaction's object
	PageSize uint32
	Pages    uint32

	head  objstore.Object   // its last transaction's own, or where that has gone the last file
	files []objstore.Object // some of those it was made of
	root  *View             // the state of the plan's first file; nil: this one
	made  uint32            // rises from view to view
	line  *int              // the same in all views that were made from each other
	table *table

	window atomic.Pointer[objstore.Window] // which the head ends; nil: nobody has asked
}

// Size is the database's, in bytes.
func (v *View) Size() int64 { return int64(v.PageSize) * int64(v.Pages) }

// descends reports whether v and another state are of one history.
func (v *View) descends(of *View) bool {
	return v == of || v.line == of.line
}

// is reports whether v and another view are the same state. What replaces a state's files
// bears its time, to the millisecond.
func (v *View) is(other *View) bool {
	return v.TXID == other.TXID && (v.descends(other) || !v.Time.IsZero() && v.Time.Equal(other.Time))
}

// maxProofs is how many files a View remembers.
const maxProofs = 64

// build makes the view to which a plan's files lead from base; nil is from nothing. Small files'
// pages are given to the cache.
func (s *Source) build(ctx context.Context, base *View, objects []objstore.Object) (*View, error) {
	ends := s.lookInto(ctx, objects)
	defer ends.close()
	h, err := ends.header()
	if err != nil {
		return nil, err
	}
	rest := objects
	if base == nil {
		f, err := ends.next()
		if err == nil {
			base, err = s.snapshot(ctx, f, h.PageSize)
		}
		if err != nil {
			return nil, err
		}
		rest = objects[1:]
	}
	v := base
	if len(rest) > 0 {
		if v, err = s.extend(ctx, base, rest, ends, h); err != nil {
			return nil, err
		}
	} else if skip := ledger.LockPage(h.PageSize); v.Pages != h.Commit && (h.Commit != skip || v.Pages != skip-1) {
		return nil, fmt.Errorf("%w: %v has %d pages, and its header says %d", ltxfile.ErrCorrupt, v.head, v.Pages, h.Commit)
	}
	v.Time = timeOf(h)
	return v, nil
}

func timeOf(h ltx.Header) time.Time { return time.UnixMilli(h.Timestamp).UTC() }

// snapshot makes the view of a file that holds every page.
func (s *Source) snapshot(ctx context.Context, f *file, pageSize uint32) (*View, error) {
	v := &View{TXID: f.object.Max, PageSize: pageSize, head: f.object, files: []objstore.Object{f.object}, made: lastView.Add(1), line: new(int)}
	e, skip := new(table).edit(), ledger.LockPage(pageSize)
	err := s.index(ctx, f, ltx.Header{PageSize: pageSize, Commit: math.MaxUint32}, func(entry ltxfile.Entry) error {
		next := v.Pages + 1
		if next == skip {
			next++
		}
		if entry.Pgno != next {
			return fmt.Errorf("%w: page %d is not in it", ltxfile.ErrCorrupt, next)
		}
		v.Pages = next
		s.place(e, f, entry, pageSize)
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.table, _ = e.end(v.Pages, skip)
	return v, nil
}

// extend makes the view to which objects lead from another. h is the last one's header, and ends gives
// what is in them.
func (s *Source) extend(ctx context.Context, base *View, objects []objstore.Object, ends *ends, h ltx.Header) (*View, error) {
	v := &View{TXID: h.MaxTXID, PageSize: h.PageSize, Pages: h.Commit, head: objects[len(objects)-1], root: base.root, made: lastView.Add(1), line: base.line}
	if v.root == nil {
		v.root = base
	}
	if base.PageSize != v.PageSize {
		return nil, fmt.Errorf("%w: the page size changes from %d to %d", ltxfile.ErrCorrupt, base.PageSize, v.PageSize)
	}
	room := int64(0)
	v.files = slices.Concat(base.files, objects)
	for _, o := range objects {
		room += o.Size / (ltx.PageHeaderSize + 1)
	}
	v.files = v.files[max(0, len(v.files)-maxProofs):]
	// What a header claims takes memory, so the files must be able to hold it.
	if int64(v.Pages)-int64(base.Pages) > room+1 {
		return nil, fmt.Errorf("%w: %v says that the database has %d pages", ltxfile.ErrCorrupt, v.head, v.Pages)
	}
	e, skip := base.table.edit(), ledger.LockPage(v.PageSize)
	for range objects {
		f, err := ends.next()
		if err != nil {
			return nil, err
		}
		// The last one's header is known. In what is before it, pages beyond its size are some
		// that were cut off since, and a page of another size shows when it is unpacked.
		bound := ltx.Header{PageSize: h.PageSize, Commit: math.MaxUint32}
		if f.object == v.head {
			bound = h
		}
		err = s.index(ctx, f, bound, func(entry ltxfile.Entry) error {
			if entry.Pgno == skip {
				return fmt.Errorf("%w: it has page %d, which is that of SQLite's locks", ltxfile.ErrCorrupt, skip)
			}
			if entry.Pgno <= v.Pages {
				s.place(e, f, entry, v.PageSize)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	t, missing := e.end(v.Pages, skip)
	if t == nil {
		return nil, fmt.Errorf("%w: page %d of %d at TXID %s is in no file", ltxfile.ErrCorrupt, missing, v.Pages, v.TXID)
	}
	v.table = t
	return v, nil
}

// place enters where a page lies, and keeps the page if it has come with the index.
func (s *Source) place(e *edit, f *file, entry ltxfile.Entry, pageSize uint32) {
	e.set(entry.Pgno, place{f.id, entry.Offset, int(entry.Size)})
	if int64(len(f.tail)) == f.object.Size {
		s.warm(pageKey{f.id, entry.Pgno}, pageSize, f.tail[entry.Offset:entry.Offset+entry.Size])
	}
}
