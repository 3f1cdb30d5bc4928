package restore

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
)

// Sizes that a file claims must not be believed.
func TestAHostileFileAllocatesLittle(t *testing.T) {
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 1<<32 - 1, MinTXID: 2, MaxTXID: 2}
	head, _ := h.MarshalBinary()
	for name, rest := range map[string][]byte{
		"block of 4 GiB":    {0, 0, 0, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0},
		"page 4294967295":   {0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 1, 0},
		"index of 2^63":     {0, 0, 0, 0, 0, 0, 1, 100, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"index of 2^64 + 1": {0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"frame of 4 MiB":    {0, 0, 0, 1, 0, 0, 4, 34, 77, 24, 0x60, 0x70, 0x73, 0xff, 0xff, 0xff, 0},
	} {
		b := append(slices.Clone(head), rest...)
		tg, err := newTarget(t.TempDir()+"/out.db", false, false)
		if err == nil {
			_, err = tg.create()
		}
		if err != nil {
			t.Fatal(err)
		}
		d := ltxfile.NewDecoder()
		bl := &builder{db: tg.db, ledger: tg.ledger, pageSize: 512, pages: 10}
		bl.object.Min, bl.object.Max = 2, 2
		before := memory()
		if err := d.Decode(background, bytes.NewReader(b), bl); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if used := memory() - before; used > 20<<20 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
		tg.discard()
	}
}

// memory is what was ever allocated.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
