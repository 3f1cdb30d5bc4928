package ledger

import "unsafe"

// The sizes and words of cext/ledger.h, which draws the file; a test of cext
// holds the two against each other.
const (
	Version      = 1
	HeaderSize   = 65536
	SegmentSize  = 131072
	SegmentPages = 15872 // pages per segment
	PokeOffset   = 61440
	LockOffset   = 0x4000000000000000

	ready = 0x59444552
	gone  = 0x454e4f47

	// None stands for a page count that is not known.
	None = ^uint32(0)

	segmentWords = SegmentPages / 64
)

// Magic begins every ledger.
var Magic = [8]byte{'W', 'A', 'L', 'F', 'E', 'R', 'R', 'Y'}

// What our reader is doing, in Header.Reader.
const (
	ReaderBatch = 1 // short: gives way to every yield
	ReaderScan  = 2 // long: gives way only to who wants the database for himself
)

// Stamp is what the database file looked like when all of it was accounted
// for and there was no WAL. Times are nanoseconds since 1970.
type Stamp struct {
	Valid            uint64 // 1: the file was synced; another number: seen like that; 0: no stamp
	Dev, Ino, Size   uint64
	MtimeNs, CtimeNs int64
}

// UploadID is the id of a multipart upload, NUL-terminated; empty if there is none.
type UploadID [240]byte

// Attempt is one try to put an object whose outcome may not be known. TXID 0
// marks a free slot.
type Attempt struct {
	TXID   uint64
	Nonce  uint64
	Upload UploadID
}

// Shipped tells where in the WAL an object ended.
type Shipped struct {
	TXID    uint64
	Salt    [2]uint32
	MxFrame uint32
	_       uint32
}

// Header is the first part of the mapped file. Fields that another process may
// change at any moment are read and written with sync/atomic only; cext/ledger.h
// says who may write which.
type Header struct {
	Magic      [8]byte
	Version    uint32
	Ready      uint32
	DatabaseID [16]byte
	Boot       [16]byte
	OwnIno     uint64
	OwnBtimeNs uint64
	DBDev      uint64
	DBIno      uint64
	PageSize   uint32
	Segments   uint32
	Epoch      uint64
	_          [3]uint64

	SeenSeq      uint32
	SeenSet      uint32
	Seen         [12]uint32
	Stamp        Stamp
	All          uint64
	CommitWindow uint64
	OpenSinceMs  uint64
	MinPages     uint32
	Poked        uint32
	Yield        uint32
	Reader       uint32
	Behind       uint32
	BehindSalt   [2]uint32
	BehindFrame  uint32
	_            [3]uint64

	Window        uint64
	Durable       uint64
	SyncWanted    uint64
	Failed        uint64
	AllDone       uint64
	ShipperEpoch  uint64
	ShipperPID    uint64
	HeartbeatMs   uint64
	TXID          uint64
	DBPages       uint32
	MinInflight   uint32
	HeadSum       uint64
	HeadTimeMs    int64
	ShipSinceMs   uint64
	ComparedEpoch uint64
	Batches       uint64
	Bytes         uint64
	Requests      uint64
	UndoneFirst   uint64
	UndoneLast    uint64
	BehindDone    uint32
	State         uint32
	Conditional   uint32
	TextSeq       uint32
	ErrorSinceMs  uint64
	IntervalMs    uint64
	Wishes        uint64
	_             [5]uint64
	CauseText     [512]byte
	ErrorText     [512]byte
	ReplicaText   [1024]byte
	Attempts      [16]Attempt
	ShippedRing   [64]Shipped
	ShippedNext   uint64

	Kept
	KeepUpload    KeepUpload
	KeepErrorText [512]byte
}

// KeepUpload is a multipart upload of a merge or a snapshot, to be aborted should
// the process end before it does. Max 0: there is none.
type KeepUpload struct {
	Level, Min, Max uint64
	Upload          UploadID
}

// Kept is what the shipper knows of the levels above 0 without asking the store,
// so that what is due is found by a process that lives for a second too. Times are
// milliseconds since 1970; 0 is not known, or never.
type Kept struct {
	LevelEnd     [3]uint64 // of levels 1 to 3: the TXID that each ends with
	LevelMs      [3]int64  // when each was last brought up to date
	SnapshotTXID uint64    // the newest snapshot
	SnapshotMs   int64     // its time
	TrimmedMs    int64     // when level 0 was last trimmed
	SweptMs      int64     // when retention was last applied to all levels
}

// segment is the rest of the file, repeated.
type segment struct {
	dirty    [segmentWords]uint64
	inflight [segmentWords]uint64
	sum      [SegmentPages]uint64
	_        [16]uint64
}

// The compiler refuses a layout that does not fit.
var (
	_ [PokeOffset - unsafe.Sizeof(Header{})]byte
	_ [unsafe.Sizeof(segment{}) - SegmentSize]byte
	_ [SegmentSize - unsafe.Sizeof(segment{})]byte
)
