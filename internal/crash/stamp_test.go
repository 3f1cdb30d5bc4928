package crash

import "testing"

// With synchronous=OFF nobody syncs the database before a last close. What a power
// cut then takes back the replica has, and no mark tells of it: a close must not
// vouch for a file that is not on the disk. What the replica has then and what the
// database is must be brought together again.
func TestAPowerCutAfterALastCloseWithoutSyncs(t *testing.T) {
	for seed := range uint64(12) {
		l, err := newLife(seed, t.TempDir(), true, func(string, int) {})
		if err != nil {
			t.Fatal(err)
		}
		defer l.oracle.c.close()
		if l.safe { // then the WAL is on the disk
			continue
		}
		l.live(t, "FULL", 6)
		disk, err := l.wholeDisk()
		if err == nil {
			err = remove(l.trace())
		}
		if err != nil {
			t.Fatal(err)
		}
		l.live(t, "OFF", 1)
		if err := l.pull(disk, nothing); err != nil {
			t.Fatal(err)
		}
		here, err := l.local()
		if err != nil {
			t.Fatal(err)
		}
		there, err := l.restored()
		if err != nil {
			t.Fatal(err)
		}
		if there.n != l.committed {
			t.Errorf("seed %d: the replica is of commit %d of %d", seed, there.n, l.committed)
		}
		if err := l.settle(here, there, nil); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// live lets one process make some commits and end.
func (l *life) live(t *testing.T, synchronous string, commits int) {
	t.Helper()
	o := l.orders()
	o.Sync, o.Plain, o.Conns, o.Steps, o.URI = synchronous, true, 1, commits, l.uri+"&interval=10ms"
	p, err := l.start(o, 0, 0)
	if err == nil {
		err = l.end(p, synchronous)
	}
	if err != nil {
		t.Fatal(err)
	}
}
