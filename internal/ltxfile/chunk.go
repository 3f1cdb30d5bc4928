package ltxfile

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
)

// chunkBytes is how much of the database a chunk holds, decompressed: enough
// that handing it from goroutine to goroutine costs nothing, and little enough to stay
// in a core's cache from the decompression to the write.
const chunkBytes = 256 << 10

// frameHead is a page's header and the size of what follows, as they stand in
// a file:
//
//	0  pgno             4
//	4  flags            2   PageHeaderFlagSize: the size follows
//	6  compressed size  4
//	10 LZ4 block
const frameHead = ltx.PageHeaderSize + 4

// frame is one page of a chunk.
type frame struct {
	head [frameHead]byte // as read: it is part of the file checksum
	pgno uint32
	size int // of the LZ4 block
	sum  uint64
}

// chunk is a run of frames of one file on its way through the pipeline. It is
// owned by one goroutine at a time.
type chunk struct {
	frames []frame
	packed []byte // the LZ4 blocks, back to back
	plain  []byte // the pages, back to back
	ltxSum ltx.Checksum
	done   chan struct{} // closed when plain and the sums are there
}

// reset makes c empty, with room for pages of a size.
func (c *chunk) reset(pageSize int) {
	n := chunkBytes / pageSize
	if cap(c.frames) < n {
		c.frames = make([]frame, 0, n)
	}
	// What the pages need at their worst, so that no size read from a file
	// makes it grow.
	if most := n * lz4.CompressBlockBound(pageSize); cap(c.packed) < most {
		c.packed = make([]byte, 0, most)
	}
	if cap(c.plain) < chunkBytes {
		c.plain = make([]byte, chunkBytes)
	}
	c.frames, c.packed, c.plain = c.frames[:0], c.packed[:0], c.plain[:0]
	c.ltxSum, c.done = 0, make(chan struct{})
}

func (c *chunk) full(pageSize int) bool { return len(c.frames) == chunkBytes/pageSize }

// unpack decompresses and sums the pages. With ltxSums it also computes what LTX
// calls the page checksums, which walferry and Litestream leave out.
func (c *chunk) unpack(pageSize int, ltxSums bool) error {
	c.plain = c.plain[:len(c.frames)*pageSize]
	packed := c.packed
	for i := range c.frames {
		f := &c.frames[i]
		page := c.page(i, pageSize)
		if err := unpack(f.pgno, packed[:f.size], page); err != nil {
			return err
		}
		packed = packed[f.size:]
		f.sum = ledger.PageSum(f.pgno, page)
		if ltxSums {
			c.ltxSum ^= ltx.ChecksumPage(f.pgno, page)
		}
	}
	return nil
}

func (c *chunk) page(i, pageSize int) []byte {
	return c.plain[i*pageSize : (i+1)*pageSize : (i+1)*pageSize]
}

// runs calls f with each stretch of pages whose numbers follow each other.
func (c *chunk) runs(pageSize int, f func(first uint32, pages []byte) error) error {
	for i := 0; i < len(c.frames); {
		j := i + 1
		for j < len(c.frames) && c.frames[j].pgno == c.frames[j-1].pgno+1 {
			j++
		}
		if err := f(c.frames[i].pgno, c.plain[i*pageSize:j*pageSize]); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// index checks a file's page index against the pages that were in the file.
//
//	repeated: varint pgno, varint offset, varint size of the frame
//	varint 0
//	8 bytes, big-endian: length of all that
type index struct {
	commit uint32
	last   uint64
	next   uint64 // where the next frame may begin
	n      int
	seq    crc // of the page numbers in order
}

func newIndex(commit uint32) index {
	return index{commit: commit, next: ltx.HeaderSize, seq: newCRC()}
}

func (x *index) add(pgno, off, size uint64) error {
	switch {
	case pgno <= x.last || pgno > uint64(x.commit):
		return fmt.Errorf("%w: page %d in the index after page %d, of %d", ErrCorrupt, pgno, x.last, x.commit)
	case off < x.next || size <= ltx.PageHeaderSize || off > math.MaxInt64 || size > math.MaxInt64-off:
		return fmt.Errorf("%w: the index gives page %d %d bytes at %d", ErrCorrupt, pgno, size, off)
	}
	x.last, x.next = pgno, off+size
	x.n++
	follow(&x.seq, uint32(pgno))
	return nil
}

// follow adds a page number to the sum of a sequence of them, which stands for
// the sequence where it is too long to keep.
func follow(seq *crc, pgno uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], pgno)
	seq.write(b[:])
}
