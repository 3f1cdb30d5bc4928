package main

// Sizes of the arrays; a model that needs more ends with a panic.
const (
	maxPages    = 3
	maxFrames   = 8
	maxTXID     = 9
	maxAttempts = 5
	maxLate     = 2
	maxTokens   = 3
)

// none is no page count, and no read mark.
const none = 255

// set is a set of pages: bit p-1 stands for page p.
type set uint8

func page(p uint8) set { return 1 << (p - 1) }

// pages1 is the set of the pages 1 to n.
func pages1(n uint8) set {
	if n >= 8 {
		return 255
	}
	return set(1)<<n - 1
}

func above(n uint8) set { return pages1(maxPages) &^ pages1(n) }

func (s set) has(p uint8) bool { return s&page(p) != 0 }

// first is the smallest page of a set that is not empty.
func (s set) first() uint8 {
	for p := uint8(1); ; p++ {
		if s.has(p) {
			return p
		}
	}
}

func (s set) one() bool { return s&(s-1) == 0 }

// image is a state of a database: a value per page stands for its content.
type image struct {
	pages uint8
	value [maxPages]uint8 // 0 beyond pages
}

func (im *image) resize(n uint8) {
	for p := n + 1; p <= maxPages; p++ {
		im.value[p-1] = 0
	}
	im.pages = n
}

// header is what the wal-index says is committed.
type header struct {
	salt, mxFrame, iChange, cksum, pages uint8
}

// fresh is the header of a WAL that has just begun and holds nothing.
func (h header) fresh() bool { return h.salt == 0 && h.mxFrame == 0 }

// frame is one of the WAL. commit is the size in pages that a transaction left which
// ends here, 0 within one. cksum, which covers all frames before, is the transaction's number.
type frame struct {
	pgno, value, commit, cksum, salt uint8
}

// stamp is what the database file was when seen was true of it and there was no WAL.
type stamp struct {
	valid          bool
	version, pages uint8
}

type attempt struct{ txid, nonce uint8 }

// ledger is the file that all processes map.
type ledger struct {
	seen            header
	seenSet         bool
	stamp           stamp
	all, allDone    uint8
	minPages        uint8
	minInflight     uint8
	poked           bool
	window, durable uint8
	epoch, boot     uint8
	shipperEpoch    uint8
	txid, dbPages   uint8
	head            uint8 // nonce of the newest object: proves the prefix
	attempts        [maxAttempts]attempt
	dirty, inflight set
	sums            [maxPages]uint8 // 0: not known; else the value plus 1
}

// object is an LTX file: its own pages, and for the check the whole state that it was
// read from.
type object struct {
	txid, nonce uint8
	pages       set
	value       [maxPages]uint8
	state       image
	commit      uint8 // number of that state
}

// store is the prefix. Objects up to head have been checked when they arrived, so their
// contents are kept as what they replay to.
type store struct {
	head    uint8           // newest TXID of whatever writer
	names   [maxTXID]uint8  // nonce of the object of each TXID; 0: the name is free
	replica image           // what 1..head replays to
	commit  uint8           // number of the newest state that the replica has equalled
	late    [maxLate]object // requests that were given up and may yet arrive
	foreign bool            // another machine has put the newest object
	age     uint8           // half retentions since its first
	under   bool            // an object of ours was put under one of another's
}

// others is the bit of nonces of another machine.
const others = 128

type markerPC uint8

const (
	mIdle markerPC = iota
	mBits
	mMin
	mSeen
	mPoke
	mOpen // has the write lock, everything is marked
	mReset
	mFramed
	mUnlock
	mStamp // last close: has EXCLUSIVE, everything is marked and in the file
	mDelete
	mClosed
)

// marker is a process that commits through the shim.
type marker struct {
	pc, then markerPC
	ownHold  bool
	commits  bool // this catch_up is of a commit of its own
	toMark   set
	min      uint8
	all      bool
}

// token covers a commit: durable once durable has reached window.
type token struct{ window, commit uint8 }

type foreignPC uint8

const (
	fIdle foreignPC = iota
	fReset
)

// lock is who has WAL_WRITE_LOCK, or EXCLUSIVE on the database.
type lock uint8

const (
	lockFree lock = iota
	lockMarker
	lockForeign
	lockExclusive
)

// database is what SQLite keeps.
type database struct {
	index    header
	torn     bool // the copies differ, or the wal-index is lost: whoever comes recovers
	lock     lock
	wal      [maxFrames]frame
	walSalt  uint8
	backfill uint8 // frames that are in the file too
	synced   uint8 // frames that a power loss leaves
	file     image
	version  uint8 // of the file: what a stamp tells apart
	salts    uint8 // that were used
	writes   uint8 // transactions that were written, numbers of their frames
	states   uint8 // number of the newest committed state
}

type shipperPC uint8

const (
	sDead shipperPC = iota
	sClaim
	sRest
	sTake
	sRead
	sScan
	sFirst
	sPin
	sTail
	sTailRead
	sLook
	sCopy
	sRetake
	sPrepare
	sNote
	sSync
	sPut
	sBelieve
	sRecord
	sRecordHead
	sRecordTXID
	sAllDone
	sClear
	sDurable
	sStuck // fenced or unclaimed
)

// shipper is the goroutine, and the batch under way.
type shipper struct {
	pc    shipperPC
	term  uint8
	proof uint8 // half retentions since the prefix was seen to be ours, plus 1; 0: not seen
	base  header
	based bool

	window    uint8
	moved     set
	looked    uint8 // value of all
	lookedAt  header
	lookedSet bool
	scans     uint8
	slices    uint8
	cursor    uint8
	size      uint8 // that a look at all pages goes to
	first     bool
	whole     set // pages that a first look has read
	wholeV    [maxPages]uint8

	mark     uint8
	snap     header
	state    image  // ghost: the state that is pinned
	commit   uint8  // ghost: its number
	seen     header // as the tail found it
	ok       bool
	tail     set
	smallest uint8
	every    bool
	resized  bool
	cand     set
	done     set
	have     set
	copies   [maxPages]uint8
	reached  header // where the state that was read ends
	o        object
}

// state is all of it. Every field is a byte, so that its bytes are the state.
type state struct {
	left   [budgets]uint8
	db     database
	m      marker
	tokens [maxTokens]token
	f      foreignPC
	led    ledger
	disk   ledger // as it was last synced; zero where power stays on
	boot   uint8
	st     store
	s      [2]shipper
	nonces uint8
	lost   bool // the first shipper has lost its lock and does not know
}
