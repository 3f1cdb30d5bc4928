package restore

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// past is a database and how it came about.
type past struct {
	t        testing.TB
	store    *memStore
	pageSize uint32
	txid     ltx.TXID
	pages    map[uint32][]byte
	size     uint32
	changed  map[ltx.TXID][]uint32 // page numbers
}

func newHistory(t testing.TB, pageSize uint32) *past {
	return &past{
		t: t, store: newMemStore(), pageSize: pageSize,
		pages: map[uint32][]byte{}, changed: map[ltx.TXID][]uint32{},
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b)
	return b
}

// page is content that differs by page and by transaction, half of it compressible.
func (h *past) page(pgno uint32) []byte {
	b := randomBytes(uint64(pgno)<<20|uint64(h.txid), int(h.pageSize))
	clear(b[len(b)/2:])
	return b
}

// step is a transaction that changes pages and leaves the database with a size. The
// pages by which it grows are added.
func (h *past) step(size uint32, changed ...uint32) {
	h.txid++
	for p := h.size + 1; p <= size; p++ {
		if p != ltx.LockPgno(h.pageSize) && !slices.Contains(changed, p) {
			changed = append(changed, p)
		}
	}
	slices.Sort(changed)
	for _, p := range changed {
		h.pages[p] = h.page(p)
	}
	for p := range h.pages {
		if p > size {
			delete(h.pages, p)
		}
	}
	h.size = size
	h.changed[h.txid] = changed
}

// put stores the file that takes the database from before min to now.
func (h *past) put(level int, minTXID ltx.TXID) key {
	var numbers []uint32
	if minTXID == 1 {
		for p := range h.pages {
			numbers = append(numbers, p)
		}
	} else {
		for t := minTXID; t <= h.txid; t++ {
			for _, p := range h.changed[t] {
				if p <= h.size {
					numbers = append(numbers, p)
				}
			}
		}
	}
	slices.Sort(numbers)
	k := key{level, minTXID, h.txid}
	h.store.objects[k] = encode(h.t, ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: h.pageSize, Commit: h.size,
		MinTXID: minTXID, MaxTXID: h.txid, Timestamp: 1700000000000 + int64(h.txid), NodeID: 7,
	}, slices.Compact(numbers), h.pages)
	return k
}

// next is a step and its level-0 file, or at the beginning its snapshot.
func (h *past) next(size uint32, changed ...uint32) key {
	h.step(size, changed...)
	if h.txid == 1 {
		return h.put(objstore.SnapshotLevel, 1)
	}
	return h.put(0, h.txid)
}

// bytes is the database file as it should be.
func (h *past) bytes() []byte {
	b := make([]byte, int64(h.size)*int64(h.pageSize))
	for p, data := range h.pages {
		copy(b[int64(p-1)*int64(h.pageSize):], data)
	}
	return b
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
