package restore

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// The lock page lies at 1 GiB, so the database up to there is taken as given: a
// hole in the file.
func TestTheLockPageIsLeftOut(t *testing.T) {
	const lock = 16385
	h := newStory(t, 65536)
	h.txid = 1
	for p := uint32(lock - 1); p <= lock+2; p++ {
		h.pages[p] = h.page(p)
	}
	object := objstore.Object{Min: 2, Max: 2}
	encodePages := func(commit uint32, pages ...uint32) []byte {
		return encode(t, ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 65536, Commit: commit, MinTXID: 2, MaxTXID: 2,
		}, pages, h.pages)
	}
	apply := func(t *testing.T, pages uint32, file []byte) (*builder, error) {
		tg, err := newTarget(filepath.Join(t.TempDir(), "out.db"), false, false)
		if err == nil {
			_, err = tg.create()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tg.discard)
		b := &builder{db: tg.db, ledger: tg.ledger, object: object, pages: pages, pageSize: 65536}
		if err := ltxfile.NewDecoder().Decode(background, bytes.NewReader(file), b); err != nil {
			return b, err
		}
		if err := b.end(); err != nil {
			return b, err
		}
		return b, b.finish()
	}

	b, err := apply(t, lock-2, encodePages(lock+2, lock-1, lock+1, lock+2))
	if err != nil {
		t.Fatal(err)
	}
	if fi, _ := b.db.Stat(); fi.Size() != (lock+2)*65536 {
		t.Errorf("the database has %d bytes", fi.Size())
	}
	for p := uint32(lock - 1); p <= lock+2; p++ {
		got, want, sum := make([]byte, 65536), h.pages[p], ledger.PageSum(p, h.pages[p])
		if p == lock {
			want, sum = make([]byte, 65536), 0
		}
		if _, err := b.db.ReadAt(got, int64(p-1)*65536); err != nil || !bytes.Equal(got, want) || b.ledger.Sum(p) != sum {
			t.Errorf("page %d is wrong, %v", p, err)
		}
	}
	// SQLite never ends on the lock page, but a file may say so.
	if _, err := apply(t, lock-2, encodePages(lock, lock-1)); err != nil {
		t.Error(err)
	}
	if _, err := apply(t, lock-2, encodePages(lock+1, lock-1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a page is missing after the lock page: %v", err)
	}
	if err := b.Admit(lock); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a lock page with content: %v", err)
	}
}
