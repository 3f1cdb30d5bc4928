package systest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killWriter kills a writer some time after its first confirmation and returns the
// last row that it knew to be in the store.
func (p *place) killWriter(writer *proc, after time.Duration) (confirmed int) {
	p.t.Helper()
	confirmed = number(p.t, writer.expect("confirmed"))
	time.Sleep(after) // the moment is random by design
	writer.kill()
	for _, line := range writer.rest() {
		if text, ok := strings.CutPrefix(line, "confirmed "); ok && isNumber(text) { // the last line may be torn
			confirmed = number(p.t, text)
		}
	}
	return confirmed
}

func isNumber(text string) bool {
	_, err := strconv.Atoi(text)
	return err == nil
}

func number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// rows fails the test unless a restored database is well and its rows are 1 to n
// without a gap. It returns n.
func (p *place) rows(file string) int {
	p.t.Helper()
	got := p.query(file, "PRAGMA integrity_check; SELECT count(*) FROM t; SELECT coalesce(max(id), 0) FROM t")
	f := strings.Fields(got)
	if len(f) != 3 || f[0] != "ok" || f[1] != f[2] {
		p.t.Fatalf("restored: integrity, rows, last row: %q", got)
	}
	return number(p.t, f[1])
}

// TestKill_ARestoreIsAPrefixNotOlderThanTheLastConfirmation kills a writer at random
// moments, restores, and goes on with the database (invariants 5 and 7).
func TestKill_ARestoreIsAPrefixNotOlderThanTheLastConfirmation(t *testing.T) {
	for _, c := range []struct{ rounds, largest int }{{12, 200}, {12, 6000}} {
		t.Run(fmt.Sprint(c.largest), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			for round := range c.rounds {
				confirmed := p.killWriter(p.start("writer.py", "0", strconv.Itoa(c.largest)), rand.N(250*time.Millisecond))
				restored := p.rows(p.restored())
				committed := p.rows(p.image())
				if restored < confirmed || restored > committed {
					t.Fatalf("round %d: %d rows restored, of %d confirmed and %d committed", round, restored, confirmed, committed)
				}
				if got := p.rows(p.byLitestream()); got != restored {
					t.Fatalf("round %d: litestream restored %d rows, walferry %d", round, got, restored)
				}
			}
		})
	}
}

// TestKill_TheNextOpenShipsOnlyWhatDiffers counts pages after a kill -9 in the
// middle of writing to a database of 10 MB.
func TestKill_TheNextOpenShipsOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.killWriter(p.start("writer.py", "10000000", "200"), 300*time.Millisecond)
	before := p.newest()
	behind := p.rows(p.image()) - p.rows(p.restored())
	p.python(`
c = connect()
c.execute("INSERT INTO t VALUES((SELECT max(id) + 1 FROM t), 'one more')")
sync(c)
assert status(c)["all_pending"] == False, status(c)
c.close()
`)
	pages, bytes := p.after(before)
	// Some 20 rows lie on a page; the rest is the interior of the tree, the
	// schema, and pages that were in flight when the kill came.
	if most := 40 + behind/10; pages > most || pages == 0 {
		t.Errorf("%d pages (%d bytes) went to the store for %d rows and one more, want at most %d", pages, bytes, behind, most)
	}
	p.comesBack()

	// And where nothing was lost, one row is a few pages.
	before = p.newest()
	p.python(`
c = connect()
c.execute("UPDATE t SET b = 'changed' WHERE id = 1")
c.close()
`)
	if pages, bytes := p.after(before); pages == 0 || pages > 3 {
		t.Errorf("one changed row took %d pages, %d bytes", pages, bytes)
	}
	p.comesBack()
}
