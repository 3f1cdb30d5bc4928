// Package standby keeps a copy of a replica's database up to date, in place,
// while programs read it: a warm standby.
//
//	List ─► what comes after the position ─► download, verify
//	                                              │ page by page
//	               one write transaction of SQLite's own: sqlite_dbpage
//	                                              │
//	     position: about to be there (synced) ─► COMMIT ─► position: there
//
// The pages are written by SQLite, into its WAL, by INSERT INTO sqlite_dbpage: so any
// client that reads the standby sees one committed state or the next, is never
// blocked, and learns from the wal-index that its cache is old. What is applied in
// one transaction is one object or several; all of it is verified before COMMIT.
//
// # Page 1
//
// It is written last, as every statement of the transaction looks at the schema cookie in
// it, and differs from the source's in what belongs to the file rather than the data:
//
//	18  2  file format versions   always 2, WAL
//	24  4  file change counter    SQLite counts its own commits
//	28  4  size in pages          the object's, also where an old writer left it wrong
//	92  8  version-valid-for, SQLite's version
//
// # The position
//
// Nothing is added to the database. The position lies beside it, in the file
// standby.db-follow, which is also the lock that keeps a second follower out. It holds the
// TXID and the XOR of the sums of all pages, before and after the transaction under way. A
// start sums the pages once and so knows, whatever was killed when, which of the two the
// database is at; if neither, somebody has written to it. While it follows, SQLite's
// data_version tells of other writers.
package standby

import "errors"

var (
	// ErrExists is returned when the target exists and is no standby.
	ErrExists = errors.New("file exists and is no standby")
	// ErrInUse is returned when another process follows into the same file.
	ErrInUse = errors.New("standby is in use")
	// ErrWritten is returned when something else has written to the standby.
	ErrWritten = errors.New("standby was changed by another program")
	// ErrHistory is returned when the replica's history is not the one that
	// the standby comes from, or the two have parted.
	ErrHistory = errors.New("replica is not the one that the standby follows")
)

// errBusy is returned when the write lock was not to be had. Whether its holder
// writes is seen later.
var errBusy = errors.New("another program holds the standby's write lock; it should only read")

// errGap is returned when what comes after the position is not in the store.
var errGap = errors.New("objects after the standby's position are gone")
