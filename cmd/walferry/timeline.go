package main

import (
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"
)

// Widths of the timeline, in columns; together they are 80.
const (
	labelWidth    = 10
	timelineWidth = 70
)

// timeline draws moments between two times as rows of characters.
type timeline struct {
	from, to time.Time
	b        strings.Builder
}

// column is where a moment lies.
func (t *timeline) column(at time.Time) int {
	span := t.to.Sub(t.from)
	c := int(float64(at.Sub(t.from)) / float64(span) * timelineWidth)
	return min(max(c, 0), timelineWidth-1)
}

// row adds a line without the blanks at its end.
func (t *timeline) row(label string, cells []rune) {
	line := label + strings.Repeat(" ", max(0, labelWidth-utf8.RuneCountInString(label))) + string(cells)
	t.b.WriteString(strings.TrimRight(line, " ") + "\n")
}

func blank() []rune { return []rune(strings.Repeat(" ", timelineWidth)) }

// points adds a row with a sign at each moment.
func (t *timeline) points(label string, sign rune, at []time.Time) {
	cells := blank()
	for _, m := range at {
		cells[t.column(m)] = sign
	}
	t.row(label, cells)
}

// spans adds a row with a sign from the begin to the end of each.
func (t *timeline) spans(label string, sign rune, begin, end []time.Time) {
	cells := blank()
	for i := range begin {
		for c := t.column(begin[i]); c <= t.column(end[i]); c++ {
			cells[c] = sign
		}
	}
	t.row(label, cells)
}

// heights of bars are for 1, 2, 4… moments in a column.
var heights = []rune("▂▃▄▅▆▇█")

// bars adds a row whose bars are the higher the more moments there are in a column; what is
// between the begin and the end of one is dotted.
func (t *timeline) bars(label string, begin, end []time.Time) {
	cells, counts := blank(), make([]int, timelineWidth)
	for i := range end {
		last := t.column(end[i])
		for c := t.column(begin[i]); c < last; c++ {
			cells[c] = '·'
		}
		counts[last]++
	}
	for c, n := range counts {
		if n > 0 {
			cells[c] = heights[min(bits.Len(uint(n)), len(heights))-1]
		}
	}
	t.row(label, cells)
}

// steps are what ticks of the axis may be apart.
var steps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// axis adds a row with round times, in the zone of from.
func (t *timeline) axis() {
	const room = 11                                  // columns for a tick and its label
	least := t.to.Sub(t.from) / timelineWidth * room // in this order, for a span of centuries
	cells := blank()
	put := func(at time.Time, layout string) {
		c := t.column(at)
		if label := []rune("╷" + at.Format(layout)); at.After(t.from) && c+len(label) <= timelineWidth {
			copy(cells[c:], label)
		}
	}
	y, m, d := t.from.Date()
	midnight := time.Date(y, m, d, 0, 0, 0, 0, t.from.Location())
	for _, step := range steps {
		if step < least {
			continue
		}
		layout := "15:04"
		if step < time.Minute {
			layout = "15:04:05"
		}
		for at := midnight.Add(t.from.Sub(midnight) / step * step); at.Before(t.to); at = at.Add(step) {
			if h, m, s := at.Clock(); h+m+s == 0 {
				put(at, "2 Jan")
			} else {
				put(at, layout)
			}
		}
		t.row("", cells)
		return
	}
	const day = 24 * time.Hour
	next := func(at time.Time, n int) time.Time { return at.AddDate(0, 0, n) }
	at, unit, layout, n := midnight, day, "2 Jan", 1
	if least > 16*day {
		next = func(at time.Time, n int) time.Time { return at.AddDate(0, n, 0) }
		at, unit, layout = at.AddDate(0, 0, 1-d), 31*day, "Jan 2006"
	}
	for time.Duration(n)*unit < least {
		n *= 2
	}
	for ; at.Before(t.to); at = next(at, n) {
		put(at, layout)
	}
	t.row("", cells)
}
