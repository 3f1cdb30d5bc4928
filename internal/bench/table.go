package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table collects the figures and prints them as one report.
type table struct {
	sides   []side // the columns
	figures []figure
}

func (t *table) add(figures ...figure) { t.figures = append(t.figures, figures...) }

// skip adds a row for what was not measured, and why, on one line.
func (t *table) skip(name, why string) {
	t.add(figure{name: name, note: strings.ReplaceAll(why, "\n", "; ")})
}

// print writes the table. Each side after walferry's shows its ratio to plain in its own column; the
// ratio column and the result are walferry's, to plain where the goal does not say otherwise. With
// -control they are the control's: a goal that is missed there is finer than what this machine can
// measure in this run.
func (t *table) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"figure"}
	for _, s := range t.sides {
		head = append(head, string(s))
	}
	head = append(head, "ratio (lowest to highest round)", "goal", "result")
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for i := range head {
		head[i] = strings.Repeat("-", len(head[i]))
	}
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, f := range t.figures {
		fmt.Fprintln(tw, strings.Join(t.cells(f), "\t"))
	}
	// A tabwriter only fails when w does, and w is the report itself: there is nobody left to tell.
	_ = tw.Flush()
}

func (t *table) cells(f figure) []string {
	cells := []string{f.name}
	for i, s := range t.sides {
		v, has := f.values[s]
		r, compared := f.ratios[s]
		switch {
		case !has:
			cells = append(cells, "-")
		case i > 1 && compared:
			cells = append(cells, fmt.Sprintf("%s (%.2fx)", f.unit(v), r.mid))
		default:
			cells = append(cells, f.unit(v))
		}
	}
	compared := ""
	if r, has := f.ratios[t.sides[1]]; has {
		compared = r.String()
	}
	aim := ""
	if f.unit != nil {
		aim = f.goal.text(f.unit)
	}
	if f.base == litestream && f.goal.kind != valueAtMost && aim != "" {
		aim += " of litestream"
	}
	return append(cells, compared, aim, f.result(t.sides[1]))
}
