// Package verify looks for damage in a replica: what is missing, what is not what
// was written, what contradicts what.
//
//	List ─► every object, by its last TXID ─► download, decode ─► sums of its pages
//	                                                                    │
//	           the database's sums, one per page ◄── applied or compared ┘
//
// The walk keeps what restore would build, but as 8 bytes a page: the sum that walferry's
// ledger has of it. The first object that leads to a TXID is applied, the finest
// where there are several; every other one that leads there, a merged file or a
// snapshot, must hold the same. Objects that carry the database's checksum, which is the
// XOR of all sums, prove the state that they lead to. Where two things contradict each
// other, what is proven is right; where nothing is, neither is trusted.
//
// What is damaged or suspect is then left out, and what can still be restored is
// asked of the history of the rest. At last the newest state of that is restored, and
// SQLite's own check is run on it.
//
// Memory: 16 bytes for each page of the database, 12 for each page of the
// objects that are decoded at a time: of small ones some, of large ones one.
package verify

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// Kinds of Finding.
const (
	Corrupt   = "corrupt"   // the file is not what was written
	Foreign   = "foreign"   // the file is whole, and does not belong where it is
	Missing   = "missing"   // others build on what is not there
	Different = "different" // two files, or a file and a checksum, contradict each other
	Unsound   = "unsound"   // the files are whole, and the database in them is damaged
	Lost      = "lost mark" // a mark whose state cannot be restored
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind    string    `json:"kind"`
	Objects []string  `json:"objects,omitempty"` // that cannot be relied on
	Since   ltx.TXID  `json:"since"`             // the first TXID that is affected
	Time    time.Time `json:"time"`              // of it, as near as is known
	Text    string    `json:"text"`
	Lost    []Range   `json:"lost,omitempty"` // states that cannot be restored because of it alone
	objects []objstore.Object
}

// Range is a run of restorable states.
type Range struct {
	From   ltx.TXID `json:"from"`
	To     ltx.TXID `json:"to"`
	States int      `json:"states"`
}

// Point is a state and its time.
type Point struct {
	TXID ltx.TXID  `json:"txid"`
	Time time.Time `json:"time"`
}

// Report is what was found.
type Report struct {
	Replica  string        `json:"replica"`
	Sound    bool          `json:"sound"`
	Objects  int           `json:"objects"`
	Bytes    int64         `json:"bytes"`
	PageSize uint32        `json:"page_size"`
	Pages    uint32        `json:"pages"` // of the newest state that was followed
	Newest   Point         `json:"newest"`
	Findings []Finding     `json:"findings"`
	Notes    []string      `json:"notes,omitempty"`
	States   int           `json:"states"`  // that can be restored, what is damaged left out
	Proven   int           `json:"proven"`  // of them by the checksum that they carry
	Oldest   *Point        `json:"oldest"`  // that can be restored
	Restore  *Point        `json:"restore"` // the newest that can be, nil if nothing can
	Checked  string        `json:"checked"` // what SQLite said of it: "ok", "damaged", "not asked", or why it could not be
	Duration time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"`

	bad map[key]bool
}

// key is what an object is known by, from listing to listing.
type key struct {
	level    int
	min, max ltx.TXID
}

func keyOf(o objstore.Object) key { return key{o.Level, o.Min, o.Max} }
