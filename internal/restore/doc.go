// Package restore rebuilds a database from a replica's LTX files.
//
// The way of a page, one file of the plan after the other:
//
//	List ─► plan ─► download ─► parse ─► decompress, sum ─► file checksum ─► write
//	                8 parts              one per core       in the file's order
//
// The database and its ledger are built under temporary names beside the target, and
// take its name only when all of it is verified and on disk. So whatever
// fails, and whenever, the target is what it was.
//
// Memory is bounded by the buffers of the downloads (16 MiB) and of the chunks
// of pages under way, however large the replica and its files are.
package restore

import (
	"errors"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/ltxfile"
)

// Errors of the plan.
var (
	// ErrNothing is returned when the store holds no LTX file at all.
	ErrNothing = history.ErrNothing
	// ErrGap is returned when files that later ones build on are missing.
	ErrGap = history.ErrGap
)

// Errors of the target.
var (
	// ErrExists is returned, unless forced, when the target or a file that
	// SQLite or walferry would take for a part of it exists.
	ErrExists = errors.New("file exists")
	// ErrInUse is returned when a process has the database open that would be replaced.
	ErrInUse = errors.New("database is in use")
)

// Errors of an object.
var (
	// ErrCorrupt is returned when an object is not the LTX file that was
	// written: cut short, changed, or not one at all.
	ErrCorrupt = ltxfile.ErrCorrupt
	// ErrMismatch is returned when every file is whole but together they do
	// not give the database whose checksum the newest object carries.
	ErrMismatch = errors.New("database checksum mismatch")
)
