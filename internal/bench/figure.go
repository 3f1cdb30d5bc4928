package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
)

// figure is one row of the table: the same quantity measured on each side.
type figure struct {
	name   string
	unit   unit
	values map[side]float64
	base   side
	ratios map[side]ratio // to the base, for each other side that has one
	goal   goal
	note   string // shown instead of a result when nothing was measured
}

// ratio is how a side compares with the base of its figure.
type ratio struct {
	mid       float64 // the median of the rounds
	low, high float64 // the extremes: how much one round can be trusted
}

func newRatio(rounds []float64) ratio {
	return ratio{median(rounds), slices.Min(rounds), slices.Max(rounds)}
}

func (r ratio) String() string {
	if r.low == r.high {
		return fmt.Sprintf("%.3fx", r.mid)
	}
	return fmt.Sprintf("%.3fx (%.2f to %.2f)", r.mid, r.low, r.high)
}

// unit formats a value for people.
type unit func(float64) string

func duration(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d < 100*time.Microsecond:
		return fmt.Sprintf("%.1f us", ns/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f us", ns/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	}
	return fmt.Sprintf("%.2f s", ns/1e9)
}

func perSecond(v float64) string   { return humanize.CommafWithDigits(v, 0) + " /s" }
func amount(v float64) string      { return humanize.Bytes(uint64(max(v, 0))) }
func bytesPerSec(v float64) string { return fmt.Sprintf("%.0f MB/s", v/1e6) }
func copies(v float64) string      { return fmt.Sprintf("%.3f copies", v) }
func percent(v float64) string     { return fmt.Sprintf("%.3f %%", v) }
func count(v float64) string       { return humanize.CommafWithDigits(v, 0) }

// goal is what walferry's side of a figure is held to. The zero goal is none: the figure informs.
type goal struct {
	kind  goalKind
	limit float64
}

type goalKind int

const (
	noGoal       goalKind = iota
	ratioAtMost           // walferry / base is at most the limit
	ratioAtLeast          // walferry / base is at least the limit
	valueAtMost           // walferry's own value is at most the limit
)

// within returns the goal for a figure of which less is better: at most the share above plain.
func within(share float64) goal { return goal{ratioAtMost, 1 + share} }

// withinRate returns the goal for a figure of which more is better: at most the share below plain.
func withinRate(share float64) goal { return goal{ratioAtLeast, 1 - share} }

func atMost(limit float64) goal       { return goal{valueAtMost, limit} }
func atMostTimes(limit float64) goal  { return goal{ratioAtMost, limit} }
func atLeastTimes(limit float64) goal { return goal{ratioAtLeast, limit} }

// text shows the goal in the unit of its figure.
func (g goal) text(u unit) string {
	switch g.kind {
	case ratioAtMost:
		return fmt.Sprintf("≤ %.2fx", g.limit)
	case ratioAtLeast:
		return fmt.Sprintf("≥ %.2fx", g.limit)
	case valueAtMost:
		return "≤ " + u(g.limit)
	}
	return ""
}

// result says whether the judged side of f meets the goal, and nothing where there is no goal or
// nothing to judge.
func (f figure) result(judged side) string {
	if f.note != "" {
		return f.note
	}
	var ok, known bool
	switch f.goal.kind {
	case ratioAtMost:
		r, has := f.ratios[judged]
		ok, known = r.mid <= f.goal.limit, has
	case ratioAtLeast:
		r, has := f.ratios[judged]
		ok, known = r.mid >= f.goal.limit, has
	case valueAtMost:
		v, has := f.values[judged]
		ok, known = v <= f.goal.limit, has
	}
	switch {
	case !known && f.base == litestream && f.goal.kind != noGoal:
		return needLitestream
	case !known:
		return ""
	case ok:
		return "met"
	}
	return "MISSED"
}

// newFigure condenses the samples of one quantity: the median of each side, and the median of the
// ratios of each round to the plain side.
func newFigure[T any](name string, u unit, got samples[T], pick func(T) float64, g goal) figure {
	return newFigureTo(plain, name, u, got, pick, g)
}

// newFigureTo is newFigure with ratios to another side.
func newFigureTo[T any](to side, name string, u unit, got samples[T], pick func(T) float64, g goal) figure {
	f := figure{name: name, unit: u, goal: g, base: to, values: map[side]float64{}, ratios: map[side]ratio{}}
	base := each(got[to], pick)
	for s, results := range got {
		values := each(results, pick)
		f.values[s] = median(values)
		if r := ratios(values, base); s != to && len(r) > 0 {
			f.ratios[s] = newRatio(r)
		}
	}
	return f
}

// worstFigure is newFigure for a quantity of which only the worst of all rounds is of interest.
func worstFigure[T any](name string, u unit, got samples[T], pick func(T) float64) figure {
	f := figure{name: name, unit: u, values: map[side]float64{}, ratios: map[side]ratio{}}
	for s, results := range got {
		for _, v := range each(results, pick) {
			f.values[s] = max(f.values[s], v)
		}
	}
	for s, v := range f.values {
		if s != plain && f.values[plain] > 0 {
			f.ratios[s] = newRatio([]float64{v / f.values[plain]})
		}
	}
	return f
}
