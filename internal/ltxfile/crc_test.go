package ltxfile

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

func TestCRCIsThatOfTheStandardLibrary(t *testing.T) {
	data := randomBytes(1, 5000)
	for n := range 700 {
		c := newCRC()
		c.write(data[:n])
		if want := crc64.Checksum(data[:n], isoTable); c.sum() != want {
			t.Fatalf("%d bytes: %016x, want %016x", n, c.sum(), want)
		}
	}
	for i := range 500 { // in pieces
		c, b := newCRC(), data[i:]
		for len(b) > 0 {
			n := rand.IntN(min(len(b), 300)) + 1
			c.write(b[:n])
			b = b[n:]
		}
		if want := crc64.Checksum(data[i:], isoTable); c.sum() != want {
			t.Fatalf("%d bytes in pieces: %016x, want %016x", len(data)-i, c.sum(), want)
		}
	}
}

func TestAPageMovesTheCRCAsItsBytesDo(t *testing.T) {
	for size := uint32(512); size <= 65536; size *= 2 {
		c, want := newCRC(), newCRC()
		for i := range 5 {
			head, page := randomBytes(uint64(i), 10), randomBytes(uint64(i)+9, int(size))
			c.write(head)
			c = shiftOf(size).add(c, SumPage(page))
			want.write(head)
			want.write(page)
			if c != want {
				t.Fatalf("page size %d, page %d: %016x, want %016x", size, i, c, want)
			}
		}
	}
}

func BenchmarkCRC(b *testing.B) {
	data := randomBytes(1, 4096)
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		c := newCRC()
		for b.Loop() {
			c.write(data)
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		c := uint64(0)
		for b.Loop() {
			c = crc64.Update(c, isoTable, data)
		}
	})
}
