package ltxfile

import (
	"encoding/binary"
	"hash/crc64"
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
