package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/walferry/walferry/internal/compact"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

var compactCommand = &command{
	name:    "compact",
	args:    "[flags] URL",
	summary: "merge a replica's objects, and remove what is old",
	run:     runCompact,
	help: `
  URL      where the replica is; "walferry help restore" has examples

An application that uses walferry does all this itself, after it has written. This
does the same from outside: for a replica whose application has ended or may not
delete, or with other limits. It does no harm beside the application, beside
Litestream or beside itself, and may be interrupted at any time.

What it does, in this order:
  merge     level 0 into level 1, 1 into 2, 2 into 3, once per 30 s, 5 min, 1 h of the
            clock. Every object that is read is verified; nothing is compressed again.
  snapshot  make one of what is there, with nothing read from the database
  remove    what no restore that is to be kept needs; only if all before succeeded

  -snapshot               make a snapshot now, if something has changed since the last
  -snapshot-interval 24h  make one when the newest is as old; 0: never
  -retention 24h          keep what it takes to go back to any moment of the last 24 hours.
                          Also 7d, 2w, and limits of the size: 50GB; of the size in
                          multiples of the database's: 20x; of the number of restore
                          points: 100p; or several: 72h,50GB. "forever" removes nothing.
  -l0-retention 5m        keep level 0, which has every second, for as long after it is merged
  -mark-retention 168h    keep marks, and what they name, for as long; 0: for ever
  -dry-run                show what would be done, and do nothing
  -json                   print one JSON object
  -q                      print nothing unless it fails

Temporary files without a name take the size of a snapshot in $TMPDIR.
`,
}

type compactFlags struct {
	snapshot, dryRun, json, quiet bool

	interval, l0, marks time.Duration
	retention           string
}

func (f *compactFlags) add(fs *flag.FlagSet) {
	fs.BoolVar(&f.snapshot, "snapshot", false, "")
	fs.DurationVar(&f.interval, "snapshot-interval", 24*time.Hour, "")
	fs.StringVar(&f.retention, "retention", "24h", "")
	fs.DurationVar(&f.l0, "l0-retention", 5*time.Minute, "")
	fs.DurationVar(&f.marks, "mark-retention", 168*time.Hour, "")
	fs.BoolVar(&f.dryRun, "dry-run", false, "")
	fs.BoolVar(&f.json, "json", false, "")
	fs.BoolVar(&f.quiet, "q", false, "")
}

// options are those of the compact package.
func (f *compactFlags) options() (compact.Options, error) {
	o := compact.Options{
		Dir: os.TempDir(), Snapshot: f.snapshot, SnapshotInterval: f.interval, DryRun: f.dryRun,
		Policy: history.Policy{L0: f.l0, Marks: f.marks},
	}
	for name, d := range map[string]time.Duration{"snapshot-interval": f.interval, "l0-retention": f.l0, "mark-retention": f.marks} {
		if d < 0 {
			return o, fmt.Errorf("compact: -%s: %s is negative", name, d)
		}
	}
	if f.retention == "forever" {
		o.Policy = history.Policy{}
		return o, nil
	}
	var err error
	if o.Policy.Retention, err = history.ParseLimits(f.retention); err != nil {
		return o, fmt.Errorf("compact: -retention: %w", err)
	}
	return o, nil
}

func runCompact(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	f, fs := new(compactFlags), c.flags()
	f.add(fs)
	rest, err := c.parse(fs, args, 1, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) == 0:
		return &errUsage{"compact: no URL given: where is the replica?", c}
	}
	opts, err := f.options()
	if err != nil {
		return &errUsage{err.Error(), c}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return err
	}
	say := &compactReport{f: f, w: stdout, j: compactJSON{Replica: store.String(), DryRun: f.dryRun}}
	opts.Tell = say.step
	began := time.Now()
	err = compact.Run(ctx, store, opts)
	say.j.Seconds = time.Since(began).Seconds()
	if perr := say.end(err); err == nil {
		err = perr
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; what is done is done, and the replica is whole")
	}
	return err
}

// compactReport says what was done, as it is done.
type compactReport struct {
	f *compactFlags
	w io.Writer
	j compactJSON
}

// compactJSON is the one object that -json prints. TXIDs are 16 hexadecimal digits,
// sizes bytes. Of a dry run an output's size is the most it can be.
type compactJSON struct {
	Replica string        `json:"replica"`
	DryRun  bool          `json:"dry_run,omitempty"`
	Merged  []mergeJSON   `json:"merged"`
	Removed []objectJSON  `json:"removed"`
	Marks   []removedMark `json:"removed_marks"`
	Seconds float64       `json:"seconds"`
	Error   string        `json:"error,omitempty"`
}

type mergeJSON struct {
	objectJSON
	Inputs    int   `json:"inputs"`
	InputSize int64 `json:"input_size"`
}

type removedMark struct {
	Name string    `json:"name"`
	TXID string    `json:"txid"`
	Time time.Time `json:"time"`
}

func (r *compactReport) line(format string, args ...any) {
	if !r.f.quiet && !r.f.json {
		fmt.Fprintf(r.w, format+"\n", args...)
	}
}

// would puts a verb into the mood of a dry run.
func (r *compactReport) would(done, would string) string {
	if r.f.dryRun {
		return "would " + would
	}
	return done
}

func (r *compactReport) step(s compact.Step) {
	if s.Inputs != nil {
		m := mergeJSON{objectJSON: jsonOf(s.Output), Inputs: len(s.Inputs)}
		for _, o := range s.Inputs {
			m.InputSize += o.Size
		}
		r.j.Merged = append(r.j.Merged, m)
		most := ""
		if r.f.dryRun {
			most = "at most "
		}
		what := fmt.Sprintf("%s, %s, into level %d", count(len(s.Inputs), "object"), size(m.InputSize), m.Level)
		verb := r.would("merged", "merge")
		if m.Level == objstore.SnapshotLevel {
			verb, what = r.would("made", "make"), fmt.Sprintf("a snapshot of %s, %s", count(len(s.Inputs), "object"), size(m.InputSize))
		}
		r.line("%s %s: %s-%s, %s%s", verb, what, s.Output.Min, s.Output.Max, most, size(s.Output.Size))
		return
	}
	levels := map[int]int{}
	var bytes [objstore.SnapshotLevel + 1]int64
	for _, o := range s.Removed {
		r.j.Removed = append(r.j.Removed, jsonOf(o))
		levels[o.Level]++
		bytes[o.Level] += o.Size

	}
	for level, n := range bytes {
		if levels[level] > 0 {
			r.line("%s %s of level %d, %s", r.would("removed", "remove"), count(levels[level], "object"), level, size(n))
		}
	}
	for _, m := range s.Marks {
		r.j.Marks = append(r.j.Marks, removedMark{m.Name, m.TXID.String(), m.Time})
		r.line("%s mark %q of %s", r.would("removed", "remove"), m.Name, m.Time.UTC().Format(time.RFC3339))
	}
}

// end says what it came to.
func (r *compactReport) end(err error) error {
	if r.f.json {
		if err != nil {
			r.j.Error = err.Error()
		}
		r.j.Merged, r.j.Removed, r.j.Marks = list(r.j.Merged), list(r.j.Removed), list(r.j.Marks)
		e := json.NewEncoder(r.w)
		e.SetIndent("", "  ")
		return e.Encode(r.j)
	}
	switch nothing := len(r.j.Merged)+len(r.j.Removed)+len(r.j.Marks) == 0; {
	case err != nil:
	case nothing:
		r.line("nothing is due")
	case r.f.dryRun:
		r.line("nothing was written or removed")
	default:
		r.line("done in %s", round(time.Duration(r.j.Seconds*float64(time.Second))))
	}
	return nil
}

func jsonOf(o objstore.Object) objectJSON {
	return objectJSON{o.Level, o.Min.String(), o.Max.String(), o.Size}
}

// list is an empty list rather than none.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
