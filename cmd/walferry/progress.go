package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3" // a bar that knows terminals' widths, for one screen of code
	"golang.org/x/term"
)

// plainEvery is how often a log that is no terminal gets a line: rarely enough
// that a short restore writes none.
const plainEvery = 5 * time.Second

// progress shows how far a restore is: as a bar on a terminal, else as a line
// now and then.
type progress struct {
	w     io.Writer
	what  string // is being done
	quiet bool
	tty   bool
	bar   *progressbar.ProgressBar
	last  time.Time
}

func newProgress(w io.Writer, quiet bool) *progress {
	p := &progress{w: w, what: "restoring", quiet: quiet, last: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.tty = term.IsTerminal(int(f.Fd()))
	}
	return p
}

// update is a restore's Options.Progress.
func (p *progress) update(done, total int64) {
	switch {
	case p.quiet || total == 0:
	case p.tty:
		if p.bar == nil || done == 0 {
			p.bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(p.w),
				progressbar.OptionSetDescription(p.what),
				progressbar.OptionShowBytes(true),
				progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionFullWidth(),
				progressbar.OptionClearOnFinish(),
			)
		}
		_ = p.bar.Set64(done)
	case time.Since(p.last) >= plainEvery:
		p.last = time.Now()
		fmt.Fprintf(p.w, "%s: %s of %s, %d %%\n", p.what, size(done), size(total), done*100/total)
	}
}

// end removes the bar.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// round leaves of a duration what a reader wants to know.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
