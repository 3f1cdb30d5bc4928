package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/histtest"
	"github.com/walferry/walferry/internal/objstore"
)

func TestVerifySaysWhatIsDamaged(t *testing.T) {
	src := histtest.New(t, 4096)
	src.Exec("CREATE TABLE t(x)")
	src.Ship()
	for range 5 {
		src.Exec("INSERT INTO t VALUES(randomblob(3000))")
		src.Ship()
	}
	says := func(want int, args []string, texts ...string) string {
		t.Helper()
		code, stdout, stderr := walferry(append([]string{"verify", src.URL}, args...)...)
		if code != want || stderr != "" {
			t.Errorf("code %d, want %d, %s", code, want, stderr)
		}
		for _, s := range texts {
			if !strings.Contains(stdout, s) {
				t.Errorf("%s\ndoes not say %q", stdout, s)
			}
		}
		for _, line := range strings.Split(stdout, "\n") {
			if len(line) > 80 && !strings.Contains(line, src.URL) && len(args) == 0 {
				t.Errorf("a line of %d columns: %s", len(line), line)
			}
		}
		return stdout
	}
	says(exitOK, nil, "Sound", "6 states, all proven", "integrity   ok", "2023-11-14 22:13:26.000 UTC")

	name := src.File(objstore.Object{Level: 0, Min: 4, Max: 4})
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(says(exitFailure, nil, "DAMAGED: 1 finding", "1. corrupt, since TXID 0000000000000004, ", "level 0 0000000000000004",
		"Costs 3 states: 0000000000000004 to 0000000000000006.", "walferry restore -txid 3 -o restored.db '"+src.URL+"'"))
	var r struct {
		Sound    bool
		Restore  struct{ TXID string }
		Findings []struct{ Kind string }
	}
	if err := json.Unmarshal([]byte(says(exitFailure, []string{"-json", "-quick"})), &r); err != nil || r.Sound || r.Restore.TXID != "0000000000000003" || len(r.Findings) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVerifyThatCannotFindOut(t *testing.T) {
	src := histtest.New(t, 4096)
	src.Exec("CREATE TABLE t(x)")
	src.Ship()
	for _, args := range [][]string{
		{"verify", "file://" + filepath.Join(t.TempDir(), "nothing")},
		{"verify", "-dir", "/nonexistent", src.URL},
	} {
		if code, stdout, stderr := walferry(args...); code != exitUnknown || stdout != "" || !strings.Contains(stderr, "not verified") {
			t.Errorf("%q: code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	for _, line := range []string{"verify", "verify -fast x", "verify ftp://x"} {
		if code, _, stderr := walferry(strings.Fields(line)...); code != exitUsage || !strings.Contains(stderr, "walferry help verify") {
			t.Errorf("%s: code %d, %q", line, code, stderr)
		}
	}
}
