package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/verify"
)

var verifyCommand = &command{
	name:    "verify",
	args:    "[-quick] [-dir DIR] [-json] [-q] URL",
	summary: "read a whole replica and say what is damaged",
	run:     runVerify,
	help: `
  URL     where the replica is, as for restore
  -quick  leave out the scratch restore
  -dir D  where the scratch restore is made, and removed afterwards: the directory for
          temporary files by default. It takes the database's size
  -json   one JSON object
  -q      no progress

Every object is downloaded and decoded: its checksum, its pages, its place. Then what
the objects say of each other is compared: nothing is missing between them, merged files
and snapshots hold what the objects hold that they were made of, and the
database has the checksum that objects carry. At last the newest state is restored
and SQLite's integrity_check is run on it.

Exit status: 0 if all is sound, 1 if something is damaged, 2 for a wrong command line,
3 if it could not be found out, as when the store does not answer. From cron:

  walferry verify -q s3://bucket/app || mail -s 'replica of app' root < /dev/null
`,
}

// errDamaged ends a command that has printed what is damaged.
var errDamaged = errors.New("damaged")

// errUnchecked is an error by which a command could not find out what was asked.
type errUnchecked struct{ err error }

func (e *errUnchecked) Error() string { return "not verified: " + e.err.Error() }
func (e *errUnchecked) Unwrap() error { return e.err }

func runVerify(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	fs := c.flags()
	quick := fs.Bool("quick", false, "")
	dir := fs.String("dir", "", "")
	asJSON := fs.Bool("json", false, "")
	quiet := fs.Bool("q", false, "")
	rest, err := c.parse(fs, args, 1, stdout)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return &errUsage{"verify: no URL given: where is the replica?", c}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return &errUnchecked{err}
	}
	p := newProgress(stderr, *quiet)
	p.what = "verifying"
	r, err := verify.Verify(ctx, store, verify.Options{Quick: *quick, Dir: *dir, Progress: p.update})
	p.end()
	if errors.Is(err, context.Canceled) {
		return &errUnchecked{errors.New("interrupted")}
	}
	if err != nil {
		return &errUnchecked{err}
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = printReport(stdout, r)
	}
	if err == nil && !r.Sound {
		return errDamaged
	}
	return err
}

func printReport(w io.Writer, r *verify.Report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("replica", "%s", r.Replica)
	row("read", "%s, %s, in %s", sayCount(r.Objects, "object"), size(r.Bytes), round(r.Duration))
	if r.Restore != nil {
		row("restorable", "%s, %s by a checksum of the whole database", sayCount(r.States, "state"), sayProven(r))
		row("oldest", "TXID %s  %s", r.Oldest.TXID, sayTime(r.Oldest.Time))
		row("newest", "TXID %s  %s", r.Restore.TXID, sayTime(r.Restore.Time))
	} else {
		row("restorable", "nothing")
	}
	if r.Restore == nil || r.Restore.TXID != r.Newest.TXID {
		row("should be", "TXID %s  %s", r.Newest.TXID, sayTime(r.Newest.Time))
	}
	if r.Checked != "not asked" {
		row("integrity", "%s", r.Checked)
	}
	for i, n := range r.Notes {
		if i == 5 {
			row("note", "%d more like these", len(r.Notes)-i)
			break
		}
		row("note", "%s", n)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if r.Sound {
		_, err := fmt.Fprintln(w, "\nSound: nothing is missing, nothing is damaged.")
		return err
	}
	fmt.Fprintf(w, "\nDAMAGED: %s\n", sayCount(len(r.Findings), "finding"))
	moved := false
	for i, x := range r.Findings {
		fmt.Fprintf(w, "\n%d. %s, since TXID %s, %s\n", i+1, x.Kind, x.Since, sayTime(x.Time))
		for _, o := range x.Objects {
			fmt.Fprintf(w, "   %s\n", o)
			moved = true
		}
		foldText(w, "   ", x.Text+".")
		if len(x.Objects) > 0 {
			foldText(w, "   ", sayLost(x.Lost))
		}
	}
	fmt.Fprintln(w)
	if r.Restore == nil {
		_, err := fmt.Fprintln(w, "Nothing can be restored that is known to be right.")
		return err
	}
	foldText(w, "", "The newest state that can be restored is:")
	fmt.Fprintf(w, "  walferry restore -txid %s -o restored.db '%s'\n", strings.TrimLeft(r.Restore.TXID.String(), "0"), r.Replica)
	if moved {
		foldText(w, "", "Move the objects that are named above out of the replica first: a restore may take its way through them.")
	}
	return nil
}

// sayProven says how many of the states are.
func sayProven(r *verify.Report) string {
	switch r.Proven {
	case r.States:
		return "all proven"
	case 0:
		return "none proven"
	}
	return fmt.Sprintf("%s of them proven", humanize.Comma(int64(r.Proven)))
}

// sayLost says what a finding alone makes impossible to restore.
func sayLost(lost []verify.Range) string {
	if len(lost) == 0 {
		return "Costs no state: other objects lead to the same."
	}
	var parts []string
	n := 0
	for i, l := range lost {
		n += l.States
		switch {
		case i == 3:
			parts = append(parts, "…")
		case i > 3:
		case l.From == l.To:
			parts = append(parts, l.From.String())
		default:
			parts = append(parts, fmt.Sprintf("%s to %s", l.From, l.To))
		}
	}
	return fmt.Sprintf("Costs %s: %s.", sayCount(n, "state"), strings.Join(parts, ", "))
}

func sayCount(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Comma(int64(n)) + " " + what + "s"
}

func sayTime(t time.Time) string {
	if t.IsZero() {
		return "(time not known)"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

// foldText prints words in lines of at most 80 columns.
func foldText(w io.Writer, indent, text string) {
	line := indent
	for _, word := range strings.Fields(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > 80 {
			fmt.Fprintln(w, line)
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
