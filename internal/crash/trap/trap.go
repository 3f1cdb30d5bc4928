// Package trap lets a process end or stand still at a chosen step: at the n-th
// system call of some kind that touches its database, its ledger or its replica,
// or at a store into the mapped ledger. It is for tests, in a process of their
// own that is started to be killed; trap.c tells how it works.
package trap

/*
#cgo CFLAGS: -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra
#cgo LDFLAGS: -lpthread
#include "trap.h"
*/
import "C"

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"
)

// Kind is what a step does.
type Kind int

// Kinds of steps. Any is a step of whatever kind; Store is a store into the mapped
// ledger.
const (
	Open Kind = iota
	Write
	Size
	Sync
	Unlink
	Link
	Lock
	Unlock
	Any
	Store
	kinds = Any
)

func (k Kind) String() string {
	return [...]string{"open", "write", "size", "sync", "unlink", "link", "lock", "unlock", "any", "store"}[k]
}

// File is what a step touches.
type File int

// Files of a database.
const (
	Database File = iota
	WAL
	Journal
	Shm
	Ledger
	Replica
	Dir
	files
)

func (f File) String() string {
	return [...]string{"database", "wal", "journal", "shm", "ledger", "replica", "directory"}[f]
}

// How is what happens at a step.
type How int

// A process is killed before a step, in the middle of a write, or after a step, or
// it stands still before it.
const (
	Before How = iota
	Half
	After
	Stop
)

func (h How) String() string { return [...]string{"before", "half", "after", "stop"}[h] }

// Action is what happens at the N-th step of a kind. With Store it is at store
// number M after step N of whatever kind.
type Action struct {
	Kind Kind
	File File
	N, M int
	How  How
}

func (a Action) String() string {
	switch a.Kind {
	case Any:
		return fmt.Sprintf("%s any step %d", a.How, a.N)
	case Store:
		return fmt.Sprintf("ledger store %d after step %d", a.M, a.N)
	}
	return fmt.Sprintf("%s %s %s %d", a.How, a.Kind, a.File, a.N)
}

// Plan is what a process goes through.
type Plan struct {
	Database, Replica string // absolute paths
	Trace             string // file that changes are appended to; empty: none
	Actions           []Action
}

// Begin watches the process from here on. The kill is told on standard output,
// as "killed kind file n how" in numbers, and a stop as "stopped".
func Begin(p Plan) error {
	var c C.struct_trap_plan
	set := func(to *[512]C.char, s string) {
		for i := range min(len(s), len(to)-1) {
			to[i] = C.char(s[i])
		}
	}
	set(&c.db, p.Database)
	set(&c.replica, p.Replica)
	set(&c.trace, p.Trace)
	for i, a := range p.Actions {
		c.action[i] = C.struct_trap_action{C.int(a.Kind), C.int(a.File), C.int(a.N), C.int(a.M), C.int(a.How)}
	}
	c.actions = C.int(len(p.Actions))
	if errno := C.trap_begin(&c); errno != 0 {
		return fmt.Errorf("watch the process: %w", syscall.Errno(errno))
	}
	return nil
}

// Counts tells how often each step was met.
func Counts() map[string]int {
	m := map[string]int{}
	for k := Kind(0); k < kinds; k++ {
		for f := File(0); f < files; f++ {
			if n := int(C.trap_count(C.int(k), C.int(f))); n > 0 {
				m[k.String()+" "+f.String()] = n
			}
		}
	}
	return m
}

// Change is one record of a trace.
type Change struct {
	Type Type
	File File
	Ino  uint64
	Off  int64
	Data []byte
}

// Type is what a Change did.
type Type uint32

// Types of changes.
const (
	Created   Type = C.TRACE_CREATE
	Wrote     Type = C.TRACE_WRITE
	CutTo     Type = C.TRACE_CUT    // Off is the size
	Extended  Type = C.TRACE_EXTEND // to Off at the least
	Synced    Type = C.TRACE_SYNC
	Deleted   Type = C.TRACE_DELETE
	DirSynced Type = C.TRACE_DIRSYNC
	Seen      Type = C.TRACE_LEDGER // a page of the ledger was seen like that
)

// Parse reads a trace. A record that is not whole is left out: its call was not
// made.
func Parse(b []byte) (all []Change) {
	const size = int(unsafe.Sizeof(C.struct_trace_record{}))
	magic := binary.LittleEndian.AppendUint64(nil, C.TRACE_MAGIC)
	for {
		at := bytes.Index(b, magic)
		if at < 0 || len(b)-at < size {
			return all
		}
		b = b[at:]
		var r C.struct_trace_record
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), size), b)
		c := Change{Type: Type(r._type), File: File(r.file), Ino: uint64(r.ino), Off: int64(r.off)}
		end := size
		if c.Type == Wrote || c.Type == Seen {
			end += int(r.len)
		}
		if end > len(b) || end < len(b) && !bytes.HasPrefix(b[end:], magic) {
			b = b[len(magic):] // a part of one
			continue
		}
		c.Data, b = b[size:end:end], b[end:]
		all = append(all, c)
	}
}
