package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A difference is a case that went another way over walferry.
type difference struct {
	name string
	what string
}

// tally counts how a case went; loops run cases of one name again and again.
type tally struct{ ok, failed int }

func count(o outcome) map[string]tally {
	m := map[string]tally{}
	for _, c := range o.cases {
		t := m[c.name]
		if c.ok {
			t.ok++
		} else {
			t.failed++
		}
		m[c.name] = t
	}
	return m
}

var digits = regexp.MustCompile(`\d+`)

// compare looks at every case. expected counts differences that known lists, steps the
// cases that only one run has and that are one more turn of a loop: a test of faults goes
// on until one run meets none, and a shim opens, allocates and reads a little more.
func compare(file, mode string, plain, ours outcome, known known) (differences []difference, expected, steps int) {
	a, b := count(plain), count(ours)
	shapes := func(m map[string]tally) map[string]bool {
		s := map[string]bool{}
		for name := range m {
			s[digits.ReplaceAllString(name, "#")] = true
		}
		return s
	}
	shapesA, shapesB := shapes(a), shapes(b)
	add := func(name, what string) {
		if known.has(file, mode, name) {
			expected++
		} else {
			differences = append(differences, difference{name, what})
		}
	}
	for name, t := range a {
		u, ok := b[name]
		shape := digits.ReplaceAllString(name, "#")
		switch {
		case !ok && shapesB[shape]:
			steps++
		case !ok:
			add(name, "does not run")
		case u.failed > t.failed:
			add(name, "fails")
		case u.failed < t.failed:
			add(name, "fails only over the plain VFS")
		}
	}
	for name, u := range b {
		if _, ok := a[name]; ok {
			continue
		}
		switch {
		case u.failed > 0:
			add(name, "fails, and does not run over the plain VFS")
		case shapesA[digits.ReplaceAllString(name, "#")]:
			steps++
		default:
			add(name, "does not run over the plain VFS")
		}
	}
	if plain.end != ours.end {
		add("end of file", fmt.Sprintf("plain: %q, walferry: %q", plain.end, ours.end))
	}
	slices.SortFunc(differences, func(x, y difference) int { return strings.Compare(x.name, y.name) })
	return differences, expected, steps
}

// known are the cases that may differ: lines of `FILE MODE CASE`, each a pattern, below
// a [reason] in brackets.
type known []struct{ file, mode, name string }

func readKnown(path string) (k known, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.SplitN(lines.Text(), " ", 3)
		if len(fields) == 3 && !strings.HasPrefix(fields[0], "[") && !strings.HasPrefix(fields[0], "#") {
			k = append(k, struct{ file, mode, name string }{fields[0], fields[1], fields[2]})
		}
	}
	return k, nil
}

func (k known) has(file, mode, name string) bool {
	for _, e := range k {
		if matches(file, []string{e.file}) && matches(mode, []string{e.mode}) && matches(name, []string{e.name}) {
			return true
		}
	}
	return false
}
