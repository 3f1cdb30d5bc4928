package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// quick takes some minutes: the WAL, and what stands beside it.
var quick = []string{"wal*.test", "savepoint*.test", "backup*.test", "vacuum*.test", "attach*.test", "journal*.test"}

// slow ones are left out of quick: a minute each, or more.
var slow = []string{"walcrash*.test", "walslow.test", "walbig.test", "vacuum3.test", "walthread.test", "savepoint4.test", "savepoint6.test", "backup_*.test", "walfault*.test", "attachmalloc.test", "walprotocol*.test"}

// deep are the files that full runs beside veryquick, which leaves out what takes long.
var deep = []string{"wal*.test", "pager*.test", "crash*.test", "*ioerr*.test", "*malloc*.test", "*fault*.test", "*lock*.test",
	"journal*.test", "savepoint*.test", "*vacuum*.test", "backup*.test", "attach*.test", "mmap*.test", "*thread*.test",
	"io.test", "sync*.test", "trans*.test", "writecrash.test", "mptest*.test"}

// runners only run other files.
var runners = []string{"all.test", "quick.test", "veryquick.test", "full.test", "extraquick.test", "permutations.test", "soak.test",
	"mallocAll.test", "memleak.test", "fts3.test", "rtree.test", "session.test", "rbu.test", "async.test"}

// choose returns the paths of the files to run.
func (c *config) choose(ctx context.Context, set string, patterns, skip []string) ([]string, error) {
	var paths []string
	switch {
	case len(patterns) > 0:
		set = ""
	case set == "quick":
		patterns, skip = quick, append(skip, slow...)
		set = ""
	case set == "full":
		patterns = deep
		set = "veryquick"
	}
	if set != "" {
		var err error
		if paths, err = c.suite(ctx, set); err != nil {
			return nil, err
		}
	}
	for _, p := range patterns {
		for _, dir := range []string{"test", "ext/*", "ext/*/test"} {
			found, err := filepath.Glob(filepath.Join(c.root, "src", dir, p))
			if err != nil {
				return nil, err
			}
			paths = append(paths, found...)
		}
	}
	slices.Sort(paths)
	paths = slices.DeleteFunc(slices.Compact(paths), func(path string) bool {
		return matches(filepath.Base(path), skip) || matches(filepath.Base(path), runners)
	})
	if len(paths) == 0 {
		return nil, fmt.Errorf("no file of SQLite's tests is called %s", strings.Join(patterns, " "))
	}
	return paths, nil
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := filepath.Match(p, name)
		return ok
	})
}

// suite asks permutations.test.
func (c *config) suite(ctx context.Context, name string) ([]string, error) {
	dir, err := os.MkdirTemp(c.scratch, "list-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "plain"), c.script("lists.tcl"), name)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SUITE_TESTER="+c.tester())
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w: %s", name, err, out)
	}
	var paths []string
	for line := range strings.Lines(string(out)) {
		file, ok := strings.CutPrefix(strings.TrimSpace(line), "FILE ")
		if !ok {
			continue
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(c.tester()), file)
		}
		paths = append(paths, filepath.Clean(file))
	}
	return paths, nil
}

func (c *config) tester() string { return filepath.Join(c.root, "src/test/tester.tcl") }

func (c *config) script(name string) string {
	path, _ := filepath.Abs(filepath.Join("internal/sqlitesuite", name))
	return path
}
