package main

import "fmt"

// action is what a step is called in a trace.
type action uint8

const (
	aStart action = iota
	aLock
	aRecover
	aMark
	aMarkMin
	aSeen
	aPoke
	aReset
	aRollback
	aFrames
	aCommit
	aClose
	aStamp
	aDelete
	aForeign
	aForeignRecover
	aForeignReset
	aForeignClose
	aFold
	aBatch
	aTake
	aRead
	aScan
	aScanPage
	aFirst
	aPin
	aTail
	aTailRead
	aTailGivenUp
	aLook
	aCopy
	aSlice
	aVoid
	aNote
	aSync
	aPut
	aPutLost
	aThere
	aEarlier
	aFenced
	aGiveUp
	aBelieve
	aRecord
	aRecordHead
	aRecordTXID
	aAllDone
	aClear
	aDurable
	aElect
	aClaim
	aLoseLock
	aArrive
	aMachine
	aMerge
	aTick
	aKillMarker
	aKillShipper
	aPowerLoss
	aWrite
)

var actionText = [...]string{
	aStart:          "the start",
	aLock:           "marker: gets the write lock, looks for what is not marked",
	aRecover:        "marker: recovers the WAL, looks for what is not marked",
	aMark:           "marker: makes page %d dirty",
	aMarkMin:        "marker: lowers min_pages to %d, counts all where it must",
	aSeen:           "marker: writes seen",
	aPoke:           "marker: takes its token, pokes",
	aReset:          "marker: restarts the WAL",
	aRollback:       "marker: rolls back",
	aFrames:         "marker: writes frames (pages %d; 12: both, 2x: grown, 30: cut)",
	aCommit:         "marker: commits",
	aClose:          "marker: last close, gets EXCLUSIVE",
	aStamp:          "marker: stamps the file",
	aDelete:         "marker: deletes the WAL",
	aForeign:        "foreign: commits (pages %d; 12: both, 2x: grown, 30: cut)",
	aForeignRecover: "foreign: recovers the WAL",
	aForeignReset:   "foreign: restarts the WAL",
	aForeignClose:   "foreign: last close, deletes the WAL",
	aFold:           "checkpoint",
	aBatch:          "shipper: begins a batch, next window; dirty goes in flight",
	aTake:           "shipper: those bits are dirty no more",
	aRead:           "shipper: needs no look at every page",
	aScan:           "shipper: begins a look at every page",
	aScanPage:       "shipper: compares page %d",
	aFirst:          "shipper: begins the first object",
	aPin:            "shipper: pins",
	aTail:           "shipper: reads the tail",
	aTailGivenUp:    "shipper: gives up waiting for seen",
	aLook:           "shipper: looks at all and at the bits",
	aCopy:           "shipper: reads pages (bits %d), unpins, compares",
	aSlice:          "shipper: reads page %d, unpins: the slice is over",
	aVoid:           "shipper: sums of the object (bits %d) become unknown",
	aNote:           "shipper: notes the attempt at TXID %d",
	aSync:           "shipper: syncs the ledger",
	aPut:            "store: has object %d, says so",
	aPutLost:        "store: has object %d, its reply is lost",
	aThere:          "store: object %d is there already, with this nonce",
	aEarlier:        "store: object %d is there already, an earlier attempt",
	aFenced:         "store: object %d is there already, another's: fenced",
	aGiveUp:         "shipper: gives up waiting for object %d, which may arrive later",
	aBelieve:        "shipper: believes object %d, or looks",
	aRecord:         "shipper: records sums (bits %d)",
	aRecordHead:     "shipper: records head and size",
	aRecordTXID:     "shipper: records TXID %d",
	aAllDone:        "shipper: all_done = %d",
	aClear:          "shipper: clears what was in flight",
	aDurable:        "shipper: durable = %d",
	aElect:          "shipper %d: is elected",
	aClaim:          "shipper %d: claims, by one look at the store",
	aLoseLock:       "shipper: loses its lock without knowing",
	aArrive:         "store: object %d arrives late",
	aMachine:        "another machine: puts object %d",
	aMerge:          "another machine: merges, removes what level 0 has below %d",
	aTick:           "half a level-0 retention passes",
	aKillMarker:     "kill: who writes (1: a recovery follows): %d",
	aKillShipper:    "kill: shipper %d (from 2 on: its request stays under way)",
	aPowerLoss:      "power loss: the WAL keeps %d frames (255: all)",
	aWrite:          "the system writes part %d of the ledger to disk",
}

func describe(a action, arg uint8) string {
	text := actionText[a]
	for i := range text {
		if text[i] == '%' {
			return fmt.Sprintf(text, arg)
		}
	}
	return text
}

// String is what a trace shows of a state.
func (s *state) String() string {
	now := s.db.now()
	return fmt.Sprintf("db %v wal %d/%d salt %d | store %d:%v | txid %d dirty %b inflight %b sums %v all %d/%d seen %d.%d window %d durable %d",
		now.value[:now.pages], s.db.index.mxFrame, s.db.backfill, s.db.index.salt,
		s.st.head, s.st.replica.value[:s.st.replica.pages],
		s.led.txid, s.led.dirty, s.led.inflight, s.led.sums, s.led.allDone, s.led.all,
		s.led.seen.salt, s.led.seen.mxFrame, s.led.window, s.led.durable)
}
