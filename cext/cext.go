// Package cext is the C shim VFS, and the door between it and Go. shim.c tells
// how it works; ledger.h draws the file that both sides share.
//
// The shim reaches Go through the functions exported here, which call the
// Handler. Go reaches the shim through Register, OpenReader and the waits. No Go
// pointer is kept in C: a connection is known by a number.
package cext

/*
#cgo CFLAGS: -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -fvisibility=hidden
#cgo SQLITE3VFS_LOADABLE_EXT CFLAGS: -DSQLITE3VFS_LOADABLE_EXT
#cgo LDFLAGS: -lpthread
#include <stdlib.h>
#include "wf.h"

static inline char *wf_copy(const char *s) { return sqlite3_mprintf("%s", s); }
static inline void wf_free(void *p) { sqlite3_free(p); }
static inline const char *wf_sqlite_version(void) { return sqlite3_libversion(); }
static inline void wf_set_log_level(int level) { atomic_store(&wf.log_level, level); }
static inline void wf_set_broken(const char *why) { atomic_store(&wf.broken, why); }
*/
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"

	"github.com/walferry/walferry/internal/group"
)

// Handler is Go's side of the shim. Calls come from any thread, never from a
// forked child, and never while the shim holds a lock of its own.
type Handler interface {
	// Check is called before Open, and before the file is made where there is
	// none: whether the options are right. If it panics they count as right.
	Check(path string, params map[string]string) error

	// Open is called when a database is being opened. params are the URI's. If
	// it panics the database passes through.
	Open(path string, params map[string]string) (Opened, error)

	// Last is called when the only connection of this process is about to
	// ask for the database alone, as a last close does. Until it returns, a reader
	// can still read.
	Last(handle uint64)

	// Close is called after a connection that Open has seen was closed.
	Close(handle uint64)

	// Status returns the JSON of PRAGMA walferry_status.
	Status(handle uint64) string

	// Mark ends the window and names the newest object; it waits for the store.
	Mark(handle uint64, name string) (txid uint64, err error)

	// Exit is called when the process ends by exit(3).
	Exit()

	// Panicked is told what a call of the above was stopped by.
	Panicked(*group.Panic)

	ReplicaHandler
}

// Errors of a Handler that have a code of their own.
var (
	// ErrNoPragma is returned where a PRAGMA is none of walferry's.
	ErrNoPragma = errors.New("no such PRAGMA")
	// ErrInterrupted is wrapped where sqlite3_interrupt has ended a call.
	ErrInterrupted = errors.New("interrupted")
)

// Opened is the answer to an open.
type Opened struct {
	Handle  uint64
	AutoWAL bool   // switch the database to WAL mode when nobody is at it
	Why     string // if set, nothing is replicated, for this reason
}

var handler Handler

// Register registers the VFS, over the default one. h must be the same at
// every call. The error says what SQLite or the environment lacks.
func Register(h Handler, makeDefault bool) error {
	handler = h
	var text *C.char
	var def C.int
	if makeDefault {
		def = 1
	}
	if rc := C.wf_start(def, &text); rc != C.SQLITE_OK {
		return errors.New(take(text, fmt.Sprintf("register VFS: SQLite error %d", int(rc))))
	}
	return nil
}

// SetHandler names the handler in a build whose host calls Register's part in C.
func SetHandler(h Handler) { handler = h }

// SQLiteVersion is the version of the library that the process runs.
func SQLiteVersion() string { return C.GoString(C.wf_sqlite_version()) }

// Log levels, as the option log has them.
const (
	LogOff = iota
	LogError
	LogInfo
	LogDebug
)

// SetLogLevel sets what Log lets through, in the whole process.
func SetLogLevel(level int) { C.wf_set_log_level(C.int(level)) }

// Log writes one line to stderr and to sqlite3_log.
func Log(level int, line string) {
	text := C.CString(line)
	defer C.free(unsafe.Pointer(text))
	C.wf_log_text(C.int(level), text)
}

// OpenLockFD opens a descriptor that every forked child closes.
func OpenLockFD(path string) (int, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	fd, err := C.wf_open_lock_fd(name)
	if fd < 0 {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return int(fd), nil
}

// CloseLockFD closes a descriptor of OpenLockFD.
func CloseLockFD(fd int) { C.wf_close_lock_fd(C.int(fd)) }

// take turns a text from sqlite3_malloc into a Go string.
func take(text *C.char, otherwise string) string {
	if text == nil {
		return otherwise
	}
	defer C.wf_free(unsafe.Pointer(text))
	return C.GoString(text)
}

func give(out **C.char, text string) {
	if out == nil {
		return
	}
	s := C.CString(text)
	defer C.free(unsafe.Pointer(s))
	*out = C.wf_copy(s)
}

// SetBroken has those who wait for the store told why nothing ships in this process
// any more, unless another process does. It is for ever.
func SetBroken(why string) {
	C.wf_set_broken(C.CString(why)) // never freed: it may be read at any time
}

// guarded calls f and keeps a panic on this side of the border: it is told to the
// handler, and returned in words.
func guarded(f func()) (internal error) {
	p := group.Catch(f)
	if p == nil {
		return nil
	}
	group.Catch(func() { handler.Panicked(p) })
	return fmt.Errorf("internal error: %v", p.Value)
}

//export walferryGoReady
func walferryGoReady(text **C.char) C.int {
	if handler == nil {
		give(text, "walferry: no handler")
		return C.SQLITE_ERROR
	}
	return C.SQLITE_OK
}

//export walferryGoCheck
func walferryGoCheck(path, params *C.char, text **C.char) C.int {
	var err error
	_ = guarded(func() { err = handler.Check(C.GoString(path), parameters(params)) }) // Open will say so
	return openError(err, text)
}

func openError(err error, text **C.char) C.int {
	if err == nil {
		return C.SQLITE_OK
	}
	give(text, err.Error())
	return C.SQLITE_CANTOPEN
}

//export walferryGoOpen
func walferryGoOpen(path, params *C.char, out *C.struct_wf_opened, text **C.char) C.int {
	var opened Opened
	var err error
	internal := guarded(func() { opened, err = handler.Open(C.GoString(path), parameters(params)) })
	if internal != nil {
		opened, err = Opened{Why: internal.Error()}, nil
	}
	if err != nil {
		return openError(err, text)
	}
	out.handle = C.uint64_t(opened.Handle)
	if opened.AutoWAL {
		out.auto_wal = 1
	}
	if opened.Why != "" {
		give(&out.why, opened.Why)
	}
	return C.SQLITE_OK
}

// parameters reads key, value, key, value ... up to an empty key.
func parameters(p *C.char) map[string]string {
	m := map[string]string{}
	next := func() string {
		s := C.GoString(p)
		p = (*C.char)(unsafe.Add(unsafe.Pointer(p), len(s)+1))
		return s
	}
	for key := next(); key != ""; key = next() {
		m[key] = next()
	}
	return m
}

//export walferryGoLast
func walferryGoLast(handle C.uint64_t) {
	_ = guarded(func() { handler.Last(uint64(handle)) })
}

//export walferryGoClose
func walferryGoClose(handle C.uint64_t) {
	_ = guarded(func() { handler.Close(uint64(handle)) })
}

//export walferryGoStatus
func walferryGoStatus(handle C.uint64_t) (text *C.char) {
	var status string
	if internal := guarded(func() { status = handler.Status(uint64(handle)) }); internal != nil {
		b, _ := json.Marshal(map[string]string{"state": "broken", "cause": internal.Error()})
		status = string(b)
	}
	give(&text, status)
	return text
}

//export walferryGoMark
func walferryGoMark(handle C.uint64_t, name *C.char, txid *C.uint64_t, text **C.char) C.int {
	var n uint64
	var err error
	if internal := guarded(func() { n, err = handler.Mark(uint64(handle), C.GoString(name)) }); internal != nil {
		err = internal
	}
	if err != nil {
		give(text, err.Error())
		return C.SQLITE_ERROR
	}
	*txid = C.uint64_t(n)
	return C.SQLITE_OK
}

//export walferryGoExit
func walferryGoExit() {
	_ = guarded(handler.Exit)
}
