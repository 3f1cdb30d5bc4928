package objstore

import (
	"testing"

	"github.com/superfly/ltx"
)

// FuzzName takes any name of a bucket: what is understood is written the same way again.
func FuzzName(f *testing.F) {
	for _, s := range []string{"0000000000000001-00000000000000ff.ltx", "0000000000000000-0000000000000000.ltx", "ffffffffffffffff-ffffffffffffffff.ltx",
		"0000000000000002-0000000000000001.ltx", "../../0000000000000001-0000000000000001.ltx", "000000000000000A-000000000000000B.ltx", ".ltx", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		o, ok := parseName(0, name)
		if ok && (o.Min == 0 || o.Min > o.Max || o.Name() != name || o.Name() != ltx.FormatFilename(o.Min, o.Max)) {
			t.Fatalf("%q is %v, whose name is %q", name, o, o.Name())
		}
	})
}
