package replica

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func TestATableTellsWhatWasSetAndItsOriginsStayAsTheyWere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 1))
	type version struct {
		table  *table
		places map[uint32]place
	}
	versions := []version{{new(table), map[uint32]place{}}}
	check := func(v version) {
		t.Helper()
		for p := uint32(0); p < v.table.pages+3000; p += 1 + rnd.Uint32N(3) {
			if got, want := v.table.at(p), v.places[p]; got != want {
				t.Fatalf("page %d of %d lies at %+v, want %+v", p, v.table.pages, got, want)
			}
		}
	}
	sizes := []uint32{1, 1023, 1024, 1025, 2047, 2048, 2049, 5000}
	for range 200 {
		from := versions[rnd.IntN(len(versions))]
		size := sizes[rnd.IntN(len(sizes))]
		skip := uint32(0)
		if rnd.IntN(3) == 0 {
			skip = rnd.Uint32N(size+100) + 1
		}
		e, places := from.table.edit(), maps.Clone(from.places)
		set := func(p uint32) {
			places[p] = place{rnd.Uint32N(1000) + 1, rnd.Int64N(maxOffset), 1 + rnd.IntN(1<<sizeBits-1)}
			e.set(p, places[p])
		}
		for range rnd.IntN(50) {
			set(rnd.Uint32N(size+2000) + 1) // beyond the end too, as before a database shrinks
		}
		gap := uint32(0)
		if size > from.table.pages && rnd.IntN(3) == 0 {
			gap = from.table.pages + 1 + rnd.Uint32N(size-from.table.pages)
		}
		for p := from.table.pages + 1; p <= size; p++ {
			if p != skip && p != gap {
				set(p)
			}
		}
		missing := uint32(0)
		for p := uint32(1); p <= size && missing == 0; p++ {
			if places[p].file == 0 && p != skip {
				missing = p
			}
		}
		made, at := e.end(size, skip)
		if (made == nil) != (missing != 0) || at != missing {
			t.Fatalf("from %d to %d pages: page %d is missing, want %d", from.table.pages, size, at, missing)
		}
		check(from)
		if made == nil {
			continue
		}
		maps.DeleteFunc(places, func(p uint32, _ place) bool { return p > size })
		versions = append(versions, version{made, places})
		check(versions[len(versions)-1])
	}
	for _, v := range versions {
		check(v)
	}
	if len(versions) < 50 {
		t.Errorf("only %d of 200 edits succeeded", len(versions)-1)
	}
}

func TestAPageThatWasCutOffDoesNotComeBack(t *testing.T) {
	for _, small := range []uint32{1, 500, 1023, 1024, 1025, 2048} {
		e := new(table).edit()
		for p := uint32(1); p <= 3000; p++ {
			e.set(p, place{1, int64(p) * 100, 50})
		}
		large, _ := e.end(3000, 0)
		cut, missing := large.edit().end(small, 0)
		if missing != 0 {
			t.Fatal(missing)
		}
		if grown, missing := cut.edit().end(3000, 0); grown != nil || missing != small+1 {
			t.Errorf("cut to %d pages and grown: page %d is missing, %v", small, missing, grown)
		}
		if at := cut.at(small + 1); at != (place{}) {
			t.Errorf("page %d lies at %+v", small+1, at)
		}
		if at := large.at(small + 1); at.file != 1 {
			t.Errorf("page %d of the larger one lies at %+v", small+1, at)
		}
	}
}

func TestATableSharesWhatDoesNotChange(t *testing.T) {
	e := new(table).edit()
	for p := uint32(1); p <= 100*chunkPages; p++ {
		e.set(p, place{1, int64(p) * 100, 50})
	}
	large, _ := e.end(100*chunkPages, 0)
	e = large.edit()
	e.set(50*chunkPages, place{2, 7, 8})
	next, _ := e.end(100*chunkPages, 0)
	own := 0
	for i, c := range next.chunks {
		if !slices.Contains(large.chunks, c) {
			own++
			if i != 49 {
				t.Errorf("chunk %d is a copy", i)
			}
		}
	}
	if own != 1 {
		t.Errorf("%d chunks are its own", own)
	}
}

// What a page of the index takes is what lets a database of 100 GB be opened.
func TestAPageOfTheIndexTakesTwelveBytes(t *testing.T) {
	if n := float64(unsafe.Sizeof(chunk{})) / chunkPages; n > 12 {
		t.Errorf("%v bytes", n)
	}
	const pages = 10 * chunkPages
	e := new(table).edit()
	for p := uint32(1); p <= pages; p++ {
		e.set(p, place{1, int64(p) * 100, 100})
	}
	v, _ := e.end(pages, 0)
	if n := len(v.chunks); n != 10 {
		t.Errorf("%d chunks for %d pages", n, pages)
	}
}
