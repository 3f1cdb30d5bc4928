package compact

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

var rounds = flag.Int("rounds", 8, "histories that a property test makes")

// Random histories, merged in random ranges on random levels, from whatever is there:
// every state on every way through the objects is what the database was then.
func TestWhateverIsMergedGivesTheSameStates(t *testing.T) {
	sizes := []uint32{512, 4096, 65536, 1024}
	for round := range *rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			store, _ := directory(t)
			w := newWorld(t, uint64(round), sizes[round%len(sizes)], store)
			w.history(25, 10+min(50, 500_000/w.pageSize))
			for range 12 {
				var all []objstore.Object
				for _, l := range w.objects() {
					all = append(all, l...)
				}
				inputs := []objstore.Object{all[w.rnd.IntN(len(all))]}
				for n := w.rnd.IntN(9); n > 0; n-- {
					have := inputs[len(inputs)-1].Max
					next := slices.DeleteFunc(slices.Clone(all), func(o objstore.Object) bool { return !follows(have, o) })
					if len(next) == 0 {
						break
					}
					inputs = append(inputs, next[w.rnd.IntN(len(next))])
				}
				level := 1 + w.rnd.IntN(3)
				if inputs[0].Min == 1 {
					level = objstore.SnapshotLevel
				}
				w.merge(level, inputs...)
			}
			w.restores()
		})
	}
}

func TestAMergeIsWhatTheLibraryMakes(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, 1, 4096, open(t, "file://"+dir))
	snapshot, rest := w.history(9, 40)
	for _, c := range []struct {
		level  int
		inputs []objstore.Object
	}{{1, rest[2:8]}, {1, rest[:1]}, {9, append([]objstore.Object{snapshot}, rest...)}} {
		var readers []io.Reader
		for _, o := range c.inputs {
			readers = append(readers, bytes.NewReader(w.read(o)))
		}
		var want bytes.Buffer
		theirs, err := ltx.NewCompactor(&want, readers)
		if err != nil {
			t.Fatal(err)
		}
		theirs.HeaderFlags = ltx.HeaderFlagNoChecksum
		if err := theirs.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		o := w.merge(c.level, c.inputs...)
		got, last := w.read(o), c.inputs[len(c.inputs)-1]
		if a, b := got[ltx.HeaderSize:len(got)-8], want.Bytes()[ltx.HeaderSize:want.Len()-8]; !bytes.Equal(a, b) {
			t.Errorf("%v differs from what the ltx package makes behind the header", o)
		}
		_, h := apply(t, w.states[o.Min-1], got)
		if wanted := w.header(o.Min, last.Max); h != wanted {
			t.Errorf("header %+v, want %+v", h, wanted)
		}
		if o.Level != c.level || o.Min != c.inputs[0].Min || o.Max != last.Max || o.Size != int64(len(got)) || !o.ModTime.Equal(last.ModTime) {
			t.Errorf("returned %+v", o)
		}
		m, err := w.store.Meta(t.Context(), o)
		if err != nil || !m.Timestamp.Equal(last.ModTime) || m.Checksum != sum(last.Max) {
			t.Errorf("metadata %+v, %v", m, err)
		}
	}
}

func TestManyInputsAreMergedInStages(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 2, 512, store)
	snapshot, rest := w.history(300, 50)
	w.merge(1, rest...)
	w.merge(objstore.SnapshotLevel, append([]objstore.Object{snapshot}, rest...)...)
	w.restores()

	// Several stages, of one input again and again: what they make is the same.
	var files []input
	for _, o := range rest[:fanIn+7] {
		files = append(files, stored(store, o))
	}
	m := merger{dir: w.dir}
	defer m.discard()
	var once, twice bytes.Buffer
	if _, err := m.merge(t.Context(), files, &once); err != nil {
		t.Fatal(err)
	}
	few, err := m.reduce(t.Context(), files)
	if err != nil || len(few) != 2 {
		t.Fatal(len(few), err)
	}
	if _, err := m.merge(t.Context(), few, &twice); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(once.Bytes(), twice.Bytes()) {
		t.Error("in stages it comes to something else")
	}
}

// The lock page lies at 1 GiB, so the database up to there is taken as given.
func TestTheLockPageIsLeftOut(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 3, 65536, store)
	const lock = 16385
	w.head = 1
	w.states[1] = state{commit: lock - 3}
	for _, size := range []uint32{lock - 1, lock + 2, lock + 3, lock, lock + 1, lock - 2, lock + 1} {
		w.commit(size, 0)
		w.put(0, w.head, w.head)
	}
	all := w.objects()[0]
	for from := range all {
		for to := from + 1; to <= len(all); to++ {
			o := w.merge(1, all[from:to]...)
			got, _ := apply(t, w.states[o.Min-1], w.read(o))
			if err := got.differs(w.states[o.Max]); err != nil {
				t.Errorf("%v: %v", o, err)
			}
		}
	}
}

func TestADamagedInputMakesNoOutput(t *testing.T) {
	store, dir := directory(t)
	w := newWorld(t, 4, 512, store)
	snapshot, rest := w.history(70, 30)
	inputs := append([]objstore.Object{snapshot}, rest...)
	for name, harm := range map[string]func(b []byte) []byte{
		"a bit":           func(b []byte) []byte { b[w.rnd.IntN(len(b)-1)+1] ^= 1 << w.rnd.IntN(8); return b },
		"cut":             func(b []byte) []byte { return b[:w.rnd.IntN(len(b))] },
		"longer":          func(b []byte) []byte { return append(b, 0) },
		"empty":           func(b []byte) []byte { return nil },
		"something else":  func(b []byte) []byte { return []byte(strings.Repeat("<html>", 90)) },
		"another's bytes": nil,
	} {
		for range 6 {
			i := w.rnd.IntN(len(inputs))
			path := pathOf(dir, inputs[i])
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := slices.Clone(was)
			if harm == nil {
				bad = w.read(inputs[(i+1)%len(inputs)])
			} else {
				bad = harm(bad)
			}
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			// Listed anew or not.
			listed := slices.Clone(inputs)
			if w.rnd.IntN(2) == 0 {
				listed[i].Size = int64(len(bad))
			}
			_, err = Merge(t.Context(), store, listed, objstore.SnapshotLevel, w.dir)
			if !errors.Is(err, ltxfile.ErrCorrupt) || !strings.Contains(fmt.Sprint(err), inputs[i].Name()) {
				t.Errorf("%s, %v: %v", name, inputs[i], err)
			}
			if n := len(w.objects()[objstore.SnapshotLevel]); n != 1 {
				t.Fatalf("%s: %d snapshots", name, n)
			}
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.merge(objstore.SnapshotLevel, inputs...)
	w.restores()
}

func TestInputsThatDoNotFitTogetherAreRefused(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 5, 512, store)
	w.commit(5, 0)
	w.put(9, 1, 1)
	for _, size := range []uint32{5, 8, 8} {
		w.commit(size, 1)
		w.put(0, w.head, w.head)
	}
	zero := w.objects()[0]
	without := func(h ltx.Header, pages ...uint32) []byte { return encode(t, h, pages, w.states[h.MaxTXID].pages) }
	for name, c := range map[string]struct {
		bad  []byte // replaces the object of TXID 3, which grows from 5 to 8 pages
		want string
	}{
		"a page missing that it grew by": {without(w.header(3, 3), 1, 7, 8), "page 6 is missing before page 7"},
		"the last page missing":          {without(w.header(3, 3), 6, 7), "page 8 is missing, of 8"},
		"all of them missing":            {without(w.header(3, 3), 2), "page 6 is missing, of 8"},
		"other transactions":             {w.file(w.header(3, 4)), "its header says"},
		"another page size": {func() []byte {
			o := newWorld(t, 6, 1024, store)
			o.head, o.states[1] = 1, state{commit: 5}
			o.commit(5, 1)
			o.commit(8, 0)
			return o.file(o.header(3, 3))
		}(), "its pages have 1024 bytes"},
	} {
		if err := store.Remove(t.Context(), zero[1]); err != nil {
			t.Fatal(err)
		}
		w.create(0, 3, 3, c.bad)
		zero = w.objects()[0]
		_, err := Merge(t.Context(), store, zero, 1, w.dir)
		if !errors.Is(err, ltxfile.ErrCorrupt) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), zero[1].Name()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		level  int
		inputs []objstore.Object
	}{
		"none":                        {1, nil},
		"a gap":                       {1, []objstore.Object{zero[0], zero[2]}},
		"backwards":                   {1, []objstore.Object{zero[1], zero[0]}},
		"one twice":                   {1, []objstore.Object{zero[0], zero[0]}},
		"level 0":                     {0, zero},
		"level 10":                    {10, zero},
		"a snapshot from the middle":  {9, zero},
		"one that reaches no further": {1, []objstore.Object{{Min: 2, Max: 9}, {Min: 3, Max: 8}}},
	} {
		if _, err := Merge(t.Context(), store, c.inputs, c.level, w.dir); !errors.Is(err, ErrInputs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l := w.objects(); len(l[1])+len(l[2])+len(l[3]) > 0 {
		t.Error("something was written")
	}
}

func TestWhatIsThereAlreadyIsSuccess(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 7, 4096, store)
	_, rest := w.history(20, 40)
	results := make([]objstore.Object, 8)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			var err error
			if results[i], err = Merge(context.Background(), store, rest, 1, w.dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range results {
		if r.Name() != results[0].Name() || r.Size != results[0].Size || !r.ModTime.Equal(results[0].ModTime) {
			t.Errorf("%+v and %+v", r, results[0])
		}
	}
	w.restores()

	// Something else of that name is not.
	h := w.header(2, 5)
	h.MinTXID = 3
	w.create(2, 2, 5, w.file(h))
	if _, err := Merge(t.Context(), store, rest[:4], 2, w.dir); !errors.Is(err, ltx.ErrInvalidFile) {
		t.Errorf("error %v", err)
	}
}

// Every connection breaks after a few bytes, and requests fail between.
func TestConnectionsThatBreakAreMadeAgain(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 8, 4096, store)
	snapshot, rest := w.history(12, 200)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		n := 0
		nth := func() int { mu.Lock(); defer mu.Unlock(); n++; return n }
		f := &faults{
			Store: store,
			before: func(call string, _ objstore.Object) error {
				if nth()%3 == 0 {
					return errLost
				}
				return nil
			},
			body: func(r io.ReadCloser) io.ReadCloser {
				return struct {
					io.Reader
					io.Closer
				}{io.MultiReader(io.LimitReader(r, 20_000), errReader{}), r}
			},
		}
		if _, err := Merge(t.Context(), f, append([]objstore.Object{snapshot}, rest...), 9, w.dir); err != nil {
			t.Error(err)
		}
	})
	w.restores()
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errLost }

// A store that stays away, or that has lost an input, is not a damaged file.
func TestTheStoresErrorsAreNotTheFiles(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 9, 512, store)
	_, rest := w.history(5, 20)
	for _, want := range []error{errLost, objstore.ErrRefused, objstore.ErrNotExist} {
		for _, call := range []string{"open", "meta", "create"} {
			synctest.Test(t, func(t *testing.T) {
				f := &faults{Store: store, before: func(c string, _ objstore.Object) error {
					if c == call {
						return want
					}
					return nil
				}}
				_, err := Merge(t.Context(), f, rest, 1, w.dir)
				if !errors.Is(err, want) || errors.Is(err, ltxfile.ErrCorrupt) {
					t.Errorf("%s, %v: %v", call, want, err)
				}
			})
		}
	}
}

// The reply to a create is lost, though the object is in.
func TestALostReplyIsSuccess(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 10, 512, store)
	_, rest := w.history(5, 20)
	synctest.Test(t, func(t *testing.T) {
		f := &faults{Store: store, after: func(call string, _ objstore.Object) error { return errLost }}
		o, err := Merge(t.Context(), f, rest, 1, w.dir)
		if err != nil || o.Size == 0 {
			t.Errorf("%+v, %v", o, err)
		}
	})
	w.restores()
}

// Cancelled at any of its requests it leaves nothing behind and the history as it was,
// and is made by the next.
func TestAMergeThatIsCancelledAnywhere(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 11, 512, store)
	_, rest := w.history(fanIn+5, 20)
	for at := 0; ; at += 1 + at/3 {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		n := 0
		hook := func(string, objstore.Object) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > at {
				cancel()
			}
			return nil
		}
		_, err := Merge(ctx, &faults{Store: store, before: hook}, rest, 1, w.dir)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("at request %d: %v", at, err)
		}
		if l := w.objects(); len(l[1]) > 0 {
			t.Fatalf("cancelled at request %d, and it was written", at)
		}
	}
	w.restores()
}

func TestADirectoryWithoutRoomIsSaid(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 12, 65536, store)
	w.commit(60, 0)
	for p := range w.states[1].pages { // which nothing compresses
		for i := range w.states[1].pages[p] {
			w.states[1].pages[p][i] = byte(w.rnd.Uint32())
		}
	}
	o := w.put(9, 1, 1)
	w.commit(60, 3)
	_, err := Merge(t.Context(), store, []objstore.Object{o, w.put(0, 2, 2)}, 9, w.dir+"/none")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), w.dir+"/none") {
		t.Errorf("error %v", err)
	}
}

func TestTheTimeIsTheNewestTransactions(t *testing.T) {
	store, _ := directory(t)
	w := newWorld(t, 13, 512, store)
	_, rest := w.history(3, 5)
	want := time.UnixMilli(1700000000000 + 4000)
	if o := w.merge(1, rest...); !o.ModTime.Equal(want) || !w.objects()[1][0].ModTime.Equal(want) {
		t.Errorf("%v, listed %v, want %v", o.ModTime, w.objects()[1][0].ModTime, want)
	}
}
