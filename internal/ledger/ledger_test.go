package ledger

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"
)

func TestCheckTellsWhyALedgerCannotBeTrusted(t *testing.T) {
	grow := func(l *Ledger) error { return l.Grow(2 * SegmentPages) }
	tests := []struct {
		name string
		do   func(l *Ledger) error
		want error
	}{
		{"whole", func(*Ledger) error { return nil }, nil},
		{"grown", grow, nil},
		{"not ready", func(l *Ledger) error { l.header.Ready = 0; return nil }, ErrNew},
		{"abandoned", func(l *Ledger) error { l.Abandon(); return nil }, ErrNew},
		{"empty", func(l *Ledger) error { return l.file.Truncate(0) }, ErrNew},
		{"half a header", func(l *Ledger) error { return l.file.Truncate(HeaderSize / 2) }, ErrGarbled},
		{"no segment", func(l *Ledger) error { return l.file.Truncate(HeaderSize) }, ErrGarbled},
		{"half a segment", func(l *Ledger) error { return l.file.Truncate(HeaderSize + SegmentSize/2) }, ErrGarbled},
		{"a segment cut off", func(l *Ledger) error { return errors.Join(grow(l), l.file.Truncate(HeaderSize+SegmentSize)) }, ErrGarbled},
		{"other magic", func(l *Ledger) error { l.header.Magic[3]++; return nil }, ErrGarbled},
		{"other version", func(l *Ledger) error { l.header.Version++; return nil }, ErrVersion},
		{"no segments", func(l *Ledger) error { l.header.Segments = 0; return nil }, ErrGarbled},
		{"segments beyond the file", func(l *Ledger) error { l.header.Segments = 1 << 31; return nil }, ErrGarbled},
		{"page size 1000", func(l *Ledger) error { l.header.PageSize = 1000; return nil }, ErrGarbled},
		{"page size 256", func(l *Ledger) error { l.header.PageSize = 256; return nil }, ErrGarbled},
		{"page size 65536", func(l *Ledger) error { l.header.PageSize = 65536; return nil }, nil},
		{"durable in the future", func(l *Ledger) error { l.header.Durable = l.header.Window; return nil }, ErrGarbled},
		{"no epoch", func(l *Ledger) error { l.header.Epoch = 0; return nil }, ErrGarbled},
		{"another inode", func(l *Ledger) error { l.header.OwnIno++; return nil }, ErrCopied},
		{"another birth", func(l *Ledger) error { l.header.OwnBtimeNs++; return nil }, ErrCopied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger(t, 1)
			if err := tt.do(l); err != nil {
				t.Fatal(err)
			}
			database := strings.TrimSuffix(l.Path(), Suffix)
			again := open(t, database)
			if err := again.Check(); !errors.Is(err, tt.want) {
				t.Fatalf("Check = %v, want %v", err, tt.want)
			}
			// Whatever it was, Reset mends it.
			if err := again.Reset(database); err != nil {
				t.Fatal(err)
			}
			if err := again.Check(); err != nil {
				t.Fatalf("Check after Reset = %v", err)
			}
			if h := again.Header(); h.All == h.AllDone || h.TXID != 0 || h.DBPages != None || again.Pending() != 0 {
				t.Fatalf("after Reset something is known: all %d of %d, TXID %d, %d pages", h.AllDone, h.All, h.TXID, h.DBPages)
			}
		})
	}
}

func TestACopyIsNotTheLedger(t *testing.T) {
	l := newLedger(t, 1)
	other := newDatabase(t)
	if out, err := exec.Command("cp", "--preserve=all", l.Path(), other+Suffix).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := open(t, other).Check(); !errors.Is(err, ErrCopied) {
		t.Fatalf("Check of a copy = %v", err)
	}
}

func TestOpenGivesALedgerTheModeOfItsDatabase(t *testing.T) {
	l := newLedger(t, 1)
	if fi, err := os.Stat(l.Path()); err != nil || fi.Mode().Perm() != 0o640 {
		t.Fatalf("mode is %v (%v), want that of the database, 0640", fi.Mode(), err)
	}
}

func TestOpenReadOnlyNeedsAWholeFile(t *testing.T) {
	database := newDatabase(t)
	if _, err := OpenReadOnly(database); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a file: %v", err)
	}
	if err := os.WriteFile(database+Suffix, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(database); !errors.Is(err, ErrNew) {
		t.Fatalf("of 100 bytes: %v", err)
	}
	l := newLedger(t, SegmentPages+1)
	l.SetSum(SegmentPages+1, 77)
	r, err := OpenReadOnly(strings.TrimSuffix(l.Path(), Suffix))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Check() != nil || r.Sum(SegmentPages+1) != 77 {
		t.Fatalf("Check = %v, sum %d", r.Check(), r.Sum(SegmentPages+1))
	}
}

func TestLost(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(l *Ledger) error
		want bool
	}{
		"as it was": {func(*Ledger) error { return nil }, false},
		"removed":   {func(l *Ledger) error { return os.Remove(l.Path()) }, true},
		"cut short": {func(l *Ledger) error { return l.file.Truncate(HeaderSize) }, true},
		"longer":    {func(l *Ledger) error { return l.file.Truncate(HeaderSize + 3*SegmentSize) }, false},
		"renamed":   {func(l *Ledger) error { return os.Rename(l.Path(), l.Path()+"2") }, true},
		"replaced": {func(l *Ledger) error {
			return errors.Join(os.WriteFile(l.Path()+"2", nil, 0o600), os.Rename(l.Path()+"2", l.Path()))
		}, true},
		"hard linked": {func(l *Ledger) error { return os.Link(l.Path(), l.Path()+"2") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t, 1)
			if err := tt.do(l); err != nil {
				t.Fatal(err)
			}
			if got := l.Lost(); got != tt.want {
				t.Fatalf("Lost = %v", got)
			}
		})
	}
}

// What others have mapped must stay mapped, whatever was in the file.
func TestResetInPlace(t *testing.T) {
	l := newLedger(t, 2*SegmentPages)
	l.Mark(3)
	l.SetSum(2*SegmentPages, 5)
	database := strings.TrimSuffix(l.Path(), Suffix)
	before, _ := os.Stat(l.Path())
	epoch := l.header.Epoch
	other := open(t, database)
	if err := other.Check(); err != nil {
		t.Fatal(err)
	}
	if err := l.Reset(database); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(l.Path())
	if !os.SameFile(before, after) || before.Size() != after.Size() {
		t.Fatalf("the file was replaced or changed its size from %d to %d", before.Size(), after.Size())
	}
	if other.Sum(2*SegmentPages) != 0 || other.Pending() != 0 || other.header.Epoch == epoch {
		t.Fatal("another mapping does not see that the ledger is new")
	}
}

func TestAnythingInTheFileIsCheckedOrReset(t *testing.T) {
	for seed := range uint64(200) {
		garble(t, seed)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { garble(t, seed) })
}

// garble writes random bytes over a ledger and uses it as an open would.
func garble(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	l := newLedger(t, SegmentPages+1)
	database := strings.TrimSuffix(l.Path(), Suffix)
	for range 1 + r.IntN(8) {
		b := make([]byte, 1+r.IntN(64))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		at := int64(r.IntN(8300))
		if r.IntN(4) == 0 {
			at = int64(r.IntN(HeaderSize + SegmentSize))
		}
		if _, err := l.file.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if r.IntN(4) == 0 {
		if err := l.file.Truncate(int64(r.IntN(HeaderSize + 3*SegmentSize))); err != nil {
			t.Fatal(err)
		}
	}
	g := open(t, database)
	if err := g.Check(); err != nil {
		if err := g.Reset(database); err != nil {
			t.Fatalf("seed %d: Reset: %v", seed, err)
		}
		if err := g.Check(); err != nil {
			t.Fatalf("seed %d: Check after Reset: %v", seed, err)
		}
	}
	h := g.Header()
	_, _, _, _, _ = h.Cause(), h.LastError(), h.Replica(), h.ID(), g.Pending()
	for i := range h.Attempts {
		_ = h.Attempts[i].Upload.String()
	}
	g.Unknown(h.DBPages, 3)
	g.XOR(h.DBPages, 3)
	g.Elect(1)
	for range g.Candidates(h.DBPages, h.MinPages, seed%2 == 0) {
	}
	g.TakeDirty(nil, nil)
	g.ForgetFrom(h.MinInflight)
	g.ClearInflight()
}

// A process that is killed while it writes a text leaves the count odd; the next
// writer must make the texts readable again.
func TestTextsAreReadableAfterAKillWhileOneWasWritten(t *testing.T) {
	l := newLedger(t, 1)
	atomic.AddUint32(&l.header.TextSeq, 1)
	if got := l.header.Cause(); got != "" {
		t.Fatalf("a half written text reads %q", got)
	}
	l.header.SetCause("disk full")
	if got := l.header.Cause(); got != "disk full" {
		t.Fatalf("Cause = %q", got)
	}
	l.header.SetLastError("again")
	if got := l.header.LastError(); got != "again" || l.header.TextSeq%2 != 0 {
		t.Fatalf("LastError = %q, count %d", got, l.header.TextSeq)
	}
}

func TestTextsAreCutToTheirField(t *testing.T) {
	l := newLedger(t, 1)
	l.header.SetCause(strings.Repeat("x", 2000))
	l.header.SetReplica(strings.Repeat("y", 1023))
	if len(l.header.Cause()) != 511 || len(l.header.Replica()) != 1023 {
		t.Fatalf("lengths %d, %d", len(l.header.Cause()), len(l.header.Replica()))
	}
	l.header.SetCause("z")
	if l.header.Cause() != "z" {
		t.Fatalf("Cause = %q", l.header.Cause())
	}
	var a Attempt
	a.Upload.Set(strings.Repeat("u", 239))
	if len(a.Upload.String()) != 239 {
		t.Fatal("an id that just fits is not kept")
	}
	a.Upload.Set(strings.Repeat("u", 240))
	if a.Upload.String() != "" {
		t.Fatal("an id that does not fit is kept in part")
	}
}

func TestStampTellsAFileThatChanged(t *testing.T) {
	path := newDatabase(t)
	s := StampOf(path)
	if s.Valid != 1 || s != StampOf(path) {
		t.Fatalf("stamp %+v", s)
	}
	if err := os.WriteFile(path, []byte("another database"), 0o640); err != nil {
		t.Fatal(err)
	}
	if s == StampOf(path) {
		t.Fatal("a file that was written has the stamp of before")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if StampOf(path) != (Stamp{}) {
		t.Fatal("no file has a stamp")
	}
}

func TestBootIDIsTheKernels(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip(err)
	}
	h := Header{DatabaseID: BootID()}
	if want := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""); h.ID() != want {
		t.Fatalf("BootID = %s, want %s", h.ID(), want)
	}
}

func TestNewEpochDiffers(t *testing.T) {
	l := newLedger(t, 1)
	seen := map[uint64]bool{l.header.Epoch: true}
	for range 1000 {
		l.NewEpoch()
		if e := l.header.Epoch; e == 0 || seen[e] || e>>48 != 0 {
			t.Fatalf("epoch %x", e)
		}
		seen[l.header.Epoch] = true
	}
}

// What proves the prefix, the newest TXID and the attempts must not come apart
// where a power loss leaves one page of the file newer than another: all of it
// that is not lazily cleared lies in the first page.
func TestWhatBelongsTogetherIsInOnePage(t *testing.T) {
	var h Header
	for name, end := range map[string]uintptr{
		"TXID":       unsafe.Offsetof(h.TXID) + 8,
		"DBPages":    unsafe.Offsetof(h.DBPages) + 4,
		"HeadSum":    unsafe.Offsetof(h.HeadSum) + 8,
		"HeadTimeMs": unsafe.Offsetof(h.HeadTimeMs) + 8,
		"AllDone":    unsafe.Offsetof(h.AllDone) + 8,
		"MinPages":   unsafe.Offsetof(h.MinPages) + 4,
	} {
		if end > 4096 {
			t.Errorf("%s ends at %d", name, end)
		}
	}
	var s segment
	if unsafe.Sizeof(s.dirty)+unsafe.Sizeof(s.inflight) > 4096 {
		t.Error("a segment's dirty and in-flight bits are in two pages")
	}
}
