package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func run(results ...result) outcome { return outcome{cases: results} }

func TestCompareFindsWhatWentAnotherWay(t *testing.T) {
	for _, c := range []struct {
		name            string
		plain, ours     outcome
		differs         []string
		expected, steps int
	}{
		{"the same", run(result{"a-1", true, ""}, result{"a-2", false, "x"}), run(result{"a-1", true, ""}, result{"a-2", false, "y"}), nil, 0, 0},
		{"a failure", run(result{"a-1", true, ""}), run(result{"a-1", false, "x"}), []string{"a-1"}, 0, 0},
		{"a success", run(result{"a-1", false, ""}), run(result{"a-1", true, ""}), []string{"a-1"}, 0, 0},
		{"one failure more of a name", run(result{"a", true, ""}, result{"a", true, ""}), run(result{"a", true, ""}, result{"a", false, ""}), []string{"a"}, 0, 0},
		{"a case that is missing", run(result{"a-1", true, ""}, result{"b", true, ""}), run(result{"a-1", true, ""}), []string{"b"}, 0, 0},
		{"a turn of a loop more", run(result{"a-1", true, ""}), run(result{"a-1", true, ""}, result{"a-2", true, ""}), nil, 0, 1},
		{"one that fails", run(result{"a-1", true, ""}), run(result{"a-1", true, ""}, result{"a-2", false, ""}), []string{"a-2"}, 0, 0},
		{"a known failure", run(result{"k-1", true, ""}), run(result{"k-1", false, "[because]"}), nil, 1, 0},
		{"a known case that got something else", run(result{"k-1", true, ""}), run(result{"k-1", false, "[corrupt]"}), []string{"k-1"}, 0, 0},
		{"an early end", run(), outcome{end: "signal"}, []string{"end of file"}, 0, 0},
	} {
		path := filepath.Join(t.TempDir(), "known.txt")
		if err := os.WriteFile(path, []byte("# reason\nf.test * k-* :: ^\\[because\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		known, err := readKnown(path)
		if err != nil {
			t.Fatal(err)
		}
		differences, expected, steps := compare("f.test", "asis", c.plain, c.ours, known)
		var names []string
		for _, d := range differences {
			names = append(names, d.name)
		}
		if !slices.Equal(names, c.differs) || expected != c.expected || steps != c.steps {
			t.Errorf("%s: differ %v, %d known, %d steps", c.name, names, expected, steps)
		}
	}
}

func TestTheListOfKnownDifferencesIsWellFormed(t *testing.T) {
	if _, err := readKnown("known.txt"); err != nil {
		t.Error(err)
	}
}
