package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/histtest"
)

// stopper ends a run when a word is written.
type stopper struct {
	bytes.Buffer
	word string
	stop context.CancelFunc
}

func (s *stopper) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(s.word)) {
		s.stop()
	}
	return s.Buffer.Write(b)
}

func TestFollowSaysWhatChanges(t *testing.T) {
	src := histtest.New(t, 4096)
	src.Exec("CREATE TABLE t(x)")
	src.Ship()
	out := filepath.Join(t.TempDir(), "standby.db")
	follow := func(until string, args ...string) (code int, lines []string, stderr string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stdout, errs := &stopper{word: until, stop: cancel}, new(bytes.Buffer)
		code = run(ctx, append([]string{"restore", "-f", "-o", out, "-follow-interval", "10ms", src.URL}, args...), stdout, errs)
		return code, strings.Split(strings.TrimSpace(stdout.String()), "\n"), errs.String()
	}
	code, lines, stderr := follow("following")
	if code != exitOK || stderr != "" || len(lines) != 3 || !strings.Contains(lines[0], "filled") ||
		!strings.Contains(lines[1], "has the newest TXID, 0000000000000001, of 2023-11-14T22:13:21Z") || !strings.Contains(lines[2], "stopped") {
		t.Errorf("code %d, %q, %s", code, lines, stderr)
	}
	src.Exec("INSERT INTO t VALUES(1)")
	src.Ship()
	code, lines, stderr = follow("following", "-json")
	var e map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &e); code != exitOK || err != nil || e["state"] != "following" || e["txid"] != "0000000000000002" || e["lag_ms"].(float64) <= 0 {
		t.Errorf("code %d, %q, %v, %s", code, lines, err, stderr)
	}
	if code, _, stderr := walferry("status", out); code != exitFailure || !strings.Contains(stderr, "no ledger") {
		t.Errorf("a standby has a ledger: code %d, %s", code, stderr)
	}
	if code, _, stderr := walferry("restore", "-o", out, src.URL); code != exitFailure || !strings.Contains(stderr, "-force") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

func TestWrongFollowLines(t *testing.T) {
	for _, c := range []struct{ line, says string }{
		{"restore -f -o x", "no URL"},
		{"restore -f file:///x", "-o"},
		{"restore -f -o - file:///x", "which file"},
		{"restore -f -o x -follow-interval 1ns file:///x", "10ms"},
		{"restore -f -o x -txid 4 file:///x", "with -f"},
	} {
		if code, stdout, stderr := walferry(strings.Fields(c.line)...); code != exitUsage || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("walferry %s: code %d, %q, %q does not say %q", c.line, code, stdout, stderr, c.says)
		}
	}
}
