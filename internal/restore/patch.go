package restore

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"sync"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

const (
	// maxWanted bounds the pages of a delta, each of which takes 24 bytes of memory.
	maxWanted = 1 << 20

	// gap is how many bytes between two frames are read for nothing rather than
	// with another request.
	gap = 32 << 10
)

// patch is a delta under way. The pages that it need not download are those of which
// the new ledger has a sum; the others are wanted.
type patch struct {
	*attempt
	tails *tails

	mu     sync.Mutex // while several indexes are read
	least  uint32     // pages that any of these files' databases has
	wanted uint32     // pages
	rank   []uint32   // wanted pages before each 64 of the database
	want   []uint64   // a bit for each page that is wanted, page 1 first
	places []frameAt  // of the wanted pages, in their order
}

// frameAt is where a page lies.
type frameAt struct {
	file int32 // of the plan; -1: nowhere yet
	pgno uint32
	size int32
	off  int64
}

// last reads the header of the plan's last file, which tells what the result is like.
func (d *patch) last(ctx context.Context, from *origin) error {
	o := d.Plan.Files[len(d.Plan.Files)-1]
	tail, err := d.tails.tail(ctx, o)
	if err != nil {
		d.failed = &o
		return err
	}
	h, raw, err := header(o, d.tails.opener(ctx, o, tail))
	if err != nil {
		d.failed = &o
		return err
	}
	if h.PageSize != from.pageSize {
		return insteadBecause("the page size was %d and is %d", from.pageSize, h.PageSize)
	}
	d.object, d.header, d.pageSize, d.pages = o, h, h.PageSize, h.Commit
	copy(d.raw[:], raw)
	return nil
}

// plausible guards against a header that speaks of pages which no file can hold: all that
// the old database lacks must be in the plan.
func (d *patch) plausible(have uint32) error {
	if least := int64(d.pages) - int64(have); least > d.Plan.Size()/ltx.PageHeaderSize {
		return insteadBecause("%s says that the database has %d pages", d.object, d.pages)
	}
	return nil
}

// indexes reads the indexes of several objects of the plan or the cover, many at a time.
func (d *patch) indexes(ctx context.Context, objects []objstore.Object, each func(i int, e ltxfile.Entry)) error {
	g, ctx := group.WithContext(ctx)
	g.SetLimit(windowParts)
	for i, o := range objects {
		g.Go(func() error {
			for e, err := range d.tails.index(ctx, o, d.fits) {
				if err != nil {
					d.mu.Lock()
					defer d.mu.Unlock()
					if d.failed == nil {
						d.failed = &o
					}
					return err
				}
				each(i, e)
			}
			return nil
		})
	}
	return g.Wait()
}

// fits refuses a file of another database.
func (d *patch) fits(h ltx.Header, _ []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.least = min(d.least, h.Commit)
	if h.PageSize != d.pageSize {
		return insteadBecause("the replica has files with pages of %d bytes and of %d", h.PageSize, d.pageSize)
	}
	return nil
}

// drop wants the pages that files hold, whatever the old database has of them, and then all
// of which nothing is known. A merged file does not hold what was changed and then
// cut off again before its end, which may lie beyond the states that are compared: so
// all beyond its size is wanted too. Where it grew again since, other files hold that anyway.
func (d *patch) drop(ctx context.Context, cover []objstore.Object) error {
	d.least = d.pages
	err := d.indexes(ctx, cover, func(_ int, e ltxfile.Entry) {
		if e.Pgno <= d.pages {
			d.ledger.SetSum(e.Pgno, 0)
		}
	})
	if err != nil {
		return err
	}
	d.ledger.ForgetFrom(d.least)
	words := (int(d.pages) + 63) / 64
	d.want, d.rank = make([]uint64, words), make([]uint32, words)
	for p := uint32(1); p <= d.pages && p != 0; p++ {
		if i := (p - 1) / 64; (p-1)%64 == 0 {
			d.rank[i] = d.wanted
		}
		if p != d.lockPage() && d.ledger.Sum(p) == 0 {
			d.want[(p-1)/64] |= 1 << ((p - 1) % 64)
			d.wanted++
		}
	}
	if d.wanted > maxWanted {
		return insteadBecause("%d of %d pages differ", d.wanted, d.pages)
	}
	d.places = make([]frameAt, d.wanted)
	for i := range d.places {
		d.places[i].file = -1
	}
	return nil
}

// nth is the place of a page among those that are wanted, if it is.
func (d *patch) nth(pgno uint32) (int, bool) {
	if pgno > d.pages {
		return 0, false
	}
	word, bit := (pgno-1)/64, uint64(1)<<((pgno-1)%64)
	if d.want[word]&bit == 0 {
		return 0, false
	}
	return int(d.rank[word]) + bits.OnesCount64(d.want[word]&(bit-1)), true
}

// locate finds for each wanted page the newest file of the plan that holds it: from the
// newest on, more and more at a time, until all are found. The first file, which
// holds them all and has the longest index, is asked last.
func (d *patch) locate(ctx context.Context) error {
	found := uint32(0)
	look := func(first int, files []objstore.Object) error {
		return d.indexes(ctx, files, func(i int, e ltxfile.Entry) {
			n, ok := d.nth(e.Pgno)
			if !ok {
				return
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			at := &d.places[n]
			if at.file < 0 {
				found++
			}
			if file := int32(first + i); file > at.file {
				*at = frameAt{file, e.Pgno, int32(e.Size), e.Offset}
			}
		})
	}
	var err error
	for end, n := len(d.Plan.Files), windowParts; end > 0 && err == nil && found < d.wanted; n *= 2 {
		first := max(1, end-n)
		if end == 1 {
			first = 0
		}
		err = look(first, d.Plan.Files[first:end])
		end = first
	}
	if err == nil && found < d.wanted {
		err = insteadBecause("%d pages are in no file of the replica", d.wanted-found)
	}
	return err
}

// download reads the wanted pages and writes them.
func (d *patch) download(ctx context.Context) error {
	slices.SortFunc(d.places, func(a, b frameAt) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.off, b.off))
	})
	total, done := int64(0), int64(0)
	for s := range d.spans() {
		total += int64(s.n)
	}
	if full := d.Plan.Size(); total > full/10*9 {
		return insteadBecause("%d of %d pages differ", d.wanted, d.pages)
	}
	d.opts.Progress(0, total)
	f := fetch(ctx, d.store, func(yield func(span) bool) {
		for s := range d.spans() {
			if !yield(s.span) {
				return
			}
		}
	})
	defer f.stop()
	page, next := make([]byte, d.pageSize), 0
	for s := range d.spans() {
		next = s.first
		p, err := f.take(ctx)
		if err != nil {
			d.failed = &s.object
			return err
		}
		for _, at := range d.places[next : next+s.frames] {
			if err := d.write(at, p.buf[at.off-s.off:][:at.size], page); err != nil {
				return err
			}
		}
		f.release(p)
		done += int64(s.n)
		d.opts.Progress(done, total)
	}
	for _, at := range d.places {
		if b := d.tails.whole(d.Plan.Files[at.file]); b != nil {
			if err := d.write(at, b[at.off:][:at.size], page); err != nil {
				return err
			}
		}
	}
	return nil
}

// framesIn is a span and the places that lie in it.
type framesIn struct {
	span
	first, frames int
}

// spans yields what is to be requested, in order: frames that lie close to each other
// together, and none of a file that is there already.
func (d *patch) spans() func(yield func(framesIn) bool) {
	return func(yield func(framesIn) bool) {
		for i := 0; i < len(d.places); {
			at := d.places[i]
			o, end, j := d.Plan.Files[at.file], at.off+int64(at.size), i+1
			for ; j < len(d.places); j++ {
				to := d.places[j]
				if to.file != at.file || to.off-end > gap || to.off+int64(to.size)-at.off > partSize {
					break
				}
				end = to.off + int64(to.size)
			}
			if d.tails.whole(o) == nil && !yield(framesIn{span{o, at.off, int(end - at.off)}, i, j - i}) {
				return
			}
			i = j
		}
	}
}

// write decompresses a frame to its page.
func (d *patch) write(at frameAt, frame, page []byte) error {
	if err := ltxfile.UnpackFrame(ltxfile.Entry{Pgno: at.pgno, Offset: at.off, Size: int64(at.size)}, frame, page); err != nil {
		d.failed = &d.Plan.Files[at.file]
		return err
	}
	d.ledger.SetSum(at.pgno, ledger.PageSum(at.pgno, page))
	return d.Put(at.pgno, page)
}
