package main

import (
	"strings"
	"testing"
)

// most states of a search here; `make model` goes further.
const most = 400_000

func TestEveryInvariantHoldsInTheNearestStates(t *testing.T) {
	for _, c := range small {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := (&model{config: c}).search(most)
			t.Logf("%d states, depth %d, all of them: %v; %s", r.states, r.depth, r.whole, c.bounds())
			if r.wrong != "" {
				t.Errorf("%s\n%s", r.wrong, strings.Join(r.trace, "\n"))
			}
		})
	}
}

// A model that cannot fail proves nothing: without any rule the search finds what goes
// wrong, and the way there that it prints leads there.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range rules {
		if rule.in == "" {
			continue
		}
		t.Run(strings.ReplaceAll(rule.text, " ", "_"), func(t *testing.T) {
			t.Parallel()
			r := (&model{config: named(rule.in), without: rule.rule}).search(2 * most)
			if r.wrong == "" {
				t.Fatalf("%d states of %s, and nothing is wrong", r.states, rule.in)
			}
			if len(r.trace) != r.depth+1 {
				t.Errorf("a trace of %d lines, for %d steps", len(r.trace), r.depth)
			}
			t.Logf("%d states: %s\n%s", r.states, r.wrong, strings.Join(r.trace, "\n"))
		})
	}
}

// The store is left with what it had, whatever the budgets are spent on: a search of
// nothing finds one state.
func TestNothingHappensByItself(t *testing.T) {
	r := (&model{config: config{name: "nothing", pages: 2, most: 2}}).search(most)
	if r.wrong != "" || r.states != 1 || !r.whole {
		t.Errorf("%+v", r)
	}
}
