package ltxfile

import (
	"bytes"
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

// oldPages reads such a file's pages, one after the other: there are few of these
// files, and none is written any more.
type oldPages struct {
	f      *file
	limit  *io.LimitedReader
	frames *lz4.Reader
}

func newOldPages(f *file) *oldPages {
	limit := &io.LimitedReader{R: f.r}
	return &oldPages{f, limit, lz4.NewReader(limit)}
}

// next reads a page and adds it to the file's sums. more is false where the page
// block ends, which finish reads.
func (o *oldPages) next(page []byte, admit func(pgno uint32) error) (pgno uint32, more bool, err error) {
	f := o.f
	head, err := f.r.Peek(ltx.PageHeaderSize)
	if err != nil {
		return 0, false, short(err, "pages")
	}
	if [ltx.PageHeaderSize]byte(head) == ([ltx.PageHeaderSize]byte{}) {
		return 0, false, nil
	}
	pgno = binary.BigEndian.Uint32(head)
	if err := f.inOrder(pgno); err != nil {
		return 0, false, err
	}
	if flags := binary.BigEndian.Uint16(head[4:]); flags != 0 {
		return 0, false, fmt.Errorf("%w: page %d has flags %#x, pages before it have none", ErrCorrupt, pgno, flags)
	}
	if err := admit(pgno); err != nil {
		return 0, false, err
	}
	f.hash.write(head)
	_, _ = f.r.Discard(ltx.PageHeaderSize)

	// The LZ4 reader looks for another frame after the one that it has read,
	// so the footer must be the last that it can see.
	o.limit.N = math.MaxInt64
	o.frames.Reset(o.limit)
	if _, err := io.ReadFull(o.frames, page); err != nil {
		return 0, false, oldError(err, pgno)
	}
	o.limit.N = oldFooter
	if _, err := io.ReadFull(o.frames, make([]byte, 1)); err == nil {
		return 0, false, fmt.Errorf("%w: page %d decompresses to more than %d bytes", ErrCorrupt, pgno, f.size)
	} else if err != io.EOF {
		return 0, false, oldError(err, pgno)
	}
	f.hash.write(page)
	if f.ltxSums() {
		f.ltxSum ^= ltx.ChecksumPage(pgno, page)
	}
	return pgno, true, nil
}

func (f *file) decodeOld() error {
	page, pages := make([]byte, f.size), newOldPages(f)
	for {
		pgno, more, err := pages.next(page, f.sink.Admit)
		if err != nil || !more {
			return err
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

// unpackOld decompresses one such page.
func unpackOld(pgno uint32, frame, page []byte) error {
	r := lz4.NewReader(bytes.NewReader(frame))
	if _, err := io.ReadFull(r, page); err != nil {
		return oldError(err, pgno)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("%w: page %d decompresses to more than %d bytes", ErrCorrupt, pgno, len(page))
	}
	return nil
}
