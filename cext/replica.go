package cext

/*
#include "wf.h"
*/
import "C"

import (
	"errors"
	"time"
)

// ReplicaVFS is the name of the VFS that reads a replica where it lies.
const ReplicaVFS = C.WF_REPLICA_NAME

// ReplicaHandler is Go's side of that VFS, beside the files that psanford/sqlite3vfs
// brings SQLite's calls to. It is a part of Handler.
type ReplicaHandler interface {
	// ReplicaStart registers the package's VFS under a name. It is called once.
	ReplicaStart(name string) error

	// ReplicaPragma is a PRAGMA walferry_... on a replica; value is nil where none is given.
	ReplicaPragma(handle uint64, name string, value *string) (string, error)

	// ReplicaWait is walferry_wait() on a replica.
	ReplicaWait(handle, epoch, window uint64, timeout time.Duration) (bool, error)
}

// ReplicaOpened tells the shim the name of the connection whose open it has called. It is to be
// called from the goroutine that was.
func ReplicaOpened(handle uint64) { C.wf_replica_opened(C.uint64_t(handle)) }

// ReplicaBegan tells the shim which state the transaction reads whose begin it has called for: another
// number than that of any other state that the connection has read. It is to be called from the
// goroutine that was.
func ReplicaBegan(state uint32) { C.wf_replica_began(C.uint32_t(state)) }

// ReplicaInterrupted reports whether the query for which the shim has called is to end. It is to
// be called from the goroutine that was.
func ReplicaInterrupted() bool { return C.wf_replica_interrupted() != 0 }

//export walferryGoReplicaStart
func walferryGoReplicaStart(text **C.char) C.int {
	var err error
	if internal := guarded(func() { err = handler.ReplicaStart(ReplicaVFS + "-go") }); internal != nil {
		err = internal
	}
	if err != nil {
		give(text, err.Error())
		return C.SQLITE_ERROR
	}
	return C.SQLITE_OK
}

//export walferryGoReplicaPragma
func walferryGoReplicaPragma(handle C.uint64_t, name, value *C.char, out **C.char) C.int {
	var v *string
	if value != nil {
		s := C.GoString(value)
		v = &s
	}
	var said string
	var err error
	if internal := guarded(func() { said, err = handler.ReplicaPragma(uint64(handle), C.GoString(name), v) }); internal != nil {
		err = internal
	}
	switch {
	case err == ErrNoPragma:
		return C.SQLITE_NOTFOUND
	case err != nil:
		give(out, err.Error())
		if errors.Is(err, ErrInterrupted) {
			return C.SQLITE_INTERRUPT
		}
		return C.SQLITE_ERROR
	}
	give(out, said) // even if it is nothing: a row without a name confuses some clients
	return C.SQLITE_OK
}

//export walferryGoReplicaWait
func walferryGoReplicaWait(handle, epoch, window C.uint64_t, ms C.int64_t, text **C.char) C.int {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	var ok bool
	var err error
	internal := guarded(func() {
		ok, err = handler.ReplicaWait(uint64(handle), uint64(epoch), uint64(window), time.Duration(min(int64(ms), most))*time.Millisecond)
	})
	if internal != nil {
		err = internal
	}
	switch {
	case errors.Is(err, ErrInterrupted):
		return -2
	case err != nil:
		give(text, err.Error())
		return -1
	case ok:
		return 1
	}
	return 0
}
