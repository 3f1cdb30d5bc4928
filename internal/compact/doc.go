// Package compact keeps a replica small: it merges objects into one that does the
// same, and knows which merges are due.
//
//	input  ─► read ahead ─► parse, decompress, sum ─┐
//	input  ─► read ahead ─► parse, decompress, sum ─┼─► newest of each page ─► spool ─► store
//	input  ─► read ahead ─► parse, decompress, sum ─┘   as it is compressed
//
// A merge adds an object and takes none away: what it replaces is removed by
// retention, later, and so nothing is lost when a merge ends anywhere. Every input's
// checksum is verified to its end before the output is created, so damage does not
// spread, and is found before what could mend it is gone.
//
// Several may compact one replica at the same time, Litestream among them. They make
// objects whose ranges may overlap, of which a restore takes what it needs: each is
// true of its range.
package compact

import "errors"

// ErrInputs is returned when objects cannot be merged because of what their names
// say: there are none, they do not follow each other, or the level is not one.
var ErrInputs = errors.New("objects do not follow each other")
