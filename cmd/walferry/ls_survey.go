package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// headersOfSnapshots bounds how many snapshots' times are read from their headers.
const headersOfSnapshots = 32

// lsReport is what `walferry ls` knows. Its JSON names are an interface: they stay.
type lsReport struct {
	Replica   string     `json:"replica"`
	From      *lsPoint   `json:"from"` // null if nothing can be restored
	To        *lsPoint   `json:"to"`
	Points    int        `json:"points"`
	Levels    []lsLevel  `json:"levels"`
	Snapshots []lsFile   `json:"snapshots"`
	Marks     []lsMark   `json:"marks"`
	Gaps      []lsGap    `json:"gaps"`
	Files     int        `json:"files"`
	Bytes     int64      `json:"bytes"`
	Cost      *lsCost    `json:"cost,omitempty"`
	Damage    string     `json:"damage,omitempty"` // why the newest state cannot be restored
	rows      []lsSpread // for the timeline
}

type lsPoint struct {
	TXID string    `json:"txid"`
	Time time.Time `json:"time"`
}

type lsLevel struct {
	Level   int    `json:"level"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	MinTXID string `json:"min_txid"`
	MaxTXID string `json:"max_txid"`
}

type lsFile struct {
	TXID  string    `json:"txid"`
	Time  time.Time `json:"time"`
	Bytes int64     `json:"bytes"`
}

type lsMark struct {
	Name       string    `json:"name"`
	TXID       string    `json:"txid"`
	Time       time.Time `json:"time"`
	Restorable bool      `json:"restorable"`
}

// lsGap is what is missing. Between After and Until no moment can be restored.
type lsGap struct {
	FromTXID string     `json:"from_txid"`
	ToTXID   string     `json:"to_txid"`
	After    time.Time  `json:"after"`
	Until    *time.Time `json:"until"` // null: nothing after it can be restored
}

type lsCost struct {
	PricePerGB      float64 `json:"price_per_gb_month"`
	PricePer1000Put float64 `json:"price_per_1000_puts"`
	Storage         float64 `json:"storage_per_month"`
	PutsPerMonth    int64   `json:"puts_per_month"` // -1: the history is too short to tell
	Puts            float64 `json:"put_cost_per_month"`
}

// lsSpread is when a level's files end, and since when each holds.
type lsSpread struct {
	level      int
	begin, end []time.Time
}

// survey makes the report.
func survey(ctx context.Context, h *history.History, replica string, price *prices) (*lsReport, error) {
	r := &lsReport{Replica: replica, Levels: []lsLevel{}, Snapshots: []lsFile{}, Marks: []lsMark{}, Gaps: []lsGap{}}
	for level, objects := range slices.Backward(h.Levels[:]) {
		if len(objects) == 0 {
			continue
		}
		l := lsLevel{Level: level, Files: len(objects), MinTXID: objects[0].Min.String()}
		var last ltx.TXID
		for _, o := range objects {
			l.Bytes += o.Size
			last = max(last, o.Max)
		}
		l.MaxTXID = last.String()
		r.Levels = append(r.Levels, l)
		r.Files += l.Files
		r.Bytes += l.Bytes
	}
	if _, err := h.Plan(0); err != nil && r.Files > 0 {
		r.Damage = err.Error()
	}
	points := h.Points()
	r.Points = len(points)
	clock, err := newClock(ctx, h, points)
	if err != nil {
		return nil, err
	}
	if len(points) > 0 {
		first, last := points[0], points[len(points)-1]
		r.From, r.To = &lsPoint{first.String(), clock.at(first)}, &lsPoint{last.String(), clock.at(last)}
	}
	r.spread(h, clock)
	for _, o := range h.Levels[objstore.SnapshotLevel] {
		r.Snapshots = append(r.Snapshots, lsFile{o.Max.String(), clock.at(o.Max), o.Size})
	}
	for _, m := range h.Marks {
		_, ok := slices.BinarySearch(points, m.TXID)
		r.Marks = append(r.Marks, lsMark{m.Name, m.TXID.String(), m.Time, ok})
	}
	for _, g := range h.Gaps() {
		gap := lsGap{FromTXID: g.From.String(), ToTXID: g.To.String()}
		i, _ := slices.BinarySearch(points, g.From)
		if i > 0 {
			gap.After = clock.at(points[i-1])
		}
		if i < len(points) {
			until := clock.at(points[i])
			gap.Until = &until
		}
		r.Gaps = append(r.Gaps, gap)
	}
	if price != nil {
		r.Cost = cost(r, *price, points)
	}
	return r, nil
}

// spread collects when files end.
func (r *lsReport) spread(h *history.History, clock *clock) {
	for level, objects := range slices.Backward(h.Levels[:]) {
		s := lsSpread{level: level}
		for _, o := range objects {
			end := clock.at(o.Max)
			begin := end
			if level > 0 && o.Min > 1 {
				begin = clock.at(o.Min - 1)
			}
			s.begin, s.end = append(s.begin, begin), append(s.end, end)
		}
		if len(objects) > 0 {
			r.rows = append(r.rows, s)
		}
	}
}

// cost reckons a month that goes on like the history.
func cost(r *lsReport, p prices, points []ltx.TXID) *lsCost {
	const month = 365.25 / 12 * 24 * float64(time.Hour)
	c := &lsCost{PricePerGB: p.GB, PricePer1000Put: p.Puts, PutsPerMonth: -1}
	c.Storage = float64(r.Bytes) / (1 << 30) * p.GB
	if r.From == nil {
		return c
	}
	span := r.To.Time.Sub(r.From.Time)
	if span < time.Minute {
		return c
	}
	perMonth := float64(points[len(points)-1]-points[0]) / float64(span) * month
	puts := perMonth
	for _, every := range []time.Duration{30 * time.Second, 5 * time.Minute, time.Hour, 24 * time.Hour} {
		puts += min(perMonth, month/float64(every)) // what merges and snapshots put
	}
	c.PutsPerMonth = int64(puts)
	c.Puts = puts / 1000 * p.Puts
	return c
}

// clock tells the times of TXIDs: exactly where headers were read, else by what the
// listing says of the first file that ends there or behind.
type clock struct {
	exact map[ltx.TXID]time.Time
	ends  []objstore.Object // by Max; the lowest level of each
}

func newClock(ctx context.Context, h *history.History, points []ltx.TXID) (*clock, error) {
	c := &clock{exact: map[ltx.TXID]time.Time{}}
	var ask []ltx.TXID
	if n := len(points); n > 0 {
		ask = append(ask, points[0], points[n-1])
	}
	snapshots := h.Levels[objstore.SnapshotLevel]
	for _, o := range snapshots[max(0, len(snapshots)-headersOfSnapshots):] {
		ask = append(ask, o.Max)
	}
	for _, g := range h.Gaps() {
		if i, _ := slices.BinarySearch(points, g.From); i > 0 {
			ask = append(ask, points[i-1:min(i+1, len(points))]...)
		}
	}
	slices.Sort(ask)
	ask = slices.Compact(ask)
	times, err := h.Times(ctx, ask)
	if err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	for i, t := range times {
		if !t.IsZero() {
			c.exact[ask[i]] = t
		}
	}
	c.ends = h.Objects()
	slices.SortStableFunc(c.ends, func(a, b objstore.Object) int { // keeps lower levels first
		return cmp.Compare(a.Max, b.Max)
	})
	return c, nil
}

func (c *clock) at(t ltx.TXID) time.Time {
	if at, ok := c.exact[t]; ok {
		return at
	}
	i, _ := slices.BinarySearchFunc(c.ends, t, func(o objstore.Object, t ltx.TXID) int { return cmp.Compare(o.Max, t) })
	if i == len(c.ends) {
		i--
	}
	return c.ends[i].ModTime
}
