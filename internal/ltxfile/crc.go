package ltxfile

import (
	"encoding/binary"
	"hash/crc64"
	"math/bits"
	"sync"
)

// crc is the state of a CRC-64 with the ISO polynomial, which sums an LTX file.
//
// hash/crc64 looks every byte up in a table, at a speed that would be half of the
// time of a restore. This polynomial needs no table: it is x^64 + x^4 + x^3 + x + 1, so
// x^64 is, modulo it, the four terms q = x^4 + x^3 + x + 1. Squaring keeps the
// number of terms:
//
//	x^64  = x^4  + x^3  + x   + 1
//	x^128 = x^8  + x^6  + x^2 + 1
//	x^256 = x^16 + x^12 + x^4 + 1
//
// A word of the message moves on by a multiplication by one of those, which is
// three shifts, and what they push over the edge, below 17 bits, comes
// back by three more. Four lanes, each a quarter of the words and moved by x^256,
// keep the processor from waiting for the one before.
//
// Bits are reflected, as in hash/crc64: the highest power is the lowest bit, so a
// multiplication by x is a shift to the right.
type crc uint64

func newCRC() crc { return ^crc(0) }

// sum is the checksum of what was written.
func (c crc) sum() uint64 { return ^uint64(c) }

var isoTable = crc64.MakeTable(crc64.ISO)

func (c *crc) write(b []byte) {
	s := uint64(*c)
	if len(b) >= 64 {
		// The state joins the first word, before which it stands.
		l0, l1, l2, l3 := s, uint64(0), uint64(0), uint64(0)
		for {
			l0 ^= binary.LittleEndian.Uint64(b)
			l1 ^= binary.LittleEndian.Uint64(b[8:])
			l2 ^= binary.LittleEndian.Uint64(b[16:])
			l3 ^= binary.LittleEndian.Uint64(b[24:32])
			if b = b[32:]; len(b) < 32 {
				break
			}
			l0, l1, l2, l3 = times256(l0), times256(l1), times256(l2), times256(l3)
		}
		s = times64(times64(times64(times64(l0)^l1)^l2) ^ l3)
	}
	for ; len(b) >= 8; b = b[8:] {
		s = times64(s ^ binary.LittleEndian.Uint64(b))
	}
	for _, v := range b {
		s = isoTable[byte(s)^v] ^ s>>8
	}
	*c = crc(s)
}

func times64(v uint64) uint64 {
	over := v<<63 ^ v<<61 ^ v<<60
	return v ^ v>>1 ^ v>>3 ^ v>>4 ^ fold(over)
}

func times256(v uint64) uint64 {
	over := v<<60 ^ v<<52 ^ v<<48
	return v ^ v>>4 ^ v>>12 ^ v>>16 ^ fold(over)
}

// fold multiplies by q what went over the edge, which is short enough that
// nothing goes over again.
func fold(over uint64) uint64 { return over ^ over>>1 ^ over>>3 ^ over>>4 }

// PageSum is the CRC of a page's content alone, from which, with Writer.WriteSum, the
// checksum of a file with that page is made without the content.
type PageSum uint64

// SumPage computes a page's sum.
func SumPage(page []byte) PageSum {
	c := crc(0)
	c.write(page)
	return PageSum(c)
}

// shift moves a state over a page of one size: the CRC is linear, so the state after
// a page is the state before it, moved over as many zero bytes, plus the page's own
// CRC. The move is linear too, hence a table for each of the state's bytes.
type shift [8][256]crc

func (t *shift) add(c crc, page PageSum) crc {
	return t[0][byte(c)] ^ t[1][byte(c>>8)] ^ t[2][byte(c>>16)] ^ t[3][byte(c>>24)] ^
		t[4][byte(c>>32)] ^ t[5][byte(c>>40)] ^ t[6][byte(c>>48)] ^ t[7][byte(c>>56)] ^ crc(page)
}

func newShift(pageSize int) *shift {
	t, zeros := new(shift), make([]byte, pageSize)
	for i := range t {
		for bit := range 8 {
			c := crc(1) << (8*i + bit)
			c.write(zeros)
			for b := range 1 << bit {
				t[i][1<<bit|b] = t[i][b] ^ c
			}
		}
	}
	return t
}

// shifts are those of the page sizes 512 to 65536, made when first used: 16 KiB each.
var shifts [8]struct {
	once sync.Once
	t    *shift
}

func shiftOf(pageSize uint32) *shift {
	s := &shifts[bits.Len32(pageSize/512)-1]
	s.once.Do(func() { s.t = newShift(int(pageSize)) })
	return s.t
}
