package objstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

// One answer tells what the lists of all levels and of the marks do, and no more is asked for.
func TestListAllIsWhatTheListsAre(t *testing.T) {
	inS3(t, func(t *testing.T, p place) {
		lister := p.Store.(objstore.Lister)
		ctx := context.Background()
		for _, o := range []objstore.Object{object(9, 1, 3), object(0, 4, 4), object(0, 5, 5), object(1, 2, 4)} {
			if err := p.Create(ctx, o, bytes.NewReader([]byte("x")), objstore.Meta{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.PutMark(ctx, objstore.Mark{Name: "m", TXID: 4, Time: time.UnixMilli(1000)}); err != nil {
			t.Fatal(err)
		}
		// Others' things under the prefix, and another replica.
		level := p.levelDir(0)
		for _, name := range []string{"notes.txt", "0000/deeper/" + object(0, 9, 9).Name(), "other/0000/" + object(0, 7, 7).Name(), "0000/x.ltx"} {
			file := filepath.Join(filepath.Dir(level), name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var want []objstore.Object
		for l := range objstore.SnapshotLevel + 1 {
			objs, err := p.List(ctx, l, 0)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, objs...)
		}
		wantMarks, err := p.Marks(ctx)
		if err != nil {
			t.Fatal(err)
		}
		before := p.requests.Load()
		objs, marks, ok, err := lister.ListAll(ctx)
		if err != nil || !ok || !reflect.DeepEqual(objs, want) || !reflect.DeepEqual(marks, wantMarks) || len(objs) != 4 || len(marks) != 1 {
			t.Fatalf("%v, %v, %v, %v; want %v, %v", objs, marks, ok, err, want, wantMarks)
		}
		if n := p.requests.Load() - before; n != 1 {
			t.Fatalf("%d requests", n)
		}
		for i := range 1000 {
			if err := os.WriteFile(filepath.Join(level, fmt.Sprintf("%d.junk", i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		before = p.requests.Load()
		if objs, _, ok, err := lister.ListAll(ctx); ok || err != nil || objs != nil {
			t.Fatalf("of more than an answer holds: %d objects, %v, %v", len(objs), ok, err)
		}
		if n := p.requests.Load() - before; n != 1 {
			t.Fatalf("%d requests", n)
		}
	})
}
