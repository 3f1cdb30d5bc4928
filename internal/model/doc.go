// Command model checks the protocol of the ledger: every interleaving, up to a bound
// that it prints, of who marks, who ships, who writes without walferry, and what fails.
//
//	go run ./internal/model [-only REGEX] [-most N] [-rules]
//
// # What is modelled
//
// Names are the code's. One database in WAL mode (db.go): frames, the header of the
// wal-index, checkpoints, restarts of the WAL, last closes, recoveries. One process that
// commits and marks (marker.go, after cext/mark.c and lock.c), one that does not know
// of walferry, one that ships (batch.go, put.go, claim.go, after the files of those
// names in package shipper, and cext/reader.c). A store whose replies get lost and whose
// requests arrive late (store.go), another machine that puts into the same prefix. Any
// process may be killed between any two steps, and the machine may lose power (crash.go):
// then each page of the ledger is as it was last synced, or later.
//
// A step is what other processes can see as a whole: one atomic word of the ledger, one
// header, one request. The contents of a page are one of two values, so that pages go
// there and back.
//
// # What must hold
//
// After every step (check.go):
//
//   - What the store replays to is a state that was committed: the very one that the
//     newest object was read from, never a mixture.
//   - An entry that is not 0 is the page's sum at the newest object.
//   - A page that differs between the store and the newest commit is dirty, in flight, in
//     a frame that is not marked yet, above the smallest size, or everything is a candidate.
//   - durable has reached a commit's token only if the store has the commit.
//   - TXIDs have no gap, and no object is written over.
//   - Nobody is fenced or unclaimed while nobody else has put anything; nobody adds to
//     a history that another has added to.
//   - window, durable, txid, all, all_done and shipper_epoch do not go back, save in a power loss.
//
// And where the shipper has nothing left to do: the store replays to the database, and
// every entry is known.
//
// # That it can fail
//
// Each rule of the protocol has a switch that leaves it out (rules.go). For each of them, save
// where the table says why not, the search must find what goes wrong, and prints the
// shortest way there.
//
// # What is not modelled
//
// Marks for pages that the ledger has no room for, a change of page size, modes other than WAL,
// takeover, uploads in parts, merges of our own. A checkpoint, a recovery and the last
// close of our own connection are one step each, and so is a page of the ledger on its
// way to the disk. A shipper that has lost its lock stops when it is at rest; the
// moment between its last look at the epoch and what it then records is one step.
//
// # The search
//
// Breadth first, so that the first violation is a shortest one. Of a visited state its
// 64-bit hash is kept: two states of the same hash would be taken for one, the chance
// of which is n²/2⁶⁵ for n states, one in 180,000 for ten million.
package main
