package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain lets the test binary play the measured children, as the program itself does.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childCommand {
		if err := runChild(os.Args[2]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// quickBench returns a bench of one small round that compares plain with plain.
func quickBench(t *testing.T, only string) *bench {
	t.Helper()
	cfg, err := parseConfig([]string{"-quick", "-control", "-rounds", "1", "-idle", "100ms", "-only", only, "-dir", t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Mid, cfg.Load, cfg.Litestream = 1e6, quick.Load/8, ""
	b, err := newBench(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Dir, ".walferry-bench-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return b
}

func TestEveryLoadMeasuresBothSides(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process per side and load")
	}
	b := quickBench(t, "commits|updates|reads|scan")
	if err := b.runAll(); err != nil {
		t.Fatal(err)
	}
	if len(b.table.figures) < len(writeLoads)+len(readLoads) {
		t.Fatalf("only %d figures", len(b.table.figures))
	}
	for _, f := range b.table.figures {
		for _, s := range []side{plain, control} {
			if f.values[s] <= 0 {
				t.Errorf("%s: %s measured %v", f.name, s, f.values[s])
			}
		}
	}
}

func TestFailedMeasurementIsAnErrorAndARow(t *testing.T) {
	b := quickBench(t, "^one-row commits NORMAL$")
	b.exe = filepath.Join(b.scratch, "no such program")
	if err := b.runAll(); err == nil {
		t.Error("no error")
	}
	if n := len(b.table.figures); n != 1 || b.table.figures[0].note == "" {
		t.Errorf("%d rows, want one that names the failure", n)
	}
}

func TestOnlyThatMatchesNothingIsAnError(t *testing.T) {
	if err := quickBench(t, "^nothing$").runAll(); err == nil {
		t.Error("no error")
	}
}
