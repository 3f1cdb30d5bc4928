package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objread"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/retry"
)

const (
	// A batch is decoded at a time: objects until they come to batchBytes, but
	// at least one and at most batchObjects.
	batchBytes   = 16 << 20
	batchObjects = 64

	// parallel is how many objects of a batch are downloaded at a time.
	parallel = 8
)

// file is what an object holds, without its pages.
type file struct {
	object   objstore.Object
	header   ltx.Header // zero if it could not be read
	pages    []uint32
	sums     []uint64
	checksum uint64 // that it carries; 0: none

	wrong   error // what is wrong with it
	foreign bool  // its header is that of another object
	gone    bool  // it has left the store
}

// Begin is part of ltxfile.Sink.
func (f *file) Begin(h ltx.Header, _ []byte) error {
	f.header = h
	if h.MinTXID != f.object.Min || h.MaxTXID != f.object.Max {
		f.foreign = true
		return fmt.Errorf("its header says that it is %s", ltx.FormatFilename(h.MinTXID, h.MaxTXID))
	}
	return nil
}

// Admit is part of ltxfile.Sink.
func (f *file) Admit(pgno uint32) error {
	if pgno == ledger.LockPage(f.header.PageSize) {
		return fmt.Errorf("it holds the lock page, %d", pgno)
	}
	return nil
}

// Put is part of ltxfile.Sink.
func (f *file) Put(uint32, []byte) error { return nil }

// Summed is part of ltxfile.Sink.
func (f *file) Summed(pgno uint32, sum uint64) error {
	f.pages = append(f.pages, pgno)
	f.sums = append(f.sums, sum)
	return nil
}

// decoders are those that are not in use.
var decoders = sync.Pool{New: func() any { return ltxfile.NewDecoder() }}

// decode reads objects. The error is the store's: what is wrong with an object is told
// by its file.
func decode(ctx context.Context, store objstore.Store, objects []objstore.Object) ([]*file, error) {
	files := make([]*file, len(objects))
	g, ctx := group.WithContext(ctx)
	g.SetLimit(parallel)
	for i, o := range objects {
		files[i] = &file{object: o}
		g.Go(func() error { return files[i].read(ctx, store) })
	}
	return files, g.Wait()
}

func (f *file) read(ctx context.Context, store objstore.Store) error {
	d := decoders.Get().(*ltxfile.Decoder)
	defer decoders.Put(d)
	r := objread.New(ctx, store, f.object)
	defer r.Close()
	err := d.Decode(ctx, r, f)
	if failed := new(ltxfile.SourceError); errors.As(err, &failed) || ctx.Err() != nil {
		if errors.Is(err, objstore.ErrNotExist) {
			f.gone = true
			return nil
		}
		return fmt.Errorf("read %s: %w", f.object, err)
	}
	if f.wrong = err; err != nil {
		f.pages, f.sums = nil, nil
		return nil
	}
	err = retry.Do(ctx, func() error {
		m, err := store.Meta(ctx, f.object)
		f.checksum = m.Checksum
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		f.gone = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read checksum of %s: %w", f.object, err)
	}
	return nil
}
