// Package replica reads a database where its replica lies, page by page, without restoring it.
//
// # From a name to a page
//
// A Conn is what one SQLite connection has open. Of one replica all connections of a process share
// a Source, which finds a state (find.go), and makes a View of it (view.go): the page indexes of the
// files that a restore would apply, one over the other, give a table (table.go) that tells for
// each page the file in which it is newest, and where. A page is then read with one request
// for its frame (fetch.go), with others that lie beside it where they are likely to be wanted next
// (ahead.go, tree.go), and is kept in a cache that the process shares (cache.go), or in files that
// processes share (disk.go, hydrate.go).
//
// # One transaction, one state
//
// A View never changes. A transaction takes one when it begins and keeps it to its end. What the
// bucket's files are called may change meanwhile, since compaction merges and removes
// them: a page whose file has gone is looked for in a new View of the same TXID. Each state follows from
// the same pages in whatever files they lie, so that is no mixture. That it is the same history
// is proven first: a file of the old View must be there as it was, or the state must
// bear the same time, which merged files keep.
//
// # What is asked, and when
//
// Nothing is asked in the background, but what hydrate asks for: a transaction that begins looks for
// newer objects if the last look is older than Options.Poll. With none there that is one request, and
// one more for each object that is new, which mostly brings its pages too. All pages of a
// file are known by their names in it, so nothing that was read is read again
// because something else has changed.
//
// # Who keeps it right
//
//   - table.end: every page of the database lies in a file.
//   - Source.under: a page is never fetched twice at once.
//   - Conn.dress: SQLite sees by the header that the state is another one, in either direction.
//   - ltxfile.UnpackFrame: a frame is that page's, and exactly a page long. The frames themselves bear no
//     checksum, which the format has for whole files only: that is what walferry verify reads.
package replica
