package ltxfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
)

// oldEncoding reports a file whose pages are LZ4 frames without a size before
// them, as Litestream wrote them at first.
func (f *file) oldEncoding() (bool, error) {
	head, err := f.r.Peek(ltx.PageHeaderSize)
	if err != nil {
		return false, short(err, "pages")
	}
	return binary.BigEndian.Uint32(head) != 0 && binary.BigEndian.Uint16(head[4:]) == 0, nil
}

// oldFooter is what an LZ4 frame has after its blocks: the end mark and the
// checksum of its content.
const oldFooter = 8

// decodeOld reads such a file's pages, one after the other: there are few of these
// files, and none is written any more.
func (f *file) decodeOld() error {
	page := make([]byte, f.size)
	limit := &io.LimitedReader{R: f.r}
	frames := lz4.NewReader(limit)
	for {
		head, err := f.r.Peek(ltx.PageHeaderSize)
		if err != nil {
			return short(err, "pages")
		}
		if [ltx.PageHeaderSize]byte(head) == ([ltx.PageHeaderSize]byte{}) {
			return nil // finish reads it
		}
		pgno := binary.BigEndian.Uint32(head)
		if err := f.inOrder(pgno); err != nil {
			return err
		}
		if flags := binary.BigEndian.Uint16(head[4:]); flags != 0 {
			return fmt.Errorf("%w: page %d has flags %#x, pages before it have none", ErrCorrupt, pgno, flags)
		}
		if err := f.sink.Admit(pgno); err != nil {
			return err
		}
		f.hash.write(head)
		_, _ = f.r.Discard(ltx.PageHeaderSize)

		// The LZ4 reader looks for another frame after the one that it has read,
		// so the footer must be the last that it can see.
		limit.N = math.MaxInt64
		frames.Reset(limit)
		if _, err := io.ReadFull(frames, page); err != nil {
			return oldError(err, pgno)
		}
		limit.N = oldFooter
		if _, err := io.ReadFull(frames, make([]byte, 1)); err == nil {
			return fmt.Errorf("%w: page %d decompresses to more than %d bytes", ErrCorrupt, pgno, f.size)
		} else if err != io.EOF {
			return oldError(err, pgno)
		}
		f.hash.write(page)
		if f.ltxSums() {
			f.ltxSum ^= ltx.ChecksumPage(pgno, page)
		}
		if err := f.sink.Put(pgno, page); err != nil {
			return err
		}
		if err := f.sink.Summed(pgno, ledger.PageSum(pgno, page)); err != nil {
			return err
		}
	}
}

// oldError tells what is wrong with the bytes from what is wrong with the
// download.
func oldError(err error, pgno uint32) error {
	if failed := new(SourceError); errors.As(err, &failed) {
		return err
	}
	return fmt.Errorf("%w: page %d: %w", ErrCorrupt, pgno, err)
}
