package main

import "fmt"

// left makes a configuration's budgets.
func left(pairs ...any) (b [budgets]uint8) {
	for i := 0; i < len(pairs); i += 2 {
		b[pairs[i].(budget)] = uint8(pairs[i+1].(int))
	}
	return b
}

// small are searched in seconds by `make test`, which stops before the end of most, and each is large enough for the rules that name it.
var small = []config{
	{name: "marks", pages: 2, most: 2, left: left(commits, 2, killsM, 1, resets, 1, folds, 1)},
	{name: "sizes", pages: 2, most: 3, left: left(commits, 2, resizes, 2, cuts, 1)},
	{name: "foreign", pages: 2, most: 2, left: left(commits, 1, unmarked, 2, resets, 1, folds, 1)},
	{name: "puts", pages: 2, most: 2, left: left(commits, 2, killsS, 1, replies, 1, lates, 1)},
	{name: "resized", pages: 2, most: 2, left: left(commits, 2, resizes, 2, killsS, 1)},
	{name: "hollow", pages: 2, most: 2, left: left(commits, 2, resizes, 2, folds, 1, resets, 1)},
	{name: "closes", pages: 2, most: 2, left: left(commits, 1, unmarked, 1, closes, 2, killsM, 1)},
	{name: "first", pages: 2, most: 2, empty: true, left: left(commits, 1, killsS, 1, lates, 1, cuts, 1)},
	{name: "recovery", pages: 2, most: 2, left: left(commits, 1, resizes, 2, unmarked, 2, killsM, 1)},
	{name: "power", pages: 2, most: 2, left: left(commits, 1, powers, 1, folds, 1)},
	{name: "lost", pages: 2, most: 2, left: left(commits, 1, unmarked, 2, powers, 1)},
	{name: "stamps", pages: 2, most: 2, left: left(commits, 1, closes, 1, powers, 1)},
	{name: "machines", pages: 2, most: 2, left: left(commits, 1, machines, 2, ticks, 3, killsS, 1, lates, 1)},
	{name: "locks", pages: 2, most: 2, left: left(commits, 2, locks, 1)},
}

// big are for `make model` too: more of everything, and things together that are apart above.
var big = []config{
	{name: "marks+", pages: 2, most: 2, left: left(commits, 3, killsM, 1, resets, 2, folds, 2)},
	{name: "sizes+", pages: 2, most: 3, left: left(commits, 3, resizes, 3, cuts, 1, killsS, 1)},
	{name: "foreign+", pages: 2, most: 2, left: left(commits, 2, unmarked, 2, resets, 2, folds, 2)},
	{name: "puts+", pages: 2, most: 2, left: left(commits, 2, killsS, 2, replies, 1, lates, 2)},
	{name: "hollow+", pages: 2, most: 3, left: left(commits, 2, resizes, 2, folds, 2, resets, 1, cuts, 1)},
	{name: "closes+", pages: 2, most: 2, left: left(commits, 2, unmarked, 1, closes, 2, killsM, 1, killsS, 1)},
	{name: "first+", pages: 2, most: 3, empty: true, left: left(commits, 2, resizes, 1, killsS, 1, replies, 1, lates, 1, cuts, 1)},
	{name: "recovery+", pages: 2, most: 2, left: left(commits, 2, resizes, 2, unmarked, 2, killsM, 1, folds, 1)},
	{name: "power+", pages: 2, most: 2, left: left(commits, 2, powers, 1, flushes, 1, folds, 1, killsS, 1)},
	{name: "lost+", pages: 2, most: 2, left: left(commits, 2, unmarked, 2, powers, 1)},
	{name: "stamps+", pages: 2, most: 2, left: left(commits, 2, closes, 2, powers, 1, lates, 1)},
	{name: "machines+", pages: 2, most: 2, left: left(commits, 2, machines, 2, ticks, 3, killsS, 1, replies, 1, lates, 1)},
	{name: "locks+", pages: 2, most: 2, left: left(commits, 2, locks, 1, replies, 1, lates, 1)},
	{name: "three+", pages: 3, most: 3, left: left(commits, 2, resizes, 1, cuts, 2, folds, 1, resets, 1)},
	{name: "together+", pages: 2, most: 2, left: left(commits, 2, unmarked, 1, resizes, 1, resets, 1, folds, 1, killsM, 1, killsS, 1, replies, 1, lates, 1, cuts, 1)},
}

// bounds tells a configuration's.
func (c config) bounds() string {
	text := ""
	for b, n := range c.left {
		if n > 0 {
			text += fmt.Sprintf(" %s %d", budgetText[b], n)
		}
	}
	if c.empty {
		text += ", empty store"
	}
	return fmt.Sprintf("pages %d to %d:%s", c.pages, c.most, text)
}
