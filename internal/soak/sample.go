package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// sample is what a process takes at one moment.
type sample struct {
	RSS, Heap                        int64 // bytes
	Descriptors, Threads, Goroutines int64
	Ledger, Files, Temporary         int64 // bytes; files in the directory; unlinked files that are open
}

// here samples this process. The heap is what a collection leaves.
func here() (s sample) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.Heap, s.Goroutines = int64(m.HeapAlloc), int64(runtime.NumGoroutine())
	s.Threads = int64(len(names("/proc/self/task")))
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(b); len(f) > 1 {
			pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
			s.RSS = pages * int64(os.Getpagesize())
		}
	}
	for _, fd := range names("/proc/self/fd") {
		name, err := os.Readlink("/proc/self/fd/" + fd)
		if err != nil {
			continue // the one that lists
		}
		s.Descriptors++
		if strings.HasPrefix(name, "/") && strings.HasSuffix(name, " (deleted)") {
			s.Temporary++
		}
	}
	return s
}

// beside adds what lies beside a database.
func (s *sample) beside(database string) {
	if fi, err := os.Stat(database + "-ledger"); err == nil {
		s.Ledger = fi.Size()
	}
	s.Files = int64(len(names(filepath.Dir(database))))
}

func names(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// flat is a figure that may grow from one time to another by a slack.
type flat struct {
	name   string
	of     func(sample) int64
	share  float64 // of what it was
	beyond int64   // and so much more
}

// flats are what must not grow. Memory moves with the moment that a sample meets: a batch
// under way, a stack that has not been given back. Descriptors, threads and goroutines move
// with the requests that are under way just then, and with connections that a client keeps.
var flats = []flat{
	{"resident memory", func(s sample) int64 { return s.RSS }, 0.25, 16 << 20},
	{"Go heap", func(s sample) int64 { return s.Heap }, 0.25, 4 << 20},
	{"descriptors", func(s sample) int64 { return s.Descriptors }, 0, 16},
	{"threads", func(s sample) int64 { return s.Threads }, 0, 8},
	{"goroutines", func(s sample) int64 { return s.Goroutines }, 0, 32},
	{"ledger bytes", func(s sample) int64 { return s.Ledger }, 0, 128 << 10},
	{"files beside", func(s sample) int64 { return s.Files }, 0, 2},
	{"unlinked files", func(s sample) int64 { return s.Temporary }, 0, 3},
}

func median(samples []sample, of func(sample) int64) int64 {
	var all []int64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// stayed compares a time with an earlier one, and prints each figure.
func stayed(who string, before, after []sample) error {
	var grown []string
	for _, f := range flats {
		a, b := median(before, f.of), median(after, f.of)
		most := a + int64(f.share*float64(a)) + f.beyond
		fmt.Printf("%-14s %-16s %12d, then %12d (at most %d)\n", who, f.name, a, b, most)
		if b > most {
			grown = append(grown, fmt.Sprintf("%s of %s grew from %d to %d, more than to %d", f.name, who, a, b, most))
		}
	}
	if len(grown) > 0 {
		return fmt.Errorf("%s", strings.Join(grown, "; "))
	}
	return nil
}

// fifths are the second and the last fifth of some samples.
func fifths(all []sample) (before, after []sample) {
	n := len(all)
	return all[n/5 : max(2*n/5, n/5+1)], all[4*n/5:]
}
