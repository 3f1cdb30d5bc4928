package objstore_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// FuzzHeader reads anything as an object's header: what is not refused is of its name.
func FuzzHeader(f *testing.F) {
	h := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: 3, MaxTXID: 5, Timestamp: 1}
	sound, err := h.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(sound[:50])
	f.Add([]byte(nil))
	dir := f.TempDir()
	s, err := objstore.New("file://"+filepath.ToSlash(dir), objstore.Options{})
	if err != nil {
		f.Fatal(err)
	}
	o := object(0, 3, 5)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := s.Remove(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), o, bytes.NewReader(b), objstore.Meta{}, nil); err != nil {
			t.Skip(err) // of another worker
		}
		h, _, err := objstore.ReadHeader(t.Context(), s, o)
		if err == nil && (h.MinTXID != 3 || h.MaxTXID != 5 || h.Validate() != nil || !ltxfile.ValidTime(h.Timestamp)) {
			t.Fatalf("%x is taken for %+v", b, h)
		}
	})
}
