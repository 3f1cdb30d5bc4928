package replica

import (
	"encoding/binary"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// craft makes a file by hand: from blocks that are compressed already, or that are no good. The checksums of
// its trailer are none.
type craft struct {
	t      testing.TB
	b      []byte
	index  []byte
	blocks map[*byte][]byte
}

func newCraft(t testing.TB, h ltx.Header) *craft {
	t.Helper()
	head, err := h.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return &craft{t: t, b: head, blocks: map[*byte][]byte{}}
}

// page adds a page as it should be, which is compressed once.
func (c *craft) page(pgno uint32, page []byte) {
	block := c.blocks[&page[0]]
	if block == nil {
		block = make([]byte, lz4.CompressBlockBound(len(page)))
		n, err := new(lz4.Compressor).CompressBlock(page, block)
		if err != nil {
			c.t.Fatal(err)
		}
		block = block[:n]
		c.blocks[&page[0]] = block
	}
	c.frame(pgno, block)
}

// frame adds a block and what stands before it.
func (c *craft) frame(pgno uint32, block []byte) {
	frame := binary.BigEndian.AppendUint32(nil, pgno)
	frame = binary.BigEndian.AppendUint16(frame, ltx.PageHeaderFlagSize)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(block)))
	c.raw(pgno, append(frame, block...))
}

// raw adds what the index calls a page.
func (c *craft) raw(pgno uint32, frame []byte) {
	c.enter(uint64(pgno), uint64(len(c.b)), uint64(len(frame)))
	c.b = append(c.b, frame...)
}

// enter adds to the index alone.
func (c *craft) enter(pgno, off, size uint64) {
	for _, v := range []uint64{pgno, off, size} {
		c.index = binary.AppendUvarint(c.index, v)
	}
}

// end returns the file.
func (c *craft) end() []byte {
	index := append(c.index, 0)
	b := append(c.b, make([]byte, ltx.PageHeaderSize)...)
	b = append(b, index...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(index)))
	return append(b, make([]byte, ltx.TrailerSize)...)
}
