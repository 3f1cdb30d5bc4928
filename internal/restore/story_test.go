package restore

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// story is a database and how it came about.
type story struct {
	t        testing.TB
	store    *memStore
	pageSize uint32
	txid     ltx.TXID
	pages    map[uint32][]byte
	size     uint32
	changed  map[ltx.TXID][]uint32 // page numbers
	was      map[ltx.TXID][]byte   // the database after each; nil: not kept
	checked  bool                  // objects carry the database's checksum
}

func newStory(t testing.TB, pageSize uint32) *story {
	return &story{
		t: t, store: newMemStore(), pageSize: pageSize,
		pages: map[uint32][]byte{}, changed: map[ltx.TXID][]uint32{},
	}
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	src := rand.NewChaCha8(key)
	_, _ = src.Read(b)
	return b
}

// page is content that differs by page and by transaction, half of it compressible.
func (h *story) page(pgno uint32) []byte {
	b := randomBytes(uint64(pgno)<<20|uint64(h.txid), int(h.pageSize))
	clear(b[len(b)/2:])
	return b
}

// step is a transaction that changes pages and leaves the database with a size. The
// pages by which it grows are added.
func (h *story) step(size uint32, changed ...uint32) {
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
	if h.was != nil {
		h.was[h.txid] = h.bytes()
	}
}

// sum is the database's checksum.
func (h *story) sum() (sum uint64) {
	for p, data := range h.pages {
		sum ^= ledger.PageSum(p, data)
	}
	return sum
}

// put stores the file that takes the database from before min to now.
func (h *story) put(level int, minTXID ltx.TXID) key {
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
	if h.checked {
		h.store.sums[k] = h.sum()
	}
	return k
}

// next is a step and its level-0 file, or at the beginning its snapshot.
func (h *story) next(size uint32, changed ...uint32) key {
	h.step(size, changed...)
	if h.txid == 1 {
		return h.put(objstore.SnapshotLevel, 1)
	}
	return h.put(0, h.txid)
}

// bytes is the database file as it should be.
func (h *story) bytes() []byte {
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
