package shipper

import "errors"

// Source gives the shipper one committed state of a database at a time.
type Source interface {
	// Pin holds the newest committed state until the Snapshot is closed. A
	// scan, which may take long, gives way to fewer than a batch does.
	// Errors: ErrBusy, ErrNotWAL, ErrMalformed, or one that names what is wrong.
	Pin(scan bool) (Snapshot, error)
}

// Snapshot is a pinned state. Only one goroutine uses it.
type Snapshot interface {
	PageSize() uint32 // bytes; 0 if the database is empty
	Pages() uint32    // the database's size

	// Position is where the state ends in the WAL.
	Position() Position

	// Tail returns the pages of commits that are in the state and that no
	// marker has marked yet, and the smallest size in pages that the database had
	// meanwhile. base, unless nil, is the Position of an earlier state in which
	// everything was looked at: commits after it are found too, where the
	// WAL was not restarted since. Without ok it cannot be known, and every
	// page is a candidate.
	Tail(base *Position) (pages []uint32, smallest uint32, ok bool)

	// Read reads pages, one behind the other, into buf. ErrBusy where
	// somebody waits for the database: the Snapshot is then to be closed at once.
	Read(pages []uint32, buf []byte) error

	Close()
}

// Position is the end of a state in the WAL.
type Position struct {
	Salt   [2]uint32
	Frame  uint32
	Header [12]uint32 // of the wal-index; the Source's own
}

// Errors of a Source.
var (
	// ErrBusy is returned when the state cannot be read just now: try again soon.
	ErrBusy = errors.New("database is busy")
	// ErrNotWAL is returned when the database is not in WAL mode.
	ErrNotWAL = errors.New("database is not in WAL mode")
	// ErrMalformed is returned when the database cannot be read for what is in it, which
	// waiting does not change.
	ErrMalformed = errors.New("database is malformed")
)
