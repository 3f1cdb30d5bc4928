package vfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/shipper"
)

// database is one file's replication in this process, shared by its connections
// and handles.
type database struct {
	path  string
	opts  options
	store objstore.Store
	ship  *shipper.Shipper

	// Protected by process.mu.
	refs   int            // connections and handles
	drain  *shipper.Drain // begun by the last connection's close
	closed bool
}

// newStore is the system's, save in tests.
var newStore = objstore.New

// requireTimeout bounds an open with require=1.
const requireTimeout = 30 * time.Second

// join returns the database of a path with one more reference. why tells of a
// database that cannot be replicated and may be used all the same.
func (p *process) join(path string, o options) (db *database, why string, err error) {
	if fs := onNetwork(filepath.Dir(path)); fs != "" {
		why = "the database is on a network file system (" + fs + "), where the ledger cannot be shared"
	} else {
		db, why, err = p.lookup(path, o)
	}
	if err != nil {
		return nil, "", err
	}
	if why != "" {
		if o.require {
			return nil, "", errors.New("require=1: " + why)
		}
		cext.Log(cext.LogError, path+": nothing ships: "+why)
		return nil, why, nil
	}
	if o.require {
		wait(db.ship.Ready(), requireTimeout)
		if err := db.ship.Err(); err != nil {
			p.leave(db)
			return nil, "", fmt.Errorf("require=1: %w", err)
		}
	}
	return db, "", nil
}

func (p *process) lookup(path string, o options) (db *database, why string, err error) {
	defer p.passThrough(&why)
	p.mu.Lock()
	defer p.mu.Unlock()
	if why := p.whyBroken(); why != "" {
		return nil, why, nil
	}
	if db := p.databases[path]; db != nil {
		if db.opts.replica != o.replica {
			return nil, "", fmt.Errorf("the database is open in this process with replica=%s, and cannot have another as well", db.store)
		}
		db.refs++
		return db, "", nil
	}
	traffic := new(shipper.Traffic)
	o.store.OnRequest = func(sent int64) {
		traffic.Requests.Add(1)
		traffic.Bytes.Add(uint64(max(0, sent)))
	}
	store, err := newStore(o.replica, o.store)
	if err != nil {
		return nil, "", err
	}
	var syncFirst func() error
	if o.syncFirst {
		syncFirst = (&walSync{database: path}).sync
	}
	ship := shipper.New(shipper.Config{
		Database: path, Store: store, Source: source(path),
		Interval: o.interval, Takeover: o.takeover, Sync: syncFirst, Keep: o.keep, Traffic: traffic,
		Descriptors: descriptors,
		Log: func(isError bool, line string) {
			level := cext.LogInfo
			if isError {
				level = cext.LogError
			}
			cext.Log(level, path+": "+line)
		},
		Panicked: p.Panicked,
	})
	db = &database{path: path, opts: o, store: store, ship: ship, refs: 1}
	p.databases[path] = db
	return db, "", nil
}

// markTimeout bounds walferry_mark(), which SQL cannot give a context.
const markTimeout = 60 * time.Second

// mark ends the window under way and names the state that the store then has.
func (db *database) mark(ctx context.Context, name string) (ltx.TXID, error) {
	m := objstore.Mark{Name: name, TXID: 1, Time: time.Now()}
	if err := m.Validate(); err != nil { // before anything is shipped for it
		return 0, err
	}
	var err error
	if m.TXID, err = db.ship.Sync(ctx); err != nil {
		return 0, err
	}
	if m.TXID == 0 {
		return 0, errors.New("there is nothing to mark yet: the database is empty")
	}
	return m.TXID, db.store.PutMark(ctx, m)
}

// leave gives a reference back. The last one waits for the last batch, at most
// as long as the close timeout says; somebody may join meanwhile.
func (p *process) leave(db *database) {
	p.mu.Lock()
	db.refs--
	d := db.drain
	db.drain = nil
	last := db.refs == 0
	p.mu.Unlock()
	if !last {
		return
	}
	deadline := time.Now().Add(db.opts.closeTimeout)
	if db.opts.closeTimeout > 0 {
		if d == nil {
			d = db.ship.Drain(deadline)
		}
		wait(d.Done(), db.opts.closeTimeout)
	}
	p.mu.Lock()
	end := db.refs == 0 && !db.closed
	if end {
		db.closed = true
		delete(p.databases, db.path)
	}
	p.mu.Unlock()
	if end {
		db.ship.Close(deadline)
		objstore.CloseIdle(db.store)
	}
}

// Status is what is known of a database's replication; see shipper.Status.
type Status = shipper.Status

// Database is a handle on one database's replication. While it is open the
// database goes on shipping, even where a connection pool has closed all
// connections. Its methods may be called from any goroutine.
type Database struct {
	db    *database
	close sync.Once
}

// Open returns a handle on a database, which need not be open yet. Options are
// as in Register; where the database is open already those of its first opening
// hold, and another replica is an error. Register must have been called.
//
// The error says what is wrong with the options, or why the database cannot be
// replicated.
func Open(path string, opts ...Option) (*Database, error) {
	full, err := fullPath(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	o, err := here.optionsFor(full, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := here.bringBack(full, o); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db, why, err := here.join(full, o)
	if why != "" {
		err = errors.New(why)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Database{db: db}, nil
}

// fullPath names a file as SQLite's VFS does, links resolved.
func fullPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil {
		return resolved, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(dir, filepath.Base(abs)), err
}

// Status reads the ledger; it neither waits nor asks the store.
func (d *Database) Status() Status { return d.db.ship.Status() }

// Sync ships what is committed now and returns the newest object's TXID. The
// error is the context's, or says why nothing can be shipped; then the commits
// are still queued, and Sync may be called again.
func (d *Database) Sync(ctx context.Context) (newest ltx.TXID, err error) {
	defer here.caught(&err)
	txid, err := d.db.ship.Sync(ctx)
	if err != nil {
		return 0, fmt.Errorf("sync %s: %w", d.db.path, err)
	}
	return txid, nil
}

// Mark ships what is committed now and gives the newest object a name, by which
// `walferry restore -mark` finds it; it returns the object's TXID. The name has 1 to
// 200 bytes of UTF-8 without control characters and need not be unique: the newest
// of a name is found. Retention keeps what the mark needs for as long as the option
// mark_retention says.
func (d *Database) Mark(ctx context.Context, name string) (newest ltx.TXID, err error) {
	defer here.caught(&err)
	txid, err := d.db.mark(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("mark %s: %w", d.db.path, err)
	}
	return txid, nil
}

// Close gives the handle up. If it was the last user of the database, it waits
// for the last batch, at most for the close timeout. A program that ends with
// os.Exit or returns from main must have called it, or its last second may be
// missing until the next start.
func (d *Database) Close() (err error) {
	defer here.caught(&err)
	d.close.Do(func() { here.leave(d.db) })
	return nil
}
