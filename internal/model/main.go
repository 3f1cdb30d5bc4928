package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"
)

func main() {
	only := flag.String("only", "", "search configurations whose name matches this `regex`")
	most := flag.Int("most", 8_000_000, "visit so many `states` of each at most, the nearest first")
	without := flag.Bool("rules", false, "show what each rule is for: leave it out")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: model [-only REGEX] [-most N] [-rules]", err)
		os.Exit(2)
	}
	if *without {
		showRules(os.Stdout, *most)
		return
	}
	sound := true
	for _, c := range slices.Concat(small, big) {
		if match.MatchString(c.name) {
			sound = show(os.Stdout, c, *most) && sound
		}
	}
	if !sound {
		os.Exit(1)
	}
}

// show searches a configuration and prints what it found.
func show(w io.Writer, c config, most int) bool {
	began := time.Now()
	r := (&model{config: c}).search(most)
	how := "all states within the bounds"
	if !r.whole {
		how = fmt.Sprintf("the nearest %d states", most)
	}
	fmt.Fprintf(w, "%-10s %9d states, depth %3d, %6.1fs, %s; %s\n", c.name, r.states, r.depth, time.Since(began).Seconds(), how, c.bounds())
	if r.wrong != "" {
		printTrace(w, r)
	}
	return r.wrong == ""
}

func printTrace(w io.Writer, r result) {
	fmt.Fprintf(w, "WRONG after %d steps: %s\n", r.depth, r.wrong)
	for _, line := range r.trace {
		fmt.Fprintln(w, "  ", line)
	}
}

// showRules leaves out one rule after the other.
func showRules(w io.Writer, most int) {
	for _, r := range rules {
		fmt.Fprintf(w, "\nwithout %s:\n", r.text)
		if r.in == "" {
			fmt.Fprintln(w, "nothing was found within the bounds: other rules carry what it carries")
			continue
		}
		printTrace(w, (&model{config: named(r.in), without: r.rule}).search(most))
	}
}

// named is a small configuration.
func named(name string) config {
	for _, c := range small {
		if c.name == name {
			return c
		}
	}
	panic("no configuration " + name)
}
