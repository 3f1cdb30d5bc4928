// Package restore rebuilds a database from a replica's LTX files.
//
// The way of a page, one file of the plan after the other:
//
//	List ─► plan ─► download ─► parse ─► decompress, sum ─► file checksum ─► write
//	                16 MiB               one per core       in the file's order
//
// A delta reads single pages instead; delta.go tells which.
//
// The database and its ledger are built under temporary names beside the target, and
// take its name only when all of it is verified and on disk. So whatever
// fails, and whenever, the target is what it was.
//
// Memory is bounded by the buffers of the downloads (16 MiB) and of the chunks
// of pages under way, however large the replica and its files are. A delta takes 24 bytes
// for each page that it downloads, of which it takes a million at most.
//
// Only the newest state comes with a ledger. A database of an older point is not the one
// whose later history the replica holds: with a ledger it would be taken for a
// writer that was overtaken, without one it is unclaimed, and either way nothing of it
// ships there unless somebody says takeover=1. What it needs to know then
// is nothing that a ledger could tell: everything is compared.
package restore

import (
	"errors"

	"github.com/walferry/walferry/internal/ltxfile"
)

// Errors of the target.
var (
	// ErrExists is returned, unless forced, when the target or a file that
	// SQLite or walferry would take for a part of it exists.
	ErrExists = errors.New("file exists")
	// ErrInUse is returned when a process has the database open that would be replaced.
	ErrInUse = errors.New("database is in use")
)

// Errors of the result.
var (
	// ErrCorrupt is returned when an object is not the LTX file that was
	// written: cut short, changed, or not one at all.
	ErrCorrupt = ltxfile.ErrCorrupt
	// ErrMismatch is returned when every file is whole but together they do
	// not give the database whose checksum the newest object carries.
	ErrMismatch = errors.New("database checksum mismatch")
	// ErrUnsound is returned when the database is what the replica holds, and the
	// caller's Check finds that it is damaged.
	ErrUnsound = errors.New("database is damaged")
)
