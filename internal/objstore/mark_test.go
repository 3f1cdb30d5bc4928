package objstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// hostile are names that try to be something else to a file system, a URL, an
// XML document, a listing or a terminal.
var hostile = []string{
	"before migration", " ", " leading and trailing ", ".", "..", "...", "/", "//", "/etc/passwd", "../../0000/x", `..\..\x`,
	"a/b", "a%2Fb", "%", "%%", "%2", "%zz", "a+b", "a b", "a%20b", "-", "--", "-o", "1-2-3", "000000000000002a-1700000000123-x",
	"?versionId=1", "#", "&amp;", "<a>]]>", `"quoted"`, "'; DROP TABLE t; --", "$(id)", "`id`", "*", "~", "|", "{name}", "x.ltx", "lock.json",
	"Überprüfung", "U\u0308", "日本語", "🧪👩‍👩‍👧", "\u202egpj.exe", "\u2028", "\ufffe", "\ufffd", "\u00a0", "\u200b",
	strings.Repeat("x", 200), strings.Repeat("日", 66), strings.Repeat("word ", 40), strings.Repeat("/", 74),
}

func TestMarksComeBack(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		if all, err := p.Marks(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("marks of nothing: %v, %v", all, err)
		}
		var want []objstore.Mark
		for i, name := range hostile {
			want = append(want, objstore.Mark{Name: name, TXID: ltx.TXID(7 + i/4), Time: time.UnixMilli(1700000000123 + int64(i)).UTC()})
		}
		want = append(want,
			objstore.Mark{Name: "far", TXID: 0xffffffffffffffff, Time: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
			objstore.Mark{Name: "twice", TXID: 0xffffffffffffffff, Time: time.Date(9999, 12, 31, 23, 59, 59, 1e6, time.UTC)},
			objstore.Mark{Name: "twice", TXID: 0xffffffffffffffff, Time: time.Date(9999, 12, 31, 23, 59, 59, 2e6, time.UTC)})
		for i := range want {
			m := want[len(want)-1-i]
			m.Time = m.Time.Add(123 * time.Microsecond).Local() // which is not kept
			for range 2 {
				if err := p.PutMark(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
		}
		marksAre(t, p, want)
		for level := range 10 {
			if l, err := p.List(t.Context(), level, 0); err != nil || len(l) != 0 {
				t.Errorf("a mark at level %d: %v, %v", level, l, err)
			}
		}
		for len(want) > 0 {
			i := len(want) / 2
			for range 2 {
				if err := p.RemoveMark(t.Context(), want[i]); err != nil {
					t.Fatal(err)
				}
			}
			want = slices.Delete(want, i, i+1)
			if len(want)%16 == 0 {
				marksAre(t, p, want)
			}
		}
	})
}

func marksAre(t *testing.T, s objstore.Store, want []objstore.Mark) {
	t.Helper()
	got, err := s.Marks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("marks\n%v, want\n%v", got, want)
	}
}

func TestMarksLieBesideTheLevels(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		dir := filepath.Join(filepath.Dir(p.levelDir(0)), "marks")
		if filepath.Base(filepath.Dir(p.levelDir(0))) == "ltx" {
			dir = filepath.Join(filepath.Dir(filepath.Dir(p.levelDir(0))), "marks")
		}
		m := objstore.Mark{Name: "a/b", TXID: 42, Time: time.UnixMilli(1700000000123).UTC()}
		if err := p.PutMark(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "000000000000002a-1700000000123-a%2Fb"))
		if want := `{"name":"a/b","txid":"000000000000002a","time":"2023-11-14T22:13:20.123Z"}` + "\n"; err != nil || string(b) != want {
			t.Errorf("%q, %v, want %q", b, err, want)
		}
		for _, name := range []string{"lock.json", "000000000000002a-1700000000123-", "000000000000002a-1700000000123-%2f", "000000000000002a-1700000000123-%",
			"000000000000002A-1700000000123-x", "000000000000002a-170-x", "000000000000002a-+700000000123-x", "000000000000002a--1-x",
			"0000000000000000-1700000000123-x", "000000000000002a-01700000000123-x", "000000000000002a-1700000000123-%0A", "000000000000002a", ".walferry-1"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("foreign"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sub := filepath.Join(dir, "000000000000002a-1700000000123-sub")
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "000000000000002a-1700000000123-x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		marksAre(t, p, []objstore.Mark{m})
	})
}

func TestMarksThatCannotBe(t *testing.T) {
	now := time.Now()
	for _, m := range []objstore.Mark{
		{},
		{TXID: 1, Time: now},
		{Name: "x", Time: now},
		{Name: "x", TXID: 1, Time: time.UnixMilli(-1)},
		{Name: "x", TXID: 1}, // the zero time
		{Name: "x", TXID: 1, Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Name: "a\nb", TXID: 1, Time: now},
		{Name: "a\x00b", TXID: 1, Time: now},
		{Name: "a\x1b[31m", TXID: 1, Time: now},
		{Name: "a\u0085b", TXID: 1, Time: now},
		{Name: "a\xff", TXID: 1, Time: now},
		{Name: strings.Repeat("x", 201), TXID: 1, Time: now},
		{Name: strings.Repeat("/", 200), TXID: 1, Time: now},
	} {
		if err := m.Validate(); !errors.Is(err, objstore.ErrMark) || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("%+v: %v", m, err)
		}
		s := open(t, "file://"+t.TempDir(), objstore.Options{})
		if err := s.PutMark(t.Context(), m); !errors.Is(err, objstore.ErrMark) {
			t.Errorf("put %+v: %v", m, err)
		}
		if err := s.RemoveMark(t.Context(), m); !errors.Is(err, objstore.ErrMark) {
			t.Errorf("remove %+v: %v", m, err)
		}
	}
}

func TestMarksOfACancelledContext(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m := objstore.Mark{Name: "x", TXID: 1, Time: time.Now()}
		_, list := p.Marks(ctx)
		for _, err := range []error{list, p.PutMark(ctx, m), p.RemoveMark(ctx, m)} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestMarkBelowALongPrefix(t *testing.T) {
	long := open(t, "s3://bucket/"+strings.Repeat("p/", 440), objstore.Options{Endpoint: "http://127.0.0.1:1"})
	err := long.PutMark(t.Context(), objstore.Mark{Name: strings.Repeat("x", 200), TXID: 1, Time: time.Now()})
	if !errors.Is(err, objstore.ErrRefused) || !strings.Contains(err.Error(), "shorter") {
		t.Error(err)
	}
}

func FuzzMark(f *testing.F) {
	for _, name := range hostile {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m := objstore.Mark{Name: name, TXID: 1, Time: time.UnixMilli(0)}
		if m.Validate() != nil {
			return
		}
		if k := m.Key(); len(k) > 255 || strings.ContainsAny(k, "/\n\x00") {
			t.Errorf("key %q", k)
		}
	})
}
