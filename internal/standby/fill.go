package standby

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// standby is a database that is kept up to date. It belongs to one goroutine.
type standby struct {
	store   objstore.Store
	path    string
	c       *conn
	file    *positionFile
	pos     position
	decoder *ltxfile.Decoder

	version int64 // SQLite's data_version when the pages were known
	scans   int   // how often the pages were summed because of it
	anew    bool  // take what is in the database as it is, instead of holding it against the position
}

// open makes the standby ready: where there is none yet, it is filled.
func open(ctx context.Context, store objstore.Store, out string, opts Options) (s *standby, filled bool, err error) {
	path, err := filepath.Abs(out)
	if err != nil {
		return nil, false, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	_, err = os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("look at standby: %w", err)
	}
	exists := err == nil
	if !exists && !opts.Force {
		// What another database has left would be taken for this one's.
		for _, suffix := range []string{"-wal", "-shm", "-journal", ledger.Suffix} {
			if _, err := os.Lstat(path + suffix); err == nil {
				return nil, false, fmt.Errorf("%w: %s is not there, but %s%s; remove that, or -force does", ErrExists, out, out, suffix)
			}
		}
	}
	if _, err := os.Lstat(path + Suffix); exists && errors.Is(err, fs.ErrNotExist) && !opts.Force {
		return nil, false, fmt.Errorf("%w: %s; give another name, or -force to replace it", ErrExists, out)
	}
	s = &standby{store: store, path: path, decoder: ltxfile.NewDecoder(), version: -1}
	made, found := s, false
	s.file, s.pos, found, err = openPosition(path+Suffix, true)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", out, err)
	}
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	switch {
	case exists && !found && !opts.Force:
		return nil, false, fmt.Errorf("%w: %s%s says nothing; give another name, or -force to replace %s", ErrExists, out, Suffix, out)
	case exists && found:
		if err = s.resume(ctx, opts.Force); err == nil && opts.Force {
			err = s.fits(ctx)
		}
		if err == nil || !opts.Force || ctx.Err() != nil {
			return s, false, err
		}
		// It is no database any more, or of another page size.
		if s.c != nil {
			s.c.close()
			s.c = nil
		}
		s.anew = false
	}
	if err = s.fill(ctx, exists || opts.Force, opts); err != nil {
		if !exists {
			os.Remove(path + Suffix) // nothing is left behind, and it is locked
		}
		return nil, false, err
	}
	err = s.resume(ctx, false)
	return s, true, err
}

// resume opens the database and finds out where it is.
func (s *standby) resume(ctx context.Context, force bool) (err error) {
	if s.c, err = openConn(s.path); err != nil {
		return err
	}
	s.c.busyTimeout(busyMs)
	// A schema that this SQLite does not understand, because the application has
	// functions of its own, is none of its business: hence writable_schema.
	err = s.c.exec(`PRAGMA writable_schema=ON; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;
		PRAGMA journal_size_limit=4194304; PRAGMA cache_size=-8192`)
	if err != nil {
		return fmt.Errorf("open standby: %w", err)
	}
	pages, err := s.c.number("PRAGMA page_count")
	if err != nil {
		return fmt.Errorf("open standby: %w", err)
	}
	size, err := s.c.number("PRAGMA page_size")
	if err != nil {
		return fmt.Errorf("open standby: %w", err)
	}
	if uint32(size) != s.pos.PageSize || pages == 0 {
		return fmt.Errorf("%w: it has %d pages of %d bytes, not %d of %d", ErrWritten, pages, size, s.pos.At.Pages, s.pos.PageSize)
	}
	switch mode, err := s.c.word("PRAGMA journal_mode=WAL"); {
	case err != nil:
		return fmt.Errorf("switch standby to WAL mode: %w", err)
	case mode != "wal":
		return fmt.Errorf("%w: it is in journal mode %s and cannot be switched to WAL: close the programs that have it open", ErrWritten, mode)
	}
	if force {
		s.anew = true
		return nil
	}
	if err := s.c.exec("BEGIN"); err != nil {
		return fmt.Errorf("read standby: %w", err)
	}
	err = s.verify(ctx)
	if err == nil {
		s.version, err = s.c.number("PRAGMA data_version")
	}
	return errors.Join(err, s.c.exec("ROLLBACK"))
}

// fits looks whether the replica's pages are of the standby's size. A replica that
// does not answer is assumed to be.
func (s *standby) fits(ctx context.Context) error {
	h, err := history.List(ctx, s.store)
	if err != nil {
		return nil
	}
	p, err := h.Plan(0)
	if err != nil {
		return nil
	}
	head, _, err := objstore.ReadHeader(ctx, s.store, p.Files[0])
	if err == nil && head.PageSize != s.pos.PageSize {
		return fmt.Errorf("%w: its pages have %d bytes", ErrHistory, head.PageSize)
	}
	return nil
}

// fill restores the database. It is prepared under another name, so that it is
// complete, and known to its position, when it gets its own.
func (s *standby) fill(ctx context.Context, replace bool, opts Options) error {
	target := s.path
	if !replace {
		target = filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+".walferry-follow")
	}
	r, err := restore.Restore(ctx, s.store, target, restore.Options{Force: true, Progress: opts.Progress})
	if err != nil {
		return err
	}
	head, err := disown(target)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("fill standby: %w", err)
	}
	got, err := sumFile(bufio.NewReaderSize(f, 1<<20), r.PageSize, r.Pages)
	if err == nil {
		_, err = f.WriteAt([]byte{2, 2}, 18) // WAL mode, as fit has it
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fill standby: %w", err)
	}
	s.pos = position{Replica: s.store.String(), PageSize: r.PageSize, At: Point{
		TXID: r.TXID, TimeMs: r.Time.UnixMilli(), Head: head,
		Pages: got.pages, Rest: got.rest, One: got.one, Own: got.own,
	}}
	if err := s.file.write(s.pos, true); err != nil {
		return err
	}
	if !replace {
		err := unix.Renameat2(unix.AT_FDCWD, target, unix.AT_FDCWD, s.path, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // the file system cannot
			err = os.Rename(target, s.path)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("fill standby: give it its name: %w", err), os.Remove(target))
		}
	}
	d, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	return d.Sync()
}

// disown removes a restored database's ledger, which would let it go on with the
// replica's history beside the database that it is a copy of. It returns the sum of
// the newest object's header.
func disown(path string) (head uint64, err error) {
	l, err := ledger.OpenReadOnly(path)
	if err != nil {
		return 0, fmt.Errorf("fill standby: %w", err)
	}
	head = l.Header().HeadSum
	l.Close()
	if err := os.Remove(path + ledger.Suffix); err != nil {
		return 0, fmt.Errorf("fill standby: %w", err)
	}
	return head, nil
}

// close ends the work on the database. As SQLite's last connection it leaves no WAL.
func (s *standby) close() {
	if s.c != nil {
		s.c.close()
	}
	s.file.close()
}
