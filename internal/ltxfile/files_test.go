package ltxfile

import (
	"bytes"
	"encoding/binary"
	"hash/crc64"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = src.Read(b)
	return b
}

// content is of pages 1 to n, half of it compressible.
func content(seed uint64, pageSize, n uint32) map[uint32][]byte {
	pages := map[uint32][]byte{}
	for p := uint32(1); p <= n; p++ {
		b := randomBytes(seed<<16|uint64(p), int(pageSize))
		clear(b[len(b)/2:])
		pages[p] = b
	}
	return pages
}

// numbers are from first to last.
func numbers(first, last uint32) (all []uint32) {
	for p := first; p <= last; p++ {
		all = append(all, p)
	}
	return all
}

// plainHeader is one as walferry and Litestream write them.
func plainHeader(pageSize, commit uint32, minTXID, maxTXID ltx.TXID) ltx.Header {
	return ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize, Commit: commit,
		MinTXID: minTXID, MaxTXID: maxTXID, Timestamp: 1700000000000 + int64(maxTXID), NodeID: 7,
	}
}

// files are of every kind that the decoder reads.
func files(t testing.TB) [][]byte {
	var all [][]byte
	for _, size := range []uint32{512, 4096, 65536} {
		pages := content(1, size, 9)
		all = append(all,
			encode(t, plainHeader(size, 3, 1, 1), numbers(1, 3), pages),
			encode(t, plainHeader(size, 9, 2, 2), append([]uint32{2}, numbers(4, 9)...), pages),
			encode(t, plainHeader(size, 2, 3, 3), []uint32{1}, pages),
			encode(t, plainHeader(size, 2, 4, 4), []uint32{2}, pages))
	}
	pages, most := content(2, 512, 1400), numbers(1, 1400) // several chunks
	all = append(all, encode(t, plainHeader(512, 1400, 1, 1), most, pages))
	all = append(all, encode(t, ltx.Header{Version: ltx.Version, PageSize: 512, Commit: 1400, MinTXID: 1, MaxTXID: 1}, most, pages))
	all = append(all, encode(t, ltx.Header{
		Version: ltx.Version, PageSize: 512, Commit: 1400, MinTXID: 2, MaxTXID: 9, PreApplyChecksum: ltx.ChecksumFlag | 5,
	}, []uint32{5, 1300}, pages))
	return append(all, encodeOld(t, []uint32{1, 2, 3}, pages))
}

func encode(t testing.TB, hdr ltx.Header, numbers []uint32, pages map[uint32][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(hdr)
	}
	if err != nil {
		t.Fatal(err)
	}
	post := ltx.ChecksumFlag
	for _, p := range numbers {
		if err := enc.EncodePage(ltx.PageHeader{Pgno: p}, pages[p]); err != nil {
			t.Fatal(err)
		}
		post = ltx.ChecksumFlag | (post ^ ltx.ChecksumPage(p, pages[p]))
	}
	if !hdr.NoChecksum() {
		enc.SetPostApplyChecksum(post)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// encodeOld writes a file as the encoder did before pages had a size before them.
func encodeOld(t testing.TB, numbers []uint32, pages map[uint32][]byte) []byte {
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 3, MinTXID: 1, MaxTXID: 1}
	b, _ := h.MarshalBinary()
	plain := slices.Clone(b)
	var index []byte
	for _, p := range numbers {
		head := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, p), 0)
		off := len(b)
		b = append(b, head...)
		var buf bytes.Buffer
		zw := lz4.NewWriter(&buf)
		if _, err := zw.Write(pages[p]); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		b = append(b, buf.Bytes()...)
		plain = append(append(plain, head...), pages[p]...)
		for _, v := range []int{int(p), off, len(b) - off} {
			index = binary.AppendUvarint(index, uint64(v))
		}
	}
	index = append(index, 0)
	tail := append(make([]byte, ltx.PageHeaderSize), index...)
	tail = binary.BigEndian.AppendUint64(tail, uint64(len(index)))
	tail = append(tail, make([]byte, 8)...)
	sum := crc64.Checksum(append(plain, tail...), isoTable) | uint64(ltx.ChecksumFlag)
	return binary.BigEndian.AppendUint64(append(b, tail...), sum)
}
