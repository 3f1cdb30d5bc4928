package vfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/psanford/sqlite3vfs"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/replica"
)

// ReplicaName is the name of the VFS that reads a replica where it lies, as in
// `file:app?vfs=walferry-replica&replica=s3://bucket/app`. Register registers it too.
const ReplicaName = cext.ReplicaVFS

// readOptions are those of a replica that is read.
var readOptions = append([]option{
	{"poll", "WALFERRY_POLL", func(o *options, v string) (err error) {
		o.read.Poll, err = duration(v, 0, 24*time.Hour, "a duration such as 1s; 0 looks at the begin of every transaction")
		return err
	}},
	{"timeout", "WALFERRY_TIMEOUT", func(o *options, v string) (err error) {
		o.read.Timeout, err = duration(v, 100*time.Millisecond, 24*time.Hour, "a duration from 100ms, such as 30s")
		return err
	}},
	{"cache_size", "WALFERRY_CACHE_SIZE", func(o *options, v string) (err error) {
		o.read.CacheSize, err = size(v, 1e6)
		return err
	}},
	{"cache_dir", "WALFERRY_CACHE_DIR", func(o *options, v string) error { o.read.CacheDir = v; return nil }},
	{"cache_dir_size", "WALFERRY_CACHE_DIR_SIZE", func(o *options, v string) (err error) {
		o.read.CacheDirSize, err = size(v, 1e6)
		return err
	}},
	{"hydrate", "WALFERRY_HYDRATE", func(o *options, v string) error { o.read.Hydrate = v; return nil }},
	{"at", "", func(o *options, v string) error { o.read.At = v; return nil }},
	{"txid", "", func(o *options, v string) error { o.read.TXID = v; return nil }},
	{"mark", "", func(o *options, v string) error { o.read.Mark = v; return nil }},
}, commonOptions...)

// size reads "64MB" or a number of bytes.
func size(v string, least int64) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		var l history.Limits
		l, err = history.ParseLimits(v)
		if l != (history.Limits{Bytes: l.Bytes}) {
			err = history.ErrLimits
		}
		n = l.Bytes
	}
	if err != nil || n < least || n > math.MaxInt64/2 {
		return least, errors.New("a size from 1MB, such as 64MB or 1GiB")
	}
	return n, nil
}

// replicas are the connections to replicas, by their handles.
var replicas = struct {
	mu   sync.Mutex
	all  map[uint64]*replica.Conn
	next uint64
}{all: map[uint64]*replica.Conn{}}

func replicaOf(handle uint64) (*replica.Conn, error) {
	replicas.mu.Lock()
	defer replicas.mu.Unlock()
	if c := replicas.all[handle]; c != nil {
		return c, nil
	}
	return nil, errors.New("the connection is closed")
}

// ReplicaStart is part of cext.ReplicaHandler.
func (p *process) ReplicaStart(name string) error {
	return sqlite3vfs.RegisterVFS(name, replicaVFS{p}, sqlite3vfs.WithMaxPathName(4096))
}

// replicaVFS is what sqlite3vfs calls. The shim (cext/replica.c) answers for everything but a database
// file's own methods.
type replicaVFS struct{ p *process }

// OpenURI is part of sqlite3vfs.URIOpener.
func (v replicaVFS) OpenURI(name string, params map[string]string, _ sqlite3vfs.OpenFlag) (f sqlite3vfs.File, flags sqlite3vfs.OpenFlag, err error) {
	defer caughtCode(&err)
	o, err := v.p.collect(readOptions, name, nil, params)
	if err == nil {
		err = o.validateReplica()
	}
	cext.SetLogLevel(o.logLevel)
	var c *replica.Conn
	if err == nil {
		o.read.URL, o.read.Store = o.replica, o.store
		c, err = replica.Open(o.read, cext.ReplicaInterrupted)
	}
	if err != nil {
		cext.Log(cext.LogError, fmt.Sprintf("cannot open replica %s: %v", name, err))
		if code(err) == sqlite3vfs.InterruptError {
			return nil, 0, code(err)
		}
		return nil, 0, sqlite3vfs.CantOpenError
	}
	replicas.mu.Lock()
	defer replicas.mu.Unlock()
	replicas.next++
	replicas.all[replicas.next] = c
	cext.ReplicaOpened(replicas.next)
	return &replicaFile{c, replicas.next}, sqlite3vfs.OpenReadOnly, nil
}

// Open is part of sqlite3vfs.VFS, which asks for OpenURI in its place.
func (v replicaVFS) Open(name string, flags sqlite3vfs.OpenFlag) (sqlite3vfs.File, sqlite3vfs.OpenFlag, error) {
	return v.OpenURI(name, nil, flags)
}

// Delete is part of sqlite3vfs.VFS.
func (replicaVFS) Delete(string, bool) error { return sqlite3vfs.ReadOnlyError }

// Access is part of sqlite3vfs.VFS.
func (replicaVFS) Access(string, sqlite3vfs.AccessFlag) (bool, error) { return false, nil }

// FullPathname is part of sqlite3vfs.VFS.
func (replicaVFS) FullPathname(name string) string { return name }

// code is the one place where a replica's errors become SQLite's.
func code(err error) error {
	if errors.Is(err, replica.ErrInterrupted) {
		return sqlite3vfs.InterruptError
	}
	return sqlite3vfs.IOErrorRead
}

// caughtCode is deferred where a panic is to be an SQLite error. It concerns this call alone:
// a replica that is read has nothing to do with what the process ships.
func caughtCode(err *error) {
	if v := recover(); v != nil {
		cext.Log(cext.LogError, "internal error: "+group.Recovered(v).String())
		*err = sqlite3vfs.InternalError
	}
}

// replicaFile is one connection's database file.
type replicaFile struct {
	c      *replica.Conn
	handle uint64
}

// Close is part of sqlite3vfs.File.
func (f *replicaFile) Close() (err error) {
	defer caughtCode(&err)
	replicas.mu.Lock()
	delete(replicas.all, f.handle)
	replicas.mu.Unlock()
	f.c.Close()
	return nil
}

// ReadAt is part of sqlite3vfs.File.
func (f *replicaFile) ReadAt(b []byte, off int64) (n int, err error) {
	defer caughtCode(&err)
	n, err = f.c.ReadAt(b, off)
	switch {
	case err != nil:
		return n, code(err)
	case n < len(b):
		return n, sqlite3vfs.IOErrorShortRead
	}
	return n, nil
}

// FileSize is part of sqlite3vfs.File.
func (f *replicaFile) FileSize() (int64, error) { return f.c.Size(), nil }

// Lock is part of sqlite3vfs.File: a shared lock begins a read transaction.
func (f *replicaFile) Lock(l sqlite3vfs.LockType) (err error) {
	defer caughtCode(&err)
	if l != sqlite3vfs.LockShared {
		return sqlite3vfs.ReadOnlyError
	}
	state, err := f.c.Begin()
	if err != nil {
		return code(err)
	}
	cext.ReplicaBegan(state)
	return nil
}

// Unlock is part of sqlite3vfs.File.
func (f *replicaFile) Unlock(l sqlite3vfs.LockType) error {
	if l == sqlite3vfs.LockNone {
		f.c.End()
	}
	return nil
}

// WriteAt is part of sqlite3vfs.File.
func (f *replicaFile) WriteAt([]byte, int64) (int, error) { return 0, sqlite3vfs.ReadOnlyError }

// Truncate is part of sqlite3vfs.File.
func (f *replicaFile) Truncate(int64) error { return sqlite3vfs.ReadOnlyError }

// Sync is part of sqlite3vfs.File.
func (f *replicaFile) Sync(sqlite3vfs.SyncType) error { return nil }

// CheckReservedLock is part of sqlite3vfs.File.
func (f *replicaFile) CheckReservedLock() (bool, error) { return false, nil }

// SectorSize is part of sqlite3vfs.File.
func (f *replicaFile) SectorSize() int64 { return 4096 }

// DeviceCharacteristics is part of sqlite3vfs.File.
func (f *replicaFile) DeviceCharacteristics() sqlite3vfs.DeviceCharacteristic { return 0 }

// ReplicaPragma is part of cext.ReplicaHandler.
func (p *process) ReplicaPragma(handle uint64, name string, value *string) (string, error) {
	c, err := replicaOf(handle)
	if err != nil {
		return "", err
	}
	said, err := pragma(c, name, value)
	return said, interrupted(err)
}

// interrupted makes a replica's error one that the shim knows.
func interrupted(err error) error {
	if errors.Is(err, replica.ErrInterrupted) {
		return cext.ErrInterrupted
	}
	return err
}

func pragma(c *replica.Conn, name string, value *string) (string, error) {
	switch name = strings.ToLower(name); {
	case name == "walferry_status":
		b, err := json.Marshal(c.Status())
		return string(b), err
	case name == "walferry_lag":
		return c.Lag(), nil
	case name == "walferry_at" && value != nil:
		err := c.PinAt(*value)
		return c.At(), err
	case name == "walferry_at":
		return c.At(), nil
	case name == "walferry_txid" && value != nil:
		txid, err := replica.ParseTXID(*value)
		if err != nil {
			return "", err
		}
		err = c.PinTXID(txid)
		return c.TXID().String(), err
	case name == "walferry_txid":
		return c.TXID().String(), nil
	case name == "walferry_mark" && value != nil:
		err := c.PinMark(*value)
		return c.TXID().String(), err
	}
	return "", cext.ErrNoPragma
}

// ReplicaWait is part of cext.ReplicaHandler.
func (p *process) ReplicaWait(handle, epoch, window uint64, timeout time.Duration) (bool, error) {
	c, err := replicaOf(handle)
	if err != nil {
		return false, err
	}
	ok, err := c.WaitFor(epoch, window, timeout)
	return ok, interrupted(err)
}
