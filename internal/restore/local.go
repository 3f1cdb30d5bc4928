package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/walferry/walferry/internal/group"
	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/ledger"
)

// keep copies the old database and finds the pages whose sums its ledger knows and has
// right; the new ledger gets those. The old one is locked meanwhile, so that file and
// ledger stay what they are.
func (d *patch) keep(ctx context.Context, t *target, from *origin) error {
	unlock, err := t.claim()
	if err != nil {
		return err
	}
	defer unlock()
	now, l, err := t.origin(d.store.String())
	if err != nil {
		return err
	}
	defer l.Close()
	if *now != *from {
		return fmt.Errorf("%w: its ledger has changed just now", ErrInUse)
	}
	old, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("read the database that is there: %w", err)
	}
	defer old.Close()
	fi, err := old.Stat()
	if err != nil {
		return fmt.Errorf("read the database that is there: %w", err)
	}
	size := min(fi.Size(), int64(d.pages)*int64(d.pageSize))
	if err := d.plausible(uint32(size / int64(d.pageSize))); err != nil {
		return err
	}
	if err := clone(ctx, d.db, old, size); err != nil {
		return fmt.Errorf("copy the database that is there: %w", err)
	}
	if err := d.ledger.Grow(d.pages); err != nil {
		return err
	}
	return d.sumPages(ctx, l, uint32(size/int64(d.pageSize)))
}

// clone makes dst the first size bytes of src, by reference where the file system can.
func clone(ctx context.Context, dst, src *os.File, size int64) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return dst.Truncate(size)
	}
	const step = 64 << 20 // after which to look whether to stop
	for off := int64(0); off < size; {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, w := off, off
		n, err := unix.CopyFileRange(int(src.Fd()), &r, int(dst.Fd()), &w, int(min(step, size-off)), 0)
		if n > 0 {
			off += int64(n)
			continue
		}
		if err == unix.EINTR {
			continue
		}
		m, err := io.Copy(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, min(step, size-off)))
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		off += m
	}
	return nil
}

// sumPages holds the first n pages of the copy against the old ledger, on every core.
func (d *patch) sumPages(ctx context.Context, l *ledger.Ledger, n uint32) error {
	const stretch = 1 << 20 // bytes read at a time
	step := uint32(stretch / d.pageSize)
	g, ctx := group.WithContext(ctx)
	workers := uint32(min(runtime.GOMAXPROCS(0), 8))
	for w := range workers {
		g.Go(func() error {
			buf := make([]byte, stretch)
			for first := w*step + 1; first <= n && first > w*step; first += workers * step {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				pages := buf[:min(step, n-first+1)*d.pageSize]
				if _, err := d.db.ReadAt(pages, int64(first-1)*int64(d.pageSize)); err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("read the copy of the database: %w", err)
				}
				for p := first; len(pages) > 0; p, pages = p+1, pages[d.pageSize:] {
					page := pages[:d.pageSize]
					switch entry := l.Sum(p); {
					case p == d.lockPage():
						clear(page) // as every restore leaves it
						if _, err := d.db.WriteAt(page, int64(p-1)*int64(d.pageSize)); err != nil {
							return fmt.Errorf("write database: %w", err)
						}
					case entry != 0 && entry == ledger.PageSum(p, page):
						d.ledger.SetSum(p, entry)
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}
