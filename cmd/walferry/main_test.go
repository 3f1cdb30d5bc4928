package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/version"
)

// replica writes a snapshot of a few pages to a directory and returns its URL
// and the database.
func replica(t *testing.T) (url string, database []byte) {
	t.Helper()
	const pages, pageSize = 5, 4096
	dir := t.TempDir()
	level := filepath.Join(dir, "ltx", "9")
	if err := os.MkdirAll(level, 0o755); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err == nil {
		err = enc.EncodeHeader(ltx.Header{
			Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize, Commit: pages,
			MinTXID: 1, MaxTXID: 42, Timestamp: 1700000000000,
		})
	}
	for p := uint32(1); p <= pages && err == nil; p++ {
		page := bytes.Repeat([]byte{byte(p)}, pageSize)
		database = append(database, page...)
		err = enc.EncodePage(ltx.PageHeader{Pgno: p}, page)
	}
	if err == nil {
		err = enc.Close()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(level, ltx.FormatFilename(1, 42)), buf.Bytes(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "file://" + dir, database
}

// walferry runs a command line.
func walferry(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestRestoreTakesItsFlagsAnywhere(t *testing.T) {
	url, want := replica(t)
	for _, args := range [][]string{
		{"-o", "OUT", url}, {"--o=OUT", url}, {url, "-o", "OUT"}, {"-q", url, "--o", "OUT", "-force"}, {"-o", "OUT", "--", url},
	} {
		out := filepath.Join(t.TempDir(), "out.db")
		line := []string{"restore"}
		for _, a := range args {
			line = append(line, strings.Replace(a, "OUT", out, 1))
		}
		code, stdout, stderr := walferry(line...)
		if code != exitOK || stderr != "" {
			t.Fatalf("%q: code %d, %s", args, code, stderr)
		}
		for _, s := range []string{url, out, "TXID 000000000000002a", "20 kB", "2023-11-14T22:13:20Z"} {
			if !strings.Contains(stdout, s) || strings.Count(stdout, "\n") != 1 {
				t.Errorf("%q does not say %q in one line", stdout, s)
			}
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: the database differs, %v", args, err)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, c := range []struct{ line, says string }{
		{"", "no command"},
		{"retsore x", `no command "retsore"`},
		{"help retsore", `no command "retsore"`},
		{"restore -o x", "no URL"},
		{"restore file:///x", "-o"},
		{"restore -o x file:///x file:///y", `what is "file:///y" for`},
		{"restore -o x ftp://x", "file:///dir"},
		{"restore -o x -txid 3 -mark m file:///x", "one of"},
		{"restore -o x -txid g file:///x", "hexadecimal"},
		{"restore -o x -txid 0 file:///x", "hexadecimal"},
		{"restore -o x -timestamp whenever file:///x", "whenever"},
		{"restore -o x -check maybe file:///x", "none, quick or full"},
		{"restore -o - -delta file:///x", "-delta"},
		{"restore -fast -o x file:///x", "-fast"},
		{"status", "no database"},
		{"status -josn x", "-josn"},
		{"version now", `"now"`},
		{"ship", "no database"},
		{"ship x ftp://x", "file:///dir"},
		{"ship -wal off x file:///x", "auto or keep"},
		{"ship -interval 1ms x file:///x", "10ms to 1h"},
		{"ship x file:///x y", `"y"`},
	} {
		code, stdout, stderr := walferry(strings.Fields(c.line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "walferry help") {
			t.Errorf("walferry %s: code %d, %q, %q does not say %q", c.line, code, stdout, stderr, c.says)
		}
	}
}

func TestRestoreFailures(t *testing.T) {
	url, _ := replica(t)
	out := filepath.Join(t.TempDir(), "out.db")
	if code, _, stderr := walferry("restore", "-o", out, "file:///nonexistent/replica"); code != exitFailure || !strings.Contains(stderr, "no database at file:///nonexistent/replica") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := walferry("restore", "-o", out, url); code != exitFailure || !strings.Contains(stderr, "-force") {
		t.Errorf("code %d, %s", code, stderr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"restore", "-force", "-o", out, url}, &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("code %d, %s", code, stderr.String())
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != "precious" {
		t.Errorf("the target says %q, %v", b, err)
	}
	if code, _, stderr := walferry("restore", "-force", "-o", out, url); code != exitOK {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestStatus(t *testing.T) {
	url, _ := replica(t)
	out := filepath.Join(t.TempDir(), "out.db")
	if code, _, stderr := walferry("status", out); code != exitFailure || !strings.Contains(stderr, "out.db has no ledger: it has not been opened with walferry") {
		t.Errorf("code %d, %s", code, stderr)
	}
	if code, _, stderr := walferry("restore", "-o", out, url); code != exitOK {
		t.Fatal(stderr)
	}
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(out, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{out, link} {
		code, stdout, stderr := walferry("status", name)
		for _, s := range []string{url, "TXID 000000000000002a", "nothing", "no program"} {
			if code != exitOK || !strings.Contains(stdout, s) {
				t.Errorf("code %d, %q does not say %q, %s", code, stdout, s, stderr)
			}
		}
	}
	code, stdout, _ := walferry("status", out, "-json")
	var s map[string]any
	if err := json.Unmarshal([]byte(stdout), &s); code != exitOK || err != nil {
		t.Fatalf("code %d, %v: %s", code, err, stdout)
	}
	if s["replica"] != url || s["txid"] != "000000000000002a" || s["all_pending"] != false {
		t.Errorf("status %v", s)
	}
	if err := os.WriteFile(out+"-ledger", bytes.Repeat([]byte("?"), 300000), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := walferry("status", out); code != exitFailure || !strings.Contains(stderr, "out.db-ledger") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, line := range []string{"help", "-h", "--help", "help restore", "restore -h", "status --help", "help version"} {
		code, stdout, stderr := walferry(strings.Fields(line)...)
		if code != exitOK || stderr != "" || !strings.Contains(stdout, "walferry ") {
			t.Errorf("walferry %s: code %d, %q, %q", line, code, stdout, stderr)
		}
	}
	for _, line := range []string{"version", "-version", "--version"} {
		if code, stdout, _ := walferry(line); code != exitOK || stdout != "walferry "+version.Version+"\n" {
			t.Errorf("walferry %s: code %d, %q", line, code, stdout)
		}
	}
}
