// Package vfs is walferry for Go programs: a SQLite VFS that replicates a
// database to object storage from inside the application.
//
//	vfs.Register()
//	db, err := sql.Open("sqlite3", "file:app.db?vfs=walferry&replica=s3://bucket/app")
//
// # The life of a page
//
// A commit writes frames to the WAL through the shim (cext/shim.c). When it is
// about to release SQLite's write lock, the shim marks the pages of its frames as
// dirty bits in the ledger, a small mapped file beside the database
// (cext/mark.c), and wakes the shipper once per window. After the interval the
// shipper pins one committed state through a connection of its own
// (cext/reader.c), reads the marked pages, leaves out those whose sum the ledger
// has, and packs the rest into one LTX file (shipper/batch.go). The file is put
// into the store if none of its name exists (shipper/put.go), and the ledger
// learns what the store now has.
//
// # What it promises
//
// A commit neither waits for nor fails because of the store. Every object is a
// whole committed state. Memory, disk and requests are bounded, however long the
// store is away. What is shipped after a crash is what differs. Two machines that
// ship to one prefix cannot interleave.
//
// What a crash of the whole machine can lose is the last window and what one
// request takes; PRAGMA walferry_status tells at any moment how far behind the
// store is.
//
// # Reading a replica where it lies
//
// Register also registers a second VFS, walferry-replica, which reads a replica without
// restoring it; internal/replica tells how.
//
//	db, err := sql.Open("sqlite3", "file:app?vfs=walferry-replica&replica=s3://bucket/app&at=yesterday 18:00")
package vfs
