package restore

import (
	"bytes"
	"encoding/binary"
	"hash/crc64"
	"slices"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// files are of every kind that the decoder reads.
func files(t testing.TB) [][]byte {
	var all [][]byte
	for _, size := range []uint32{512, 4096, 65536} {
		h := newHistory(t, size)
		all = append(all, h.store.objects[h.next(3)], h.store.objects[h.next(9, 2)], h.store.objects[h.next(2, 1)])
		h.next(2)
	}
	h := newHistory(t, 512)
	k := h.next(1400) // several chunks
	all = append(all, h.store.objects[k])
	all = append(all, encode(t, ltx.Header{Version: ltx.Version, PageSize: 512, Commit: 1400, MinTXID: 1, MaxTXID: 1}, h.changed[1], h.pages))
	all = append(all, encode(t, ltx.Header{
		Version: ltx.Version, PageSize: 512, Commit: 1400, MinTXID: 2, MaxTXID: 9, PreApplyChecksum: ltx.ChecksumFlag | 5,
	}, []uint32{5, 1300}, h.pages))
	return append(all, encodeOld(t, []uint32{1, 2, 3}, h.pages))
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
