package systest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme_EachSentenceNamesTestsThatExist holds the README to what is tested: a
// guarantee names its tests, and those are there.
func TestReadme_EachSentenceNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(top(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(top(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "dist" {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`Test\\w+`").FindAllString(string(readme), -1) {
		if !tests[strings.Trim(name, "`")] {
			t.Errorf("the README names %s, which is no test", name)
		}
	}
	_, guarantees, _ := strings.Cut(string(readme), "\n## Guarantees\n")
	guarantees, _, _ = strings.Cut(guarantees, "\n## ")
	sentences := strings.Split(guarantees, "\n- ")[1:]
	if len(sentences) < 8 {
		t.Errorf("only %d guarantees were found", len(sentences))
	}
	for _, s := range sentences {
		if !strings.Contains(s, "`Test") {
			t.Errorf("no test is named for: %s", s)
		}
	}
}
