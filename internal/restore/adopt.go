package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// Errors of an adoption.
var (
	// ErrClaimed is returned when the database's ledger speaks of a history already.
	ErrClaimed = errors.New("database has a replica")
	// ErrDiffers is returned when the database is not what the replica holds.
	ErrDiffers = errors.New("database differs from the replica")
)

// Local is a database as it is here, in one committed state.
type Local struct {
	PageSize, Pages uint32
	// Each calls f for every page, in any order, and ends with its error.
	Each func(f func(pgno uint32, page []byte) error) error
}

// Adoption says how a database and a replica were found to be the same.
type Adoption struct {
	Result
	Differ uint32 // pages that differ, or that only one of the two has
}

// Adopt gives a database a ledger by which walferry goes on with the history that a
// store holds, whoever wrote it, after it has read the newest state of that and found it to
// be the database's. With newer the database may be a later state: up to half of its pages
// may differ, and ship with the first batch. On an error nothing has changed.
//
// The database itself is neither opened nor changed; look reads it, once. It is not to be
// called in a process that has the database open with walferry.
func Adopt(ctx context.Context, store objstore.Store, database string, newer bool, look func(context.Context) (Local, error)) (Adoption, error) {
	path, err := filepath.EvalSymlinks(database)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return Adoption{}, fmt.Errorf("adopt: %w", err)
	}
	a := &adoption{ctx: ctx, path: path, newer: newer, look: look}
	if err := a.vacant(); err != nil {
		return Adoption{}, err
	}
	r, err := run(ctx, store, a, Options{})
	return Adoption{r, a.differ}, err
}

// adoption is the place of a ledger without a database.
type adoption struct {
	ctx    context.Context
	path   string
	newer  bool
	look   func(context.Context) (Local, error)
	built  *builder
	tmp    string
	differ uint32
}

// vacant is nil if the database has no ledger, or one that speaks of no history and
// that no process uses.
func (a *adoption) vacant() error {
	l, err := ledger.OpenReadOnly(a.path)
	if err != nil {
		return nil // none, or none that is whole
	}
	defer l.Close()
	if l.Locked() {
		return fmt.Errorf("%w: a process has %s open with walferry; stop it first", ErrInUse, a.path)
	}
	if h := l.Header(); l.Check() == nil && h.TXID != 0 {
		return fmt.Errorf("%w already: its ledger is that of %s; if that is given up, remove %s", ErrClaimed, h.Replica(), l.Path())
	}
	return nil
}

func (a *adoption) create() (*builder, error) {
	a.tmp = filepath.Join(filepath.Dir(a.path), fmt.Sprintf(".%s.walferry-adopt-%s", filepath.Base(a.path), rand.Text()[:12]))
	l, err := ledger.Open(a.tmp)
	if err != nil {
		return nil, err
	}
	a.built = &builder{ledger: l, lasting: true}
	return a.built, l.Reset(a.path)
}

// commit compares, and gives the ledger its name.
func (a *adoption) commit(bool) error {
	local, err := a.look(a.ctx)
	if err != nil {
		return err
	}
	if err := a.compare(local); err != nil {
		return err
	}
	if err := a.vacant(); err != nil {
		return err
	}
	if err := os.Rename(a.tmp+ledger.Suffix, a.path+ledger.Suffix); err != nil {
		return fmt.Errorf("name ledger: %w", err)
	}
	return (&target{path: a.path}).syncDir()
}

func (a *adoption) compare(local Local) error {
	b := a.built
	if local.PageSize != b.pageSize {
		return fmt.Errorf("%w: its pages have %d bytes, the replica's %d: they are not the same database", ErrDiffers, local.PageSize, b.pageSize)
	}
	a.differ = max(local.Pages, b.pages) - min(local.Pages, b.pages)
	err := local.Each(func(pgno uint32, page []byte) error {
		if pgno <= b.pages && pgno != b.lockPage() && ledger.PageSum(pgno, page) != b.ledger.Sum(pgno) {
			a.differ++
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("read database: %w", err)
	case a.differ == 0:
		return nil
	case a.differ > local.Pages/2:
		return fmt.Errorf("%w: %d of its %d pages: they do not look like the same database; open it with takeover=1 if it is to replace what is there", ErrDiffers, a.differ, local.Pages)
	case !a.newer:
		return fmt.Errorf("%w: %d of its %d pages: let the other program ship the rest first, or say -newer if the database is a later state of what the replica holds", ErrDiffers, a.differ, local.Pages)
	}
	return nil
}

func (a *adoption) discard() {
	if a.built != nil {
		a.built.ledger.Close()
		os.Remove(a.tmp + ledger.Suffix)
	}
	a.built = nil
}
