package restore

import (
	"fmt"
	"os"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// startWriting is how many bytes are left to the kernel before it is told to
// begin to write them to the disk: so most of it is there when the fsync at the end
// asks for it, which then is short for others on that disk too.
const startWriting = 32 << 20

// builder applies files to a database and its ledger, which nobody else knows
// of yet. It is the ltxfile.Sink.
type builder struct {
	db      *os.File // nil: only the sums are wanted
	ledger  *ledger.Ledger
	lasting bool // what is built must be on disk in the end

	pageSize uint32
	pages    uint32 // of the database after the last file

	object    objstore.Object // being applied
	header    ltx.Header
	raw       [ltx.HeaderSize]byte
	unstarted int // bytes written since the kernel was last told to write them

	grown uint32 // last page of the database with what object has added so far
}

func (b *builder) lockPage() uint32 { return ledger.LockPage(b.pageSize) }

// Begin is part of ltxfile.Sink.
func (b *builder) Begin(h ltx.Header, raw []byte) error {
	o := b.object
	if h.MinTXID != o.Min || h.MaxTXID != o.Max {
		return fmt.Errorf("%w: its header says that it is %s", ErrCorrupt, ltx.FormatFilename(h.MinTXID, h.MaxTXID))
	}
	if b.pageSize != 0 && h.PageSize != b.pageSize {
		return fmt.Errorf("%w: its pages have %d bytes, those before it %d", ErrCorrupt, h.PageSize, b.pageSize)
	}
	b.header, b.pageSize = h, h.PageSize
	copy(b.raw[:], raw)
	b.grown = b.pages
	if h.MinTXID == 1 {
		b.grown = 0 // it must hold every page
	}
	return nil
}

// Admit sees to it that every page by which the database has grown is there. So
// a page number is never far beyond what has been read, whatever a file says.
func (b *builder) Admit(pgno uint32) error {
	if pgno == b.lockPage() {
		return fmt.Errorf("%w: it holds the lock page, %d", ErrCorrupt, pgno)
	}
	if pgno <= b.grown {
		return nil
	}
	if want := b.after(b.grown); pgno != want {
		return fmt.Errorf("%w: page %d is missing before page %d", ErrCorrupt, want, pgno)
	}
	b.grown = pgno
	return nil
}

// after is the page that follows another, the lock page aside.
func (b *builder) after(pgno uint32) uint32 {
	if pgno+1 == b.lockPage() {
		return pgno + 2
	}
	return pgno + 1
}

// Put is part of ltxfile.Sink.
func (b *builder) Put(first uint32, pages []byte) error {
	if b.db == nil {
		return nil
	}
	if _, err := b.db.WriteAt(pages, int64(first-1)*int64(b.pageSize)); err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	if b.unstarted += len(pages); b.lasting && b.unstarted >= startWriting {
		b.unstarted = 0
		_ = unix.SyncFileRange(int(b.db.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// Summed is part of ltxfile.Sink.
func (b *builder) Summed(pgno uint32, sum uint64) error {
	if err := b.ledger.Grow(pgno); err != nil {
		return err
	}
	b.ledger.SetSum(pgno, sum)
	return nil
}

// end follows the last page of a file that was whole.
func (b *builder) end() error {
	commit := b.header.Commit
	if b.grown < commit && b.after(b.grown) <= commit {
		return fmt.Errorf("%w: page %d is missing, of %d", ErrCorrupt, b.after(b.grown), commit)
	}
	if commit < b.pages {
		b.ledger.ForgetFrom(commit)
	}
	b.pages = commit
	return nil
}

// finish ends the work on the database: what lies beyond its size goes, and what
// remains is on disk.
func (b *builder) finish() error {
	if b.db == nil {
		return nil
	}
	if err := b.db.Truncate(int64(b.pages) * int64(b.pageSize)); err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	if !b.lasting {
		return nil
	}
	if err := b.db.Sync(); err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	return nil
}

// account makes the ledger say that the database is what the store has. The
// stamp is still missing.
func (b *builder) account(replica string, txid ltx.TXID, head []byte, headTimeMs int64) error {
	if err := b.ledger.Grow(b.pages); err != nil {
		return err
	}
	h := b.ledger.Header()
	h.TXID = uint64(txid)
	h.DBPages = b.pages
	h.PageSize = b.pageSize
	h.HeadSum = ledger.HeadSum(head)
	h.HeadTimeMs = headTimeMs
	h.AllDone = h.All
	h.ComparedEpoch = h.Epoch
	h.SetReplica(replica)
	return b.ledger.Sync()
}
