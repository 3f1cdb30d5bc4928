package vfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/group"
	"golang.org/x/sys/unix"
)

// Name is the VFS's name, as in `?vfs=walferry`.
const Name = "walferry"

// process is this process's side of the shim.
type process struct {
	mu         sync.Mutex // protects all fields; never held while the store is waited for
	registered []Option   // of Register
	databases  map[string]*database
	handles    map[uint64]*database // by connection
	nextHandle uint64

	broken atomic.Pointer[string] // a panic was caught: why nothing ships any more
}

var here = &process{databases: map[string]*database{}, handles: map[uint64]*database{}}

func init() { cext.SetHandler(here) }

// Register makes the VFS known to SQLite, over the default VFS, and adds
// walferry's SQL functions to every connection that is opened from now on. The
// options hold for all databases, unless a URI says otherwise. It may be called
// again; the newest options hold for databases that are opened later.
//
// The error says what SQLite or the environment lacks.
func Register(opts ...Option) error {
	o := defaults()
	for _, set := range opts {
		set(&o)
	}
	here.mu.Lock()
	here.registered = opts
	here.mu.Unlock()
	var env options
	if err := env.fromEnvironment(shipOptions, ""); err != nil {
		return fmt.Errorf("walferry: %w", err)
	}
	if o.makeDefault && o.replica == "" && env.replica == "" {
		return errDefaultWithoutReplica
	}
	return cext.Register(here, o.makeDefault)
}

var errDefaultWithoutReplica = errors.New("walferry cannot be the default VFS without a replica: set WALFERRY_REPLICA, for example to file:///backup/{name}")

// optionsFor collects a database's options: defaults, environment, Register or
// Open, URI.
func (p *process) optionsFor(path string, opts []Option, params map[string]string) (options, error) {
	o, err := p.collect(shipOptions, path, opts, params)
	if err != nil {
		return o, err
	}
	return o, o.validate()
}

func (p *process) collect(all []option, path string, opts []Option, params map[string]string) (options, error) {
	o := defaults()
	if err := o.fromEnvironment(all, path); err != nil {
		return o, err
	}
	p.mu.Lock()
	registered := p.registered
	p.mu.Unlock()
	for _, set := range registered {
		set(&o)
	}
	for _, set := range opts {
		set(&o)
	}
	o.replica = expand(o.replica, path)
	return o, o.fromURI(all, params)
}

// Check is called by the shim before a database's file is opened or made. It takes as
// long as a restore does where one is asked for.
func (p *process) Check(path string, params map[string]string) error {
	o, err := p.optionsFor(path, nil, params)
	if err == nil {
		_, err = newStore(o.replica, o.store)
	}
	if err != nil {
		return err
	}
	return p.bringBack(path, o)
}

// Open is called by the shim when a database is being opened.
func (p *process) Open(path string, params map[string]string) (cext.Opened, error) {
	o, err := p.optionsFor(path, nil, params)
	if err != nil {
		return cext.Opened{}, err
	}
	cext.SetLogLevel(o.logLevel)
	db, why, err := p.join(path, o)
	if err != nil || why != "" {
		return cext.Opened{Why: why}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextHandle++
	p.handles[p.nextHandle] = db
	return cext.Opened{Handle: p.nextHandle, AutoWAL: !o.keepWAL}, nil
}

func (p *process) byHandle(handle uint64) *database {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handles[handle]
}

// Last lets the last batch be read before the database goes away.
func (p *process) Last(handle uint64) {
	db := p.byHandle(handle)
	if db == nil || db.opts.closeTimeout == 0 {
		return
	}
	d := db.ship.Drain(time.Now().Add(db.opts.closeTimeout))
	p.mu.Lock()
	db.drain = d
	p.mu.Unlock()
	wait(d.Read(), db.opts.closeTimeout)
}

// Close ends a connection; the last one waits for its batch.
func (p *process) Close(handle uint64) {
	p.mu.Lock()
	db := p.handles[handle]
	delete(p.handles, handle)
	p.mu.Unlock()
	if db != nil {
		p.leave(db)
	}
}

// Status is PRAGMA walferry_status.
func (p *process) Status(handle uint64) string {
	db := p.byHandle(handle)
	if db == nil {
		return `{"state":"off","cause":"the connection is closed"}`
	}
	b, err := json.Marshal(db.ship.Status())
	if err != nil {
		return `{"state":"off","cause":"status cannot be encoded"}`
	}
	return string(b)
}

// Mark is walferry_mark().
func (p *process) Mark(handle uint64, name string) (uint64, error) {
	db := p.byHandle(handle)
	if db == nil {
		return 0, errors.New("the connection is closed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), markTimeout)
	defer cancel()
	txid, err := db.mark(ctx, name)
	return uint64(txid), err
}

// Exit waits for the last batches of databases that nobody closed.
func (p *process) Exit() {
	p.mu.Lock()
	drains := group.New()
	for _, db := range p.databases {
		if db.opts.closeTimeout > 0 {
			drains.Go(func() error {
				deadline := time.Now().Add(db.opts.closeTimeout)
				wait(db.ship.Drain(deadline).Done(), db.opts.closeTimeout)
				db.ship.Close(deadline) // and look once more
				return nil
			})
		}
	}
	p.mu.Unlock()
	_ = drains.Wait()
}

// Panicked switches replication off in this process, of all databases: they must go
// on, and what is wrong in here must not be shipped. Another process may ship them.
func (p *process) Panicked(what *group.Panic) {
	cext.Log(cext.LogError, "internal error: "+what.String())
	why := fmt.Sprintf("an internal error has switched replication off in this process, until it is restarted: %v", what.Value)
	if !p.broken.CompareAndSwap(nil, &why) {
		return
	}
	cext.SetBroken(why)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, db := range p.databases {
		db.ship.Abort(why)
	}
}

// whyBroken is why nothing ships in this process any more, empty while all is well.
func (p *process) whyBroken() string {
	if why := p.broken.Load(); why != nil {
		return *why
	}
	return ""
}

// passThrough is deferred where a panic is not to fail a database's open.
func (p *process) passThrough(why *string) {
	if v := recover(); v != nil {
		p.Panicked(group.Recovered(v))
		*why = p.whyBroken()
	}
}

// caught is deferred where a panic is to be an error.
func (p *process) caught(err *error) {
	if v := recover(); v != nil {
		p.Panicked(group.Recovered(v))
		*err = errors.New(p.whyBroken())
	}
}

func wait(done <-chan struct{}, longest time.Duration) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// Magic numbers of network file systems (statfs(2)): mapped memory is not shared
// between the machines that mount one, so a ledger cannot be.
var networkFS = map[int64]string{
	0x6969: "NFS", 0x517b: "SMB", 0xfe534d42: "SMB", 0xff534d42: "CIFS",
	0x01021997: "9p", 0x00c36400: "Ceph", 0x5346414f: "AFS", 0x73757245: "Coda",
	0x7461636f: "OCFS2", 0x01161970: "GFS2", 0x0bd00bd0: "Lustre",
}

func onNetwork(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return ""
	}
	return networkFS[int64(st.Type)]
}
