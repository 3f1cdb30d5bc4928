package main

import (
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
	got  string
}

// tally counts how a case went; loops run cases of one name again and again.
type tally struct {
	ok, failed int
	got        string
}

func count(o outcome) map[string]tally {
	m := map[string]tally{}
	for _, c := range o.cases {
		t := m[c.name]
		if c.ok {
			t.ok++
		} else {
			t.failed++
			t.got = c.got
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
	add := func(name, what, got string) {
		if known.has(file, mode, name, got) {
			expected++
		} else {
			differences = append(differences, difference{name, what, got})
		}
	}
	for name, t := range a {
		u, ok := b[name]
		shape := digits.ReplaceAllString(name, "#")
		switch {
		case !ok && shapesB[shape]:
			steps++
		case !ok:
			add(name, "does not run", "")
		case u.failed > t.failed:
			add(name, "fails", u.got)
		case u.failed < t.failed:
			add(name, "fails only over the plain VFS", t.got)
		}
	}
	for name, u := range b {
		if _, ok := a[name]; ok {
			continue
		}
		switch {
		case u.failed > 0:
			add(name, "fails, and does not run over the plain VFS", u.got)
		case shapesA[digits.ReplaceAllString(name, "#")]:
			steps++
		default:
			add(name, "does not run over the plain VFS", "")
		}
	}
	if plain.end != ours.end {
		add("end of file", fmt.Sprintf("plain: %q, walferry: %q", plain.end, ours.end), "")
	}
	slices.SortFunc(differences, func(x, y difference) int { return strings.Compare(x.name, y.name) })
	return differences, expected, steps
}

// known are the cases that may differ. In the file a comment with the reason stands above
// lines of `FILE MODE CASE`, each a pattern, and optionally a regular expression behind
// ` :: ` that what the case got must match.
type known []exception

type exception struct {
	file, mode, name string
	got              *regexp.Regexp
}

func readKnown(path string) (k known, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		line, got, _ := strings.Cut(strings.TrimSpace(line), " :: ")
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s: %q is not FILE MODE CASE", path, line)
		}
		re, err := regexp.Compile(got)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		k = append(k, exception{fields[0], fields[1], fields[2], re})
	}
	return k, nil
}

func (k known) has(file, mode, name, got string) bool {
	return slices.ContainsFunc(k, func(e exception) bool {
		return matches(file, []string{e.file}) && matches(mode, []string{e.mode}) &&
			matches(strings.ReplaceAll(name, "/", "|"), []string{e.name}) && e.got.MatchString(got)
	})
}
