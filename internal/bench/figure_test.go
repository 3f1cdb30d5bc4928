package main

import (
	"slices"
	"testing"
	"time"
)

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 5}, 5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	for _, c := range []struct {
		values []int64
		p      int
		want   int64
	}{
		{nil, 50, 0}, {[]int64{7}, 1, 7}, {[]int64{7}, 99, 7},
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100},
		{hundred[:10], 99, 10},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile of %d values, %d = %v, want %v", len(c.values), c.p, got, c.want)
		}
	}
}

// A machine that is twice as slow in one round is so for both sides, and the ratio does not see it.
func TestRatioIsTakenInsideEachRound(t *testing.T) {
	got := samples[float64]{plain: {100, 200, 100}, walferry: {110, 220, 110}}
	f := newFigure("x", count, got, func(v float64) float64 { return v }, within(0.03))
	if r := f.ratios[walferry]; r != (ratio{1.1, 1.1, 1.1}) {
		t.Errorf("ratio %v, want 1.1", r)
	}
	if got := f.result(walferry); got != "MISSED" {
		t.Errorf("result %q", got)
	}
}

func TestResult(t *testing.T) {
	figureOf := func(mid, value float64, g goal) figure {
		return figure{
			unit: count, goal: g,
			values: map[side]float64{walferry: value}, ratios: map[side]ratio{walferry: {mid: mid}},
		}
	}
	for _, c := range []struct {
		f    figure
		want string
	}{
		{figureOf(1.03, 0, within(0.03)), "met"},
		{figureOf(1.04, 0, within(0.03)), "MISSED"},
		{figureOf(0.97, 0, withinRate(0.03)), "met"},
		{figureOf(0.96, 0, withinRate(0.03)), "MISSED"},
		{figureOf(9, 0, atMost(0)), "met"},
		{figureOf(0, 1, atMost(0)), "MISSED"},
		{figureOf(0.5, 0, atLeastTimes(0.5)), "met"},
		{figureOf(9, 9, goal{}), ""},
		{figure{goal: within(0.03)}, ""},
		{figure{goal: within(0.03), base: litestream}, needLitestream},
		{figure{base: litestream}, ""},
		{figure{goal: within(0.03), note: needLZ4}, needLZ4},
	} {
		if got := c.f.result(walferry); got != c.want {
			t.Errorf("ratio %v, value %v, goal %q: %q, want %q",
				c.f.ratios, c.f.values, c.f.goal.text(count), got, c.want)
		}
	}
}

// A column that is another's base has no ratio of its own, and plain none to it.
func TestFigureAgainstLitestream(t *testing.T) {
	got := samples[float64]{litestream: {10, 20}, walferry: {2, 6}}
	f := newFigureTo(litestream, "x", count, got, func(v float64) float64 { return v }, atMostTimes(0.3))
	if r := f.ratios[walferry]; r != (ratio{0.25, 0.2, 0.3}) {
		t.Errorf("ratio %v", r)
	}
	if _, has := f.ratios[litestream]; has || f.result(walferry) != "met" {
		t.Errorf("ratios %v, %s", f.ratios, f.result(walferry))
	}
	cells := (&table{sides: []side{plain, walferry, litestream}}).cells(f)
	if want := []string{"x", "-", "4", "15", "0.250x (0.20 to 0.30)", "≤ 0.30x of litestream", "met"}; !slices.Equal(cells, want) {
		t.Errorf("cells %q, want %q", cells, want)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500:                    "1.5 us",
		150 * time.Microsecond:  "150 us",
		1500 * time.Microsecond: "1.50 ms",
		20 * time.Millisecond:   "20.0 ms",
		1050 * time.Millisecond: "1.05 s",
	} {
		if got := duration(float64(d)); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
}
