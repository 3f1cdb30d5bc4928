package ltxfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/spool"
)

// indexMemory is how many bytes of the page index are kept in memory, before
// they go to a file: some 10 per page.
const indexMemory = 1 << 20

// ErrOrder is wrapped by a Writer's methods when what they are given makes no
// valid file: pages out of order, beyond the database, missing from a snapshot.
var ErrOrder = errors.New("not a page that may follow")

// Writer writes an LTX file of format version 3 from pages that are compressed
// already, each an LZ4 block: what it costs is to copy them. It belongs to one goroutine.
//
// Its memory is bounded: the page index, which stands behind the pages, is kept in
// an unlinked file where it is large.
type Writer struct {
	w      *bufio.Writer
	header ltx.Header
	size   int // of a page
	shift  *shift
	hash   crc
	n      int64  // bytes written
	last   uint32 // page number
	lock   uint32
	index  spool.Spool
	err    error // the first one, which ends the file
}

// NewWriter returns a Writer to w. A large index is kept in dir. Whoever calls it
// calls Discard in the end.
func NewWriter(w io.Writer, dir string) *Writer {
	return &Writer{
		w:     bufio.NewWriterSize(w, 64<<10),
		hash:  newCRC(),
		index: spool.Spool{Dir: dir, Memory: indexMemory},
	}
}

// fail makes an error the last.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// hashed writes bytes that the file checksum covers as they are.
func (w *Writer) hashed(b []byte) error {
	w.hash.write(b)
	w.n += int64(len(b))
	if _, err := w.w.Write(b); err != nil {
		return w.fail(err)
	}
	return nil
}

// WriteHeader begins the file. Such files carry no checksum of the database: h has
// the flag that says so, and the field for it empty.
func (w *Writer) WriteHeader(h ltx.Header) error {
	if err := h.Validate(); err != nil {
		return w.fail(err)
	}
	if !h.NoChecksum() || h.PreApplyChecksum != 0 || w.size != 0 {
		return w.fail(fmt.Errorf("%w: a second header, or one with a checksum", ErrOrder))
	}
	w.header, w.size = h, int(h.PageSize)
	w.shift, w.lock = shiftOf(h.PageSize), ltx.LockPgno(h.PageSize)
	b, err := h.MarshalBinary()
	if err != nil {
		return w.fail(err)
	}
	return w.hashed(b)
}

// WriteFrame adds a page as its LZ4 block and as it is decompressed, which is not looked
// at further. Pages ascend; a file from TXID 1 has all of them but the lock page.
func (w *Writer) WriteFrame(pgno uint32, block, plain []byte) error {
	if len(plain) != w.size {
		return w.fail(fmt.Errorf("%w: page %d has %d bytes, not %d", ErrOrder, pgno, len(plain), w.size))
	}
	return w.WriteSum(pgno, block, SumPage(plain))
}

// WriteSum is WriteFrame with the sum in place of the decompressed page.
func (w *Writer) WriteSum(pgno uint32, block []byte, sum PageSum) error {
	if w.err != nil {
		return w.err
	}
	if err := w.admit(pgno, len(block)); err != nil {
		return w.fail(err)
	}
	at := w.n
	var head [frameHead]byte
	binary.BigEndian.PutUint32(head[:], pgno)
	binary.BigEndian.PutUint16(head[4:], ltx.PageHeaderFlagSize)
	binary.BigEndian.PutUint32(head[6:], uint32(len(block)))
	if err := w.hashed(head[:]); err != nil {
		return err
	}
	w.hash = w.shift.add(w.hash, sum)
	w.n += int64(len(block))
	if _, err := w.w.Write(block); err != nil {
		return w.fail(err)
	}
	w.last = pgno
	var b [3 * binary.MaxVarintLen64]byte
	e := binary.AppendUvarint(b[:0], uint64(pgno))
	e = binary.AppendUvarint(e, uint64(at))
	if _, err := w.index.Write(binary.AppendUvarint(e, uint64(w.n-at))); err != nil {
		return w.fail(err)
	}
	return nil
}

func (w *Writer) admit(pgno uint32, block int) error {
	switch {
	case pgno <= w.last || pgno > w.header.Commit || pgno == w.lock:
		return fmt.Errorf("%w: page %d after page %d, of %d", ErrOrder, pgno, w.last, w.header.Commit)
	case w.header.IsSnapshot() && pgno != After(w.last, w.lock):
		return fmt.Errorf("%w: page %d after page %d in a snapshot", ErrOrder, pgno, w.last)
	case block == 0 || block > lz4.CompressBlockBound(w.size):
		return fmt.Errorf("%w: page %d takes %d bytes", ErrOrder, pgno, block)
	}
	return nil
}

// After is the page that follows another, the lock page aside.
func After(pgno, lock uint32) uint32 {
	if pgno+1 == lock {
		return pgno + 2
	}
	return pgno + 1
}

// Close ends the file. It is whole only where Close returns nil.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.size == 0 {
		return w.fail(fmt.Errorf("%w: there is no header", ErrOrder))
	}
	if next := After(w.last, w.lock); w.header.IsSnapshot() && w.last < w.header.Commit && next <= w.header.Commit {
		return w.fail(fmt.Errorf("%w: page %d of %d is missing in a snapshot", ErrOrder, next, w.header.Commit))
	}
	if err := w.hashed(make([]byte, ltx.PageHeaderSize)); err != nil {
		return err
	}
	if err := w.writeIndex(); err != nil {
		return err
	}
	var t [ltx.TrailerSize]byte // the database's checksum, none, and the file's
	w.hash.write(t[:ltx.TrailerChecksumOffset])
	binary.BigEndian.PutUint64(t[ltx.TrailerChecksumOffset:], uint64(ltx.ChecksumFlag)|w.hash.sum())
	w.n += ltx.TrailerSize
	if _, err := w.w.Write(t[:]); err != nil {
		return w.fail(err)
	}
	if err := w.w.Flush(); err != nil {
		return w.fail(err)
	}
	w.err = ErrOrder // nothing may follow
	w.index.Reset()
	return nil
}

func (w *Writer) writeIndex() error {
	if err := w.index.Flush(); err != nil {
		return w.fail(err)
	}
	at, buf := w.n, make([]byte, 32<<10)
	for r := io.NewSectionReader(&w.index, 0, w.index.Size()); ; {
		n, err := r.Read(buf)
		if n > 0 {
			if err := w.hashed(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		} else if err != nil {
			return w.fail(fmt.Errorf("read page index: %w", err))
		}
	}
	if err := w.hashed([]byte{0}); err != nil {
		return err
	}
	return w.hashed(binary.BigEndian.AppendUint64(nil, uint64(w.n-at)))
}

// Size is how many bytes the file has so far.
func (w *Writer) Size() int64 { return w.n }

// Discard frees what the Writer holds, whatever became of the file.
func (w *Writer) Discard() {
	w.index.Reset()
	w.fail(ErrOrder)
}
