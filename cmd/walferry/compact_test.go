package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"
)

// grow makes the snapshot of a replica 30 hours old, and adds transactions to it, each of
// which changes a page, at times from an hour ago on and 10 s apart.
func grow(t *testing.T, url string, n int) {
	t.Helper()
	level := filepath.Join(strings.TrimPrefix(url, "file://"), "ltx", "0")
	if err := os.MkdirAll(level, 0o755); err != nil {
		t.Fatal(err)
	}
	began, old := time.Now().Add(-time.Hour), time.Now().Add(-30*time.Hour)
	if err := os.Chtimes(filepath.Join(level, "..", "9", ltx.FormatFilename(1, 42)), old, old); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		txid, at := ltx.TXID(43+i), began.Add(time.Duration(i)*10*time.Second)
		var buf bytes.Buffer
		enc, err := ltx.NewEncoder(&buf)
		if err == nil {
			err = enc.EncodeHeader(ltx.Header{
				Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 5,
				MinTXID: txid, MaxTXID: txid, Timestamp: at.UnixMilli(), WALOffset: 32,
			})
		}
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: uint32(i%5) + 1}, bytes.Repeat([]byte{byte(100 + i)}, 4096))
		}
		if err == nil {
			err = enc.Close()
		}
		path := filepath.Join(level, ltx.FormatFilename(txid, txid))
		if err == nil {
			err = os.WriteFile(path, buf.Bytes(), 0o644)
		}
		if err == nil {
			err = os.Chtimes(path, at, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// objects are the replica's, as level/name.
func objects(t *testing.T, url string) (all []string) {
	t.Helper()
	root := filepath.Join(strings.TrimPrefix(url, "file://"), "ltx")
	paths, err := filepath.Glob(filepath.Join(root, "*", "*.ltx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		name, _ := filepath.Rel(root, p)
		all = append(all, name)
	}
	return all
}

func restored(t *testing.T, url string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.db")
	if code, _, stderr := walferry("restore", "-q", "-o", out, url); code != exitOK {
		t.Fatal(stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCompact(t *testing.T) {
	url, _ := replica(t)
	grow(t, url, 12)
	before, want := objects(t, url), restored(t, url)

	code, stdout, stderr := walferry("compact", "-dry-run", url)
	if code != exitOK || stderr != "" || !slices.Equal(objects(t, url), before) {
		t.Fatalf("dry run: code %d, %s, left with %v", code, stderr, objects(t, url))
	}
	for _, s := range []string{
		"would merge 12 objects", "into level 1: 000000000000002b-0000000000000036", "would merge 1 object,", "into level 3",
		"would make a snapshot of 2 objects", "would remove 11 objects of level 0", "nothing was written or removed",
	} {
		if !strings.Contains(stdout, s) {
			t.Errorf("a dry run does not say %q:\n%s", s, stdout)
		}
	}

	code, did, stderr := walferry("compact", url)
	if code != exitOK || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	for _, s := range []string{
		"merged 12 objects", "into level 1: 000000000000002b-0000000000000036", "made a snapshot of 2 objects", "removed 11 objects of level 0", "done in",
	} {
		if !strings.Contains(did, s) {
			t.Errorf("it does not say %q:\n%s", s, did)
		}
	}
	after := []string{
		"0/0000000000000036-0000000000000036.ltx", "1/000000000000002b-0000000000000036.ltx", "2/000000000000002b-0000000000000036.ltx",
		"3/000000000000002b-0000000000000036.ltx", "9/0000000000000001-0000000000000036.ltx",
	}
	if got := objects(t, url); !slices.Equal(got, slices.Insert(after, 4, "9/0000000000000001-000000000000002a.ltx")) {
		t.Errorf("left with %v", got)
	}
	if got := restored(t, url); !bytes.Equal(got, want) {
		t.Error("it restores something else")
	}
	if code, stdout, _ := walferry("compact", url); code != exitOK || stdout != "nothing is due\n" {
		t.Errorf("again: code %d, %s", code, stdout)
	}
	if code, stdout, stderr := walferry("compact", "-retention", "20m", url); code != exitOK || !strings.Contains(stdout, "removed 1 object of level 9") {
		t.Errorf("20 minutes: code %d, %s%s", code, stdout, stderr)
	}
	if got := objects(t, url); !slices.Equal(got, after) {
		t.Errorf("left with %v", got)
	}
	if got := restored(t, url); !bytes.Equal(got, want) {
		t.Error("it restores something else")
	}
	if code, stdout, stderr := walferry("compact", "-snapshot", "-q", url); code != exitOK || stdout+stderr != "" {
		t.Errorf("-q: code %d, %s%s", code, stdout, stderr)
	}
}

func TestCompactAsJSON(t *testing.T) {
	url, _ := replica(t)
	grow(t, url, 12)
	for _, args := range [][]string{{"-dry-run"}, nil} {
		code, stdout, stderr := walferry(append([]string{"compact", "-json", url}, args...)...)
		var j compactJSON
		d := json.NewDecoder(strings.NewReader(stdout))
		d.DisallowUnknownFields()
		if err := d.Decode(&j); err != nil || code != exitOK || stderr != "" {
			t.Fatalf("code %d, %v, %s%s", code, err, stdout, stderr)
		}
		if j.Replica != url || j.DryRun != (args != nil) || len(j.Merged) != 4 || len(j.Removed) != 11 || j.Marks == nil {
			t.Errorf("%+v", j)
		}
		if m := j.Merged[3]; m.Level != 9 || m.Min != "0000000000000001" || m.Max != "0000000000000036" || m.Inputs != 2 || m.InputSize == 0 {
			t.Errorf("%+v", m)
		}
	}
	_, stdout, _ := walferry("compact", "-json", url)
	if !strings.Contains(stdout, `"merged": []`) || !strings.Contains(stdout, `"removed": []`) {
		t.Errorf("nothing is due: %s", stdout)
	}
}

func TestCompactOfADamagedReplica(t *testing.T) {
	url, _ := replica(t)
	grow(t, url, 3)
	path := filepath.Join(strings.TrimPrefix(url, "file://"), "ltx", "0", ltx.FormatFilename(44, 44))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-20] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	before := objects(t, url)
	code, _, stderr := walferry("compact", url)
	if code != exitFailure || !strings.Contains(stderr, ltx.FormatFilename(44, 44)) || !slices.Equal(objects(t, url), before) {
		t.Errorf("code %d, %s, left with %v", code, stderr, objects(t, url))
	}
	code, stdout, stderr := walferry("compact", "-json", url)
	if code != exitFailure || !strings.Contains(stdout, `"error": "merge into level 1`) || stderr == "" {
		t.Errorf("code %d, %s, %s", code, stdout, stderr)
	}
}

func TestCompactUsage(t *testing.T) {
	url, _ := replica(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "no URL given"},
		{[]string{"ftp://x"}, "ftp"},
		{[]string{url, "more"}, "more"},
		{[]string{"-retention", "5 bananas", url}, "20x"},
		{[]string{"-l0-retention", "-5m", url}, "l0-retention"},
		{[]string{"-snapshot-interval", "often", url}, "snapshot-interval"},
	} {
		if code, _, stderr := walferry(append([]string{"compact"}, c.args...)...); code != exitUsage || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: code %d, %s", c.args, code, stderr)
		}
	}
	empty := "file://" + t.TempDir()
	if code, _, stderr := walferry("compact", empty); code != exitFailure || !strings.Contains(stderr, "no database at "+empty) {
		t.Errorf("an empty replica: code %d, %s", code, stderr)
	}
	grow(t, url, 2)
	if code, stdout, _ := walferry("compact", "-retention", "forever", "-snapshot-interval", "0", url); code != exitOK || strings.Contains(fmt.Sprint(stdout), "removed") {
		t.Errorf("forever: code %d, %s", code, stdout)
	}
}
