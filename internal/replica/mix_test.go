package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// refilled is a place that another database has taken, whose objects have the same names and sizes, and
// whose frames lie where the first one's do.
func refilled(t *testing.T, n int, pages uint32) (w *world, refill func() *world) {
	w = newWorld(t, 1, 4096)
	w.raw = true
	w.history(n, pages)
	return w, func() *world {
		w.bucket.clear()
		other := w.fresh(w.begin.Add(time.Hour))
		other.history(n, pages)
		return other
	}
}

func TestATransactionNeverReadsWhatHasTakenThePlaceOfItsFiles(t *testing.T) {
	w, refill := refilled(t, 3, 100)
	c := w.open(caching(1 << 20))
	begin(t, c)
	if got, err := readPage(c, 1); err != nil || !w.states[4].same(1, got) {
		t.Fatalf("page 1: %v", err)
	}
	other := refill()
	failed := 0
	for p := uint32(2); p <= 100; p++ {
		got, err := readPage(c, p)
		switch {
		case err != nil:
			failed++
		case !w.states[4].same(p, got):
			t.Fatalf("page %d is another database's: %v", p, other.states[4].same(p, got))
		}
	}
	if failed == 0 {
		t.Error("all pages were in memory already")
	}
	c.End()
	other.reads(c, 4)
}

func TestATransactionIsNotTakenToAnotherDatabasesStateOfItsTXID(t *testing.T) {
	w, refill := refilled(t, 3, 100)
	c := w.open(caching(1 << 20))
	begin(t, c)
	if _, err := readPage(c, 1); err != nil {
		t.Fatal(err)
	}
	w.bucket.clear()
	other := refill()
	d := w.open()
	other.reads(d, 4) // so that this process knows the other database's state of TXID 4
	for p := uint32(2); p <= 100; p++ {
		if got, err := readPage(c, p); err == nil && !w.states[4].same(p, got) {
			t.Fatalf("page %d is another database's", p)
		} else if err != nil && !strings.Contains(err.Error(), "has gone") {
			t.Fatalf("page %d: %v", p, err)
		}
	}
}

func TestAStateOfThePastIsTheDatabasesThatIsThere(t *testing.T) {
	w, refill := refilled(t, 3, 50)
	long := w.open()
	begin(t, long)
	w.holds(long, 4)
	other := refill()
	c := w.open()
	other.reads(c, 4)
	if err := c.PinTXID(4); err != nil {
		t.Fatal(err)
	}
	other.reads(c, 4)
	d := w.open(atTXID(4))
	other.reads(d, 4)
	for _, txid := range []ltx.TXID{2, 3} {
		if err := d.PinTXID(txid); err != nil {
			t.Fatal(err)
		}
		other.reads(d, txid)
	}
}

// A snapshot of Litestream's bears the time at which it was made.
func TestASnapshotThatWasMadeLaterIsTheSameState(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	objs := w.history(3, 100)
	c := w.open()
	begin(t, c)
	if _, err := readPage(c, 1); err != nil {
		t.Fatal(err)
	}
	later := *w
	later.begin = w.begin.Add(time.Minute)
	later.put(objstore.SnapshotLevel, 1, 4)
	w.bucket.remove(objs[0], objs[2], objs[3]) // level 0 has its second one still
	w.holds(c, 4)
}

// The same in a place of which nothing is left that was there before.
func TestAReplacedHistoryIsTheSameStateIfItBearsItsTime(t *testing.T) {
	w := newWorld(t, 1, 4096)
	w.raw = true
	objs := w.history(3, 100)
	c := w.open()
	begin(t, c)
	w.put(objstore.SnapshotLevel, 1, 4)
	w.bucket.remove(objs...)
	w.holds(c, 4)
}
