package objstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// place is a fresh store and the directory in which its objects are plain files.
type place struct {
	objstore.Store
	levelDir func(level int) string
	requests *atomic.Int64
}

// each runs a test against every kind of store.
func each(t *testing.T, f func(t *testing.T, p place)) {
	t.Run("file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new", "app")
		n := new(atomic.Int64)
		s := open(t, "file://"+dir, objstore.Options{OnRequest: func(int64) { n.Add(1) }})
		f(t, place{s, func(l int) string { return filepath.Join(dir, "ltx", fmt.Sprint(l)) }, n})
	})
	inS3(t, f)
}

// inS3 runs it against a bucket alone.
func inS3(t *testing.T, f func(t *testing.T, p place)) {
	t.Run("s3", func(t *testing.T) {
		srv := s3test.Start(t)
		srv.Env(t)
		srv.Bucket(t, "replicas")
		n := new(atomic.Int64)
		s := open(t, "s3://replicas/some/app", objstore.Options{OnRequest: func(int64) { n.Add(1) }})
		f(t, place{s, func(l int) string {
			return filepath.Join(srv.Dir, "replicas", "some", "app", fmt.Sprintf("%04x", l))
		}, n})
	})
}

func open(t *testing.T, url string, o objstore.Options) objstore.Store {
	t.Helper()
	s, err := objstore.New(url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func object(level int, from, to ltx.TXID) objstore.Object {
	return objstore.Object{Level: level, Min: from, Max: to}
}

func create(t *testing.T, s objstore.Store, o objstore.Object, body string) {
	t.Helper()
	if err := s.Create(t.Context(), o, bytes.NewReader([]byte(body)), objstore.Meta{Timestamp: time.UnixMilli(1)}, nil); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s objstore.Store, o objstore.Object, off, n int64) string {
	t.Helper()
	rc, err := s.Open(t.Context(), o, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCreateIsExclusive(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		o := object(0, 7, 7)
		create(t, p, o, "first")
		err := p.Create(t.Context(), o, bytes.NewReader([]byte("second")), objstore.Meta{}, nil)
		if !errors.Is(err, objstore.ErrExist) || errors.Is(err, objstore.ErrRefused) {
			t.Fatalf("second create: %v", err)
		}
		if got := read(t, p, o, 0, -1); got != "first" {
			t.Fatalf("object holds %q", got)
		}
		if _, err := os.Stat(filepath.Join(p.levelDir(0), "0000000000000007-0000000000000007.ltx")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRaceHasOneWinner(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		for round := range 4 {
			o := object(0, ltx.TXID(round+1), ltx.TXID(round+1))
			var wg sync.WaitGroup
			var won, conflicts atomic.Int64
			var winner atomic.Value
			for i := range 16 {
				wg.Go(func() {
					body := fmt.Sprintf("creator %02d", i)
					err := p.Create(t.Context(), o, bytes.NewReader([]byte(body)), objstore.Meta{}, nil)
					switch {
					case err == nil:
						won.Add(1)
						winner.Store(body)
					case errors.Is(err, objstore.ErrExist):
						conflicts.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 || conflicts.Load() != 15 {
				t.Fatalf("%d winners, %d conflicts", won.Load(), conflicts.Load())
			}
			if got := read(t, p, o, 0, -1); got != winner.Load() {
				t.Fatalf("object holds %q, winner is %q", got, winner.Load())
			}
		}
	})
}

func TestListIsOrderedAndFiltered(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		if l, err := p.List(t.Context(), 0, 0); err != nil || len(l) != 0 {
			t.Fatalf("list of nothing: %v, %v", l, err)
		}
		objs := []objstore.Object{object(1, 1, 4), object(1, 5, 5), object(1, 5, 9), object(1, 0x1f, 0x20), object(1, 0xfffffffffffffffe, 0xffffffffffffffff)}
		for _, i := range rand.Perm(len(objs)) {
			create(t, p, objs[i], objs[i].Name())
		}
		create(t, p, object(2, 6, 6), "another level")
		create(t, p, object(0x11, 6, 6), "another level whose number begins alike")
		for _, name := range []string{"lock.json", "0000000000000005-0000000000000006.ltx.tmp", ".walferry-123", "000000000000000A-000000000000000B.ltx", "0000000000000009-0000000000000008.ltx", "0000000000000000-0000000000000001.ltx"} {
			if err := os.WriteFile(filepath.Join(p.levelDir(1), name), []byte("foreign"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		deep := filepath.Join(p.levelDir(1), "sub")
		if err := os.Mkdir(deep, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(deep, objs[1].Name()), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, from := range []ltx.TXID{0, 1, 2, 5, 6, 0x1f, 0x20, 0xffffffffffffffff} {
			got, err := p.List(t.Context(), 1, from)
			if err != nil {
				t.Fatal(err)
			}
			var names, want []string
			for _, o := range got {
				names = append(names, o.String())
				if o.Size != int64(len(o.Name())) || o.ModTime.IsZero() {
					t.Errorf("%v: size %d, time %v", o, o.Size, o.ModTime)
				}
			}
			for _, o := range objs {
				if o.Min >= from {
					want = append(want, o.String())
				}
			}
			if !slices.Equal(names, want) {
				t.Errorf("from %v: %v, want %v", from, names, want)
			}
		}
	})
}

func TestOpenRanges(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		o := object(0, 1, 1)
		create(t, p, o, "0123456789")
		for _, c := range []struct {
			off, n int64
			want   string
		}{{0, -1, "0123456789"}, {0, 1, "0"}, {0, 4, "0123"}, {3, 4, "3456"}, {3, -1, "3456789"}, {9, 1, "9"}, {8, 100, "89"}, {0, 0, ""}, {5, 0, ""}} {
			if got := read(t, p, o, c.off, c.n); got != c.want {
				t.Errorf("%d+%d: %q, want %q", c.off, c.n, got, c.want)
			}
		}
		for _, n := range []int64{-1, 4} {
			if _, err := p.Open(t.Context(), o, 10, n); err == nil || errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("behind the end: %v", err)
			}
		}
		for _, n := range []int64{-1, 0, 4} {
			if _, err := p.Open(t.Context(), object(0, 2, 2), 0, n); !errors.Is(err, objstore.ErrNotExist) || errors.Is(err, objstore.ErrRefused) {
				t.Errorf("missing: %v", err)
			}
		}
	})
}

func TestMetaComesBack(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		for i, m := range []objstore.Meta{
			{Timestamp: time.UnixMilli(1700000000123).UTC(), Checksum: 0x8000000000000001},
			{Timestamp: time.UnixMilli(1700000000000).UTC(), Checksum: 0x0123456789abcdef, Window: objstore.Window{Epoch: 0x6c0346769c0f, Number: 1 << 63}},
			{Timestamp: time.UnixMilli(1).UTC()},
		} {
			o := object(9, 1, ltx.TXID(i+1))
			if err := p.Create(t.Context(), o, bytes.NewReader([]byte("x")), m, nil); err != nil {
				t.Fatal(err)
			}
			if got, err := p.Meta(t.Context(), o); err != nil || got != m {
				t.Errorf("%+v, want %+v (%v)", got, m, err)
			}
		}
		if _, err := p.Meta(t.Context(), object(9, 1, 99)); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("missing: %v", err)
		}
	})
}

func TestRemoveTwice(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		o := object(0, 3, 3)
		if err := p.Remove(t.Context(), o); err != nil {
			t.Fatalf("before there is anything: %v", err)
		}
		create(t, p, o, "x")
		for range 2 {
			if err := p.Remove(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Open(t.Context(), o, 0, -1); !errors.Is(err, objstore.ErrNotExist) {
			t.Fatal(err)
		}
		create(t, p, o, "again")
	})
}

func TestRemoveAll(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		var all []objstore.Object
		for i := range ltx.TXID(40) {
			o := object(int(i%3), i+1, i+2)
			create(t, p, o, "x")
			all = append(all, o)
		}
		keep := object(1, 100, 100)
		create(t, p, keep, "x")
		before := p.requests.Load()
		gone := slices.Concat(all, []objstore.Object{object(0, 500, 500), object(5, 1, 1)}) // two are not there
		for range 2 {
			if err := p.RemoveAll(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.requests.Load() - before; n > 2 && p.String()[:2] == "s3" {
			t.Errorf("%d requests", n)
		}
		var left []objstore.Object
		for level := range 3 {
			l, err := p.List(t.Context(), level, 0)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, l...)
		}
		if len(left) != 1 || left[0].Name() != keep.Name() {
			t.Errorf("left: %v", left)
		}
		if err := p.RemoveAll(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if err := p.RemoveAll(t.Context(), []objstore.Object{keep}); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.RemoveAll(ctx, all); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestRemoveAllSaysWhatIsLeft(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		var all []objstore.Object
		for i := range ltx.TXID(3) {
			all = append(all, object(0, i+1, i+1))
			create(t, p, all[i], "x")
		}
		// What is a directory in the store's own file system cannot be removed as a file.
		stuck := filepath.Join(p.levelDir(0), all[1].Name())
		if err := errors.Join(os.Remove(stuck), os.MkdirAll(filepath.Join(stuck, "full"), 0o700)); err != nil {
			t.Fatal(err)
		}
		err := p.RemoveAll(t.Context(), all)
		for _, o := range []objstore.Object{all[0], all[2]} {
			if _, err := os.Stat(filepath.Join(p.levelDir(0), o.Name())); !os.IsNotExist(err) {
				t.Errorf("%v is still there: %v", o, err)
			}
		}
		if p.String()[:2] == "s3" {
			return // to whom a directory is no object
		}
		if err == nil || !strings.Contains(err.Error(), all[1].String()) {
			t.Errorf("error %v", err)
		}
	})
}

func TestConditionalLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		for range 2 {
			if ok, err := p.Conditional(t.Context()); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
		filepath.Walk(filepath.Dir(p.levelDir(0)), func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				t.Errorf("left behind: %s", path)
			}
			return nil
		})
	})
}

func TestCancelledContext(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		o := object(0, 1, 1)
		create(t, p, o, "x")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, list := p.List(ctx, 0, 0)
		_, open := p.Open(ctx, o, 0, -1)
		_, meta := p.Meta(ctx, o)
		for _, err := range []error{list, open, meta, p.Remove(ctx, o), p.Create(ctx, object(0, 2, 2), bytes.NewReader([]byte("x")), objstore.Meta{}, nil)} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}
		if l, err := p.List(t.Context(), 0, 0); err != nil || len(l) != 1 {
			t.Errorf("%v, %v", l, err)
		}
	})
}

func TestRequestsAreCounted(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		create(t, p, object(0, 1, 1), "x")
		if n := p.requests.Load(); n != 1 {
			t.Errorf("%d requests for a create", n)
		}
	})
}

func TestReadHeader(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 2, MinTXID: 5, MaxTXID: 5, Timestamp: 1, WALOffset: 32, NodeID: 42}
		raw, _ := h.MarshalBinary()
		bad := bytes.Clone(raw)
		bad[0] = 'X'
		odd := bytes.Clone(raw)
		odd[11] = 7 // no page size
		for i, body := range [][]byte{raw, append(raw, "and pages"...), raw[:99], {}, bad, odd} {
			o := object(i, 5, 5)
			create(t, p, o, string(body))
			got, b, err := objstore.ReadHeader(t.Context(), p, o)
			if i < 2 {
				if err != nil || got != h || !bytes.Equal(b[:], raw) {
					t.Errorf("%d: %+v, %v", i, got, err)
				}
			} else if err == nil || !errors.Is(err, ltx.ErrInvalidFile) || !bytes.Contains([]byte(err.Error()), []byte(o.Name())) {
				t.Errorf("%d: %v", i, err)
			}
		}
		create(t, p, object(0, 6, 6), string(raw))
		if _, _, err := objstore.ReadHeader(t.Context(), p, object(0, 6, 6)); !errors.Is(err, ltx.ErrInvalidFile) {
			t.Errorf("another's header: %v", err)
		}
		if _, _, err := objstore.ReadHeader(t.Context(), p, object(0, 8, 8)); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("no file: %v", err)
		}
	})
}

// A listing is of one moment: what has taken an object's name since is not what it has told of.
func TestAnObjectIsNotReadAsAnotherThatHadItsName(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		o := object(0, 7, 7)
		listed := func() objstore.Object {
			t.Helper()
			objs, err := p.List(t.Context(), 0, 0)
			if err != nil || len(objs) != 1 || objs[0].Tag == "" {
				t.Fatalf("%+v, %v", objs, err)
			}
			return objs[0]
		}
		create(t, p, o, "first")
		first := listed()
		if got := read(t, p, first, 1, 3); got != "irs" || first != listed() {
			t.Fatalf("%q, %+v", got, first)
		}
		if err := p.Remove(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := p.Create(t.Context(), o, bytes.NewReader([]byte("other")), objstore.Meta{Timestamp: time.UnixMilli(2)}, nil); err != nil {
			t.Fatal(err)
		}
		for off, n := range map[int64]int64{0: -1, 1: 3, 2: -1, 3: 0} {
			if rc, err := p.Open(t.Context(), first, off, n); !errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("open at %d: %v, %v", off, rc, err)
			}
		}
		if _, err := p.Meta(t.Context(), first); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("metadata: %v", err)
		}
		if got := read(t, p, listed(), 0, -1); got != "other" {
			t.Errorf("the one that is there holds %q", got)
		}
		if got := read(t, p, o, 0, -1); got != "other" {
			t.Errorf("whatever has the name holds %q", got)
		}
	})
}
