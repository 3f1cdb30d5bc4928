package vfs

import (
	"testing"

	"github.com/walferry/walferry/internal/objstore"
)

// FuzzOptions gives an open any value for any option: it is refused by name, or within bounds.
func FuzzOptions(f *testing.F) {
	for _, o := range []string{"interval", "close_timeout", "retention", "snapshot_interval", "l0_retention", "mark_retention", "log", "wal", "takeover", "replica", "endpoint", "region"} {
		for _, v := range []string{"", "1s", "-1s", "0", "99999999h", "50GB,20x", "\x00", "s3://b/../x", "1e9h", "{name}"} {
			f.Add(o, v)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		o := defaults()
		o.replica = "file:///nowhere"
		err := o.fromURI(shipOptions, map[string]string{name: value})
		if err == nil {
			err = o.validate()
		}
		if err != nil {
			return
		}
		if o.interval < minInterval || o.interval > maxInterval || o.closeTimeout < 0 || o.keep.SnapshotInterval < 0 || o.keep.Policy.L0 <= 0 || o.keep.Policy.Marks < 0 {
			t.Fatalf("%s=%q: %+v", name, value, o)
		}
		_, _ = objstore.New(expand(o.replica, "/a/b.db"), o.store)
	})
}
