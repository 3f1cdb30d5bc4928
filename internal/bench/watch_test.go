package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

// writeObject writes an LTX file with the given pages, each filled with its text.
func writeObject(t *testing.T, path string, pages ...string) {
	t.Helper()
	const pageSize = 512
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err != nil {
		t.Fatal(err)
	}
	err = enc.EncodeHeader(ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize,
		Commit: uint32(len(pages)), MinTXID: 1, MaxTXID: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range pages {
		page := make([]byte, pageSize)
		copy(page, text)
		if err := enc.EncodePage(ltx.PageHeader{Pgno: uint32(i + 1)}, page); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

const firstObject = "ltx/9/0000000000000001-0000000000000001.ltx"

func TestHoldsFindsMarkersInPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), firstObject)
	writeObject(t, path, "one marker-a", "two", "three marker-c")
	got, err := holds(path, []string{"marker-a", "marker-b", "marker-c"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []int{0, 2}) {
		t.Errorf("found %v, want 0 and 2", got)
	}
}

func TestObjectNamesIgnoresUnfinishedFiles(t *testing.T) {
	replica := t.TempDir()
	if names, err := objectNames(replica); err != nil || len(names) != 0 {
		t.Fatalf("empty replica: %v, %v", names, err)
	}
	path := filepath.Join(replica, firstObject)
	writeObject(t, path, "page")
	if err := os.WriteFile(path+".tmp", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	names, err := objectNames(replica)
	if err != nil || !slices.Equal(names, []string{path}) {
		t.Errorf("%v, %v, want only %s", names, err, path)
	}
}

func TestWatcherSeesEachObjectOnce(t *testing.T) {
	replica := t.TempDir()
	w := watch(t.Context(), replica)
	defer w.close()
	before, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	writeObject(t, filepath.Join(replica, firstObject), "page")
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for range 5000 {
		<-poll.C
		arrivals, err := w.after(0)
		if err != nil {
			t.Fatal(err)
		}
		if len(arrivals) == 0 {
			continue
		}
		if len(arrivals) != 1 || arrivals[0].at < before {
			t.Errorf("arrivals %v after %v", arrivals, before)
		}
		return
	}
	t.Error("the object was not seen")
}
