package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is of one file, or of all.
type report struct {
	name, mode  string
	files       int
	plain, ours outcome
	differences []difference
	expected    int
	steps       int
	restored    restored
	problems    []string
	took        time.Duration

	// Of all.
	casesPlain, casesOurs, differ, unfinished, normal int
}

func (r *report) databases(d restored) { r.restored = d }

func (d restored) String() string {
	text := fmt.Sprintf("%d databases equal at close, %d after ship", d.atClose, d.shipped)
	for _, reason := range slices.Sorted(maps.Keys(d.excepted)) {
		text += fmt.Sprintf(", %d: %s", d.excepted[reason], reason)
	}
	if len(d.wrong) > 0 {
		text += fmt.Sprintf(", %d NOT EQUAL", len(d.wrong))
	}
	return text
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s %-4s %6d cases, failed %d plain %d walferry, %d differ", r.name, r.mode, len(r.ours.cases), r.plain.failed, r.ours.failed, len(r.differences))
	if r.expected > 0 {
		fmt.Fprintf(&b, " +%d known", r.expected)
	}
	if r.steps > 0 {
		fmt.Fprintf(&b, ", %d turns of loops in one only", r.steps)
	}
	if r.ours.normal {
		b.WriteString(", EXCLUSIVE read as NORMAL")
	}
	fmt.Fprintf(&b, "; %s (%.1fs)\n", r.restored, r.took.Seconds())
	if r.ours.end != "" {
		fmt.Fprintf(&b, "    plain: %s\n    walferry: %s\n", r.plain.end, r.ours.end)
	}
	for i, d := range r.differences {
		if i == 40 {
			fmt.Fprintf(&b, "    and %d more\n", len(r.differences)-i)
			break
		}
		fmt.Fprintf(&b, "    %s %s: %.160s\n", d.name, d.what, d.got)
	}
	for _, w := range append(r.problems, r.restored.wrong...) {
		fmt.Fprintf(&b, "    %s\n", w)
	}
	return b.String()
}

func (r *report) add(o report) {
	r.files += o.files
	r.casesPlain += len(o.plain.cases)
	r.casesOurs += len(o.ours.cases)
	r.plain.failed += o.plain.failed
	r.ours.failed += o.ours.failed
	r.differ += len(o.differences)
	r.expected += o.expected
	r.steps += o.steps
	if o.ours.end != "" {
		r.unfinished++
	}
	if o.ours.normal {
		r.normal++
	}
	r.restored.atClose += o.restored.atClose
	r.restored.shipped += o.restored.shipped
	r.restored.wrong = append(r.restored.wrong, o.restored.wrong...)
	if r.restored.excepted == nil {
		r.restored.excepted = map[string]int{}
	}
	for reason, n := range o.restored.excepted {
		r.restored.excepted[reason] += n
	}
	r.problems = append(r.problems, o.problems...)
}

func (r *report) summary() string {
	return fmt.Sprintf("%d files: %d cases plain, %d walferry; failed %d plain, %d walferry; %d differ, %d known, %d turns of loops in one only; %d files not finished, %d with EXCLUSIVE read as NORMAL; %s\n",
		r.files, r.casesPlain, r.casesOurs, r.plain.failed, r.ours.failed, r.differ, r.expected, r.steps, r.unfinished, r.normal, r.restored)
}

func (r *report) verdict() error {
	if r.differ > 0 || len(r.restored.wrong) > 0 || len(r.problems) > 0 {
		return errors.New("there are differences")
	}
	return nil
}
