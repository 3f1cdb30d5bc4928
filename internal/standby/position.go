package standby

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/superfly/ltx"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// Suffix is what the position's file has after the standby's name.
const Suffix = "-follow"

// Point is a state of the database in its history.
type Point struct {
	TXID   ltx.TXID `json:"txid"`
	TimeMs int64    `json:"time_ms"` // of the object, from its header

	// Object and Head name the object that led here and the sum of its header,
	// which no other history has.
	Object string `json:"object"`
	Head   uint64 `json:"head"`

	Pages uint32 `json:"pages"`
	Rest  uint64 `json:"rest"` // XOR of the sums of the pages from 2 on, the lock page aside
	One   uint64 `json:"one"`  // sum of page 1 as the source has it; 0: not known
	Own   uint64 `json:"own"`  // sum of page 1 as it is here, by ownSum
}

// at reports that a database with these sums is at p.
func (p Point) at(s sums) bool { return p.Pages == s.pages && p.Rest == s.rest && p.Own == s.own }

// position is what the file says.
type position struct {
	Seq      uint64 `json:"seq"` // of the slot: the highest one that is whole counts
	Replica  string `json:"replica"`
	PageSize uint32 `json:"page_size"`
	At       Point  `json:"at"`
	Next     *Point `json:"next,omitempty"` // a transaction to there may have been committed
}

// slotSize is a slot's, of which there are two, written in turn: so that one is
// whole whatever happens during a write.
//
//	0   xxh3 of the JSON, 16 hex digits, a space
//	17  JSON, a newline, zeros
const slotSize = 4096

// positionFile is the file that holds a position and the lock on it.
type positionFile struct {
	f   *os.File
	seq uint64
}

// openPosition opens the file, creating it if that is wanted, and takes the lock,
// which ends with the process. found is false where the file holds no position.
func openPosition(path string, create bool) (pf *positionFile, p position, found bool, err error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, p, false, fmt.Errorf("open position: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err {
	case nil:
	case unix.EAGAIN, unix.EACCES:
		f.Close()
		return nil, p, false, fmt.Errorf("%w: another process follows into it", ErrInUse)
	default:
		f.Close()
		return nil, p, false, fmt.Errorf("lock position: %w", err)
	}
	pf = &positionFile{f: f}
	p, found, err = readPosition(f)
	if err != nil {
		f.Close()
		return nil, p, false, err
	}
	pf.seq = p.Seq
	return pf, p, found, nil
}

// readPosition takes the newer of the slots that are whole.
func readPosition(f io.ReaderAt) (p position, found bool, err error) {
	for off := int64(0); off < 2*slotSize; off += slotSize {
		b := make([]byte, slotSize)
		n, err := f.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return p, false, fmt.Errorf("read position: %w", err)
		}
		if s, ok := parseSlot(b[:n]); ok && (!found || s.Seq > p.Seq) {
			p, found = s, true
		}
	}
	return p, found, nil
}

func parseSlot(b []byte) (p position, ok bool) {
	if len(b) < 17 {
		return p, false
	}
	sum, err := strconv.ParseUint(string(b[:16]), 16, 64)
	if err != nil {
		return p, false
	}
	for i, c := range b {
		if c == '\n' {
			b = b[17:max(i, 17)]
			break
		}
	}
	if xxh3.Hash(b) != sum || json.Unmarshal(b, &p) != nil {
		return position{}, false
	}
	return p, true
}

// write replaces the older slot. With sync it is on the disk when write returns.
func (pf *positionFile) write(p position, sync bool) error {
	p.Seq = pf.seq + 1
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	slot := fmt.Appendf(make([]byte, 0, slotSize), "%016x %s\n", xxh3.Hash(text), text)
	if len(slot) > slotSize {
		return fmt.Errorf("write position: it takes %d bytes, of %d", len(slot), slotSize)
	}
	if _, err := pf.f.WriteAt(slot[:slotSize], int64(p.Seq%2)*slotSize); err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	if sync {
		if err := pf.f.Sync(); err != nil {
			return fmt.Errorf("sync position: %w", err)
		}
	}
	pf.seq = p.Seq
	return nil
}

func (pf *positionFile) close() { pf.f.Close() }
