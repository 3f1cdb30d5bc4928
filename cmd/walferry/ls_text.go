package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/walferry/walferry/internal/objstore"
)

// mostMarks and mostGaps are how many of each are listed for people; JSON has all.
const (
	mostMarks = 20
	mostGaps  = 10
)

const lsTime = "2006-01-02 15:04:05"

// text is the report for people, at most 80 columns wide, in now's time zone.
func (r *lsReport) text(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", r.Replica)
	switch {
	case r.Files == 0:
		b.WriteString("There is no database here.\n")
		r.marks(&b, now)
		return b.String()
	case r.From == nil:
		fmt.Fprintf(&b, "%s\n\n", wrap("NOTHING CAN BE RESTORED: "+r.Damage))
	default:
		within := ""
		if r.Points > 1 {
			within = " in " + r.span()
		}
		tw := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		for _, p := range []struct {
			name string
			*lsPoint
		}{{"from", r.From}, {"to", r.To}} {
			fmt.Fprintf(tw, "%s\t%s\tTXID %s\t%s\n", p.name, p.Time.In(now.Location()).Format(lsTime), short(p.TXID), ago(p.Time, now))
		}
		tw.Flush()
		fmt.Fprintf(&b, "%s restore %s%s, %s\n\n", humanize.Comma(int64(r.Points)), plural(r.Points, "point"), within, r.missing())
		if r.Damage != "" {
			fmt.Fprintf(&b, "%s\n\n", wrap("THE NEWEST STATE CANNOT BE RESTORED: "+r.Damage))
		}
	}
	r.timeline(&b, now)
	r.table(&b)
	r.gaps(&b, now)
	r.marks(&b, now)
	r.cost(&b)
	return b.String()
}

func (r *lsReport) span() string {
	d := r.To.Time.Sub(r.From.Time)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	}
	return fmt.Sprintf("%.0f %s", d.Seconds(), plural(int(d.Seconds()+0.5), "second"))
}

func (r *lsReport) missing() string {
	if n := len(r.Gaps); n > 0 {
		return fmt.Sprintf("%d %s", n, plural(n, "gap"))
	}
	return "no gap"
}

func (r *lsReport) timeline(b *strings.Builder, now time.Time) {
	if r.From == nil || r.To.Time.Sub(r.From.Time) < time.Second {
		return
	}
	t := &timeline{from: r.From.Time.In(now.Location()), to: r.To.Time.In(now.Location())}
	t.axis()
	for _, s := range r.rows {
		if s.level == objstore.SnapshotLevel {
			t.points(levelName(s.level), '◆', s.end)
		} else {
			t.bars(levelName(s.level), s.begin, s.end)
		}
	}
	if len(r.Marks) > 0 {
		at := make([]time.Time, len(r.Marks))
		for i, m := range r.Marks {
			at[i] = m.Time
		}
		t.points("marks", '▲', at)
	}
	if len(r.Gaps) > 0 {
		var begin, end []time.Time
		for _, g := range r.Gaps {
			until := r.To.Time
			if g.Until != nil {
				until = *g.Until
			}
			begin, end = append(begin, g.After), append(end, until)
		}
		t.spans("gaps", 'x', begin, end)
	}
	b.WriteString(t.b.String() + "\n")
}

func levelName(level int) string {
	if level == objstore.SnapshotLevel {
		return "snapshots"
	}
	return fmt.Sprintf("level %d", level)
}

// table shows what takes the space.
func (r *lsReport) table(b *strings.Builder) {
	fmt.Fprintf(b, "%-10s %9s %9s   %s\n", "", "files", "size", "TXIDs")
	for _, l := range r.Levels {
		fmt.Fprintf(b, "%-10s %9s %9s   %s to %s\n", levelName(l.Level), humanize.Comma(int64(l.Files)), size(l.Bytes), short(l.MinTXID), short(l.MaxTXID))
	}
	if len(r.Levels) > 1 {
		fmt.Fprintf(b, "%-10s %9s %9s\n", "total", humanize.Comma(int64(r.Files)), size(r.Bytes))
	}
}

func (r *lsReport) gaps(b *strings.Builder, now time.Time) {
	if r.From == nil {
		return
	}
	if len(r.Gaps) > 0 {
		b.WriteString("\ngaps\n")
	}
	for i, g := range r.Gaps {
		if i == mostGaps {
			fmt.Fprintf(b, "  and %d more\n", len(r.Gaps)-i)
			break
		}
		until := "on"
		if g.Until != nil {
			until = "to " + g.Until.In(now.Location()).Format(lsTime)
		}
		missing := fmt.Sprintf("TXIDs %s to %s are missing", short(g.FromTXID), short(g.ToTXID))
		if g.FromTXID == g.ToTXID {
			missing = fmt.Sprintf("TXID %s is missing", short(g.FromTXID))
		}
		fmt.Fprintf(b, "  %s %-22s   %s\n", g.After.In(now.Location()).Format(lsTime), until, missing)
	}
}

func (r *lsReport) marks(b *strings.Builder, now time.Time) {
	if len(r.Marks) == 0 {
		return
	}
	list := r.Marks[max(0, len(r.Marks)-mostMarks):]
	b.WriteString("\nmarks\n")
	if n := len(r.Marks) - len(list); n > 0 {
		fmt.Fprintf(b, "  and %d older ones\n", n)
	}
	for _, m := range list {
		lost := ""
		if !m.Restorable {
			lost = "   (cannot be restored any more)"
		}
		fmt.Fprintf(b, "  %s   TXID %-6s   %s%s\n", m.Time.In(now.Location()).Format(lsTime), short(m.TXID), printable(m.Name), lost)
	}
}

func (r *lsReport) cost(b *strings.Builder) {
	c := r.Cost
	if c == nil {
		return
	}
	whose := ""
	if c.PricePerGB == standard.GB && c.PricePer1000Put == standard.Puts {
		whose = "S3 Standard's "
	}
	fmt.Fprintf(b, "\ncost per month, at %s$%g per GB and $%g per 1000 PUTs\n", whose, c.PricePerGB, c.PricePer1000Put)
	fmt.Fprintf(b, "%-10s %9s   %s\n", "storage", dollars(c.Storage), size(r.Bytes))
	if c.PutsPerMonth < 0 {
		fmt.Fprintf(b, "%-10s %9s   the history is too short to tell\n", "requests", "?")
		return
	}
	fmt.Fprintf(b, "%-10s %9s   %s PUTs, if it is written to as in these %s\n", "requests", dollars(c.Puts), humanize.Comma(c.PutsPerMonth), r.span())
}

func dollars(v float64) string {
	if v > 0 && v < 0.01 {
		return "< $0.01"
	}
	return "$" + humanize.CommafWithDigits(v, 2)
}

// short is a TXID without the zeros that it begins with, as -txid takes it too.
func short(txid string) string {
	if s := strings.TrimLeft(txid, "0"); s != "" {
		return s
	}
	return "0"
}

func ago(t, now time.Time) string { return humanize.RelTime(t, now, "ago", "ahead") }

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// printable keeps a mark's name from doing more to a terminal than showing.
func printable(name string) string {
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}

// wrap breaks a long message at 80 columns.
func wrap(s string) string {
	var b strings.Builder
	col := 0
	for i, w := range strings.Fields(s) {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case col+1+n > 80:
			b.WriteString("\n")
			col = 0
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(w)
		col += n
	}
	return b.String()
}
