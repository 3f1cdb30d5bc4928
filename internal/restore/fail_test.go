package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// fails restores and expects an error that says so, and an empty directory.
func fails(t *testing.T, h *story, want error, says ...string) {
	t.Helper()
	dir := t.TempDir()
	_, err := Restore(background, h.store, filepath.Join(dir, "out.db"), Options{})
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
	if names := dirNames(t, dir); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func threeSteps(t *testing.T) *story {
	h := newStory(t, 4096)
	h.next(900)
	h.next(900, 5, 6, 7)
	h.next(905, 1)
	return h
}

func TestABadObjectIsNamed(t *testing.T) {
	snapshot, second := key{9, 1, 1}, key{0, 2, 2}
	const (
		nameOfFirst  = "level 9 0000000000000001-0000000000000001.ltx"
		nameOfSecond = "level 0 0000000000000002-0000000000000002.ltx"
		upToFirst    = "TXIDs 0000000000000002 to 0000000000000002 are missing; the newest that can be restored is 0000000000000001"
	)
	for _, c := range []struct {
		name string
		k    key
		do   func(b []byte) []byte
		says []string
	}{
		{"empty", second, func(b []byte) []byte { return nil }, []string{nameOfSecond, upToFirst}},
		{"cut in the header", second, func(b []byte) []byte { return b[:50] }, []string{nameOfSecond, "header", upToFirst}},
		{"cut in the pages", second, func(b []byte) []byte { return b[:2000] }, []string{nameOfSecond, "pages", upToFirst}},
		{"cut in the trailer", second, func(b []byte) []byte { return b[:len(b)-1] }, []string{nameOfSecond, "trailer", upToFirst}},
		{"longer", second, func(b []byte) []byte { return append(b, 0) }, []string{nameOfSecond, "after its trailer"}},
		{"a bit of a page", second, func(b []byte) []byte { b[1500] ^= 4; return b }, []string{nameOfSecond, upToFirst}},
		{"a bit of the time", second, func(b []byte) []byte { b[39] ^= 1; return b }, []string{nameOfSecond, "sums to", upToFirst}},
		{"a bit of the checksum", second, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, []string{nameOfSecond, "sums to"}},
		{"not LTX", second, func(b []byte) []byte { return []byte(strings.Repeat("<html>", 99)) }, []string{nameOfSecond, "invalid LTX file"}},
		{"another file's bytes", second, nil, []string{nameOfSecond, "0000000000000003-0000000000000003.ltx"}},
		{"a bit of the snapshot", snapshot, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, []string{nameOfFirst, "without it nothing can be restored"}},
		{"cut snapshot", snapshot, func(b []byte) []byte { return b[:len(b)/2] }, []string{nameOfFirst, "ends in the middle"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := threeSteps(t)
			b := slices.Clone(h.store.objects[c.k])
			if c.do == nil {
				b = h.store.objects[key{0, 3, 3}]
			} else {
				b = c.do(b)
			}
			h.store.objects[c.k] = b
			fails(t, h, ErrCorrupt, c.says...)
		})
	}
}

func TestAFileThatDoesNotGoOnFromTheOneBefore(t *testing.T) {
	t.Run("another page size", func(t *testing.T) {
		h, o := threeSteps(t), newStory(t, 8192)
		o.next(4)
		h.store.objects[key{0, 2, 2}] = o.store.objects[o.next(4, 2)]
		fails(t, h, ErrCorrupt, "8192", "4096", "0000000000000002-")
	})
	t.Run("pages missing that it grew by", func(t *testing.T) {
		h := threeSteps(t)
		h.store.objects[key{0, 3, 3}] = encode(t, ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 905, MinTXID: 3, MaxTXID: 3,
		}, []uint32{1, 902}, h.pages)
		fails(t, h, ErrCorrupt, "page 901 is missing")
	})
	t.Run("pages missing at the end", func(t *testing.T) {
		h := threeSteps(t)
		h.store.objects[key{0, 3, 3}] = encode(t, ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 905, MinTXID: 3, MaxTXID: 3,
		}, []uint32{1, 901}, h.pages)
		fails(t, h, ErrCorrupt, "page 902 is missing, of 905")
	})
}

func TestAnEmptyStoreAndAGap(t *testing.T) {
	fails(t, newStory(t, 512), history.ErrNothing, "no database at mem://test")
	h := threeSteps(t)
	delete(h.store.objects, key{0, 2, 2})
	fails(t, h, history.ErrGap, "0000000000000002", "mem://test")
}

func TestAMissingObjectIsNamed(t *testing.T) {
	h := threeSteps(t)
	h.store.open = func(o objstore.Object, _ int64, _ int) error {
		if o.Min == 2 {
			return objstore.ErrNotExist // though it is listed
		}
		return nil
	}
	fails(t, h, objstore.ErrNotExist, "level 0 0000000000000002-0000000000000002.ltx", "newest that can be restored is 0000000000000001")
}

func TestCompactionMeanwhileIsFollowed(t *testing.T) {
	h := threeSteps(t)
	h.store.open = func(o objstore.Object, _ int64, nth int) error {
		if o == (objstore.Object{Level: 0, Min: 2, Max: 2, Size: o.Size}) {
			h.store.mu.Lock()
			defer h.store.mu.Unlock()
			if _, ok := h.store.objects[keyOf(o)]; ok {
				delete(h.store.objects, keyOf(o))
				delete(h.store.objects, key{0, 3, 3})
				h.put(1, 2)
			}
			return objstore.ErrNotExist
		}
		return nil
	}
	restored(t, h)
}

func TestTransientErrorsAreRetriedFromWhereTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStory(t, 4096)
		h.next(3000) // more than two parts
		h.next(3000, 5)
		h.store.cut = func(nth int) (int64, bool) { return 700_000, nth%3 != 0 }
		h.store.open = func(o objstore.Object, off int64, nth int) error {
			if nth%4 == 0 {
				return errors.New("503 slow down")
			}
			return nil
		}
		restored(t, h)
	})
}

func TestErrorsThatLastEndTheRestore(t *testing.T) {
	for _, want := range []error{errors.New("unreachable"), objstore.ErrRefused} {
		synctest.Test(t, func(t *testing.T) {
			h := threeSteps(t)
			h.store.open = func(o objstore.Object, off int64, nth int) error {
				if o.Min == 3 {
					return want
				}
				return nil
			}
			fails(t, h, want, "level 0 0000000000000003-0000000000000003.ltx")
		})
	}
}

func TestCancellationLeavesNothing(t *testing.T) {
	h := newStory(t, 4096)
	h.next(3000)
	for range 20 {
		h.next(3000, 1, 2, 3)
	}
	for stop := range int64(12) {
		ctx, cancel := context.WithCancel(background)
		dir := t.TempDir()
		calls := int64(0)
		_, err := Restore(ctx, h.store, filepath.Join(dir, "out.db"), Options{Progress: func(done, total int64) {
			if calls++; calls > stop*2 {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
		if names := dirNames(t, dir); len(names) > 0 {
			t.Fatalf("left behind: %v", names)
		}
	}
}

func TestProgressEndsAtItsTotal(t *testing.T) {
	h := threeSteps(t)
	var last, total int64
	_, err := Restore(background, h.store, filepath.Join(t.TempDir(), "out.db"), Options{Progress: func(d, n int64) { last, total = d, n }})
	if err != nil || last != total || total == 0 {
		t.Errorf("%d of %d, %v", last, total, err)
	}
}

func TestAFullDiskIsNotTheObjectsFault(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	b := &builder{db: full, pageSize: 4096}
	if err := b.Put(1, make([]byte, 4096)); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}
