package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/standby"
)

// followUsage and followHelp belong to the restore command, for its flag -f.
const (
	followUsage = "-f -o standby.db [-follow-interval 1s] [-force] [-json] [-q] URL"

	followHelp = `
With -f restore goes on and follows: FILE is a warm standby. Every state that is
shipped is applied in place, in one transaction, and any SQLite client may read FILE
meanwhile. It has no ledger; beside it FILE-follow says where it is.
  -f       follow, until Ctrl-C, which exits with 0; started again it goes on
           from where it was, also after kill -9
  -follow-interval D   time between two looks at the replica: 1s
  -force   make FILE what the replica holds, whatever it is now. A standby gets the
           differences in one transaction, beside its readers; another file is replaced.
  -json    one JSON object per line

A line is printed when something changes, not while all is well. While the store does
not answer, or an object is missing or damaged, FILE stays as it is and is
followed again as soon as that is possible. A FILE that another program has
written to is left alone: that ends with exit status 1.
To promote a standby, end restore -f, remove FILE-follow, and open FILE with
walferry and takeover=1: it goes on with the replica's history. Or give it a
replica of its own.
`
)

// follows reports that a restore's command line has the flag -f.
func follows(args []string) bool {
	for _, a := range args {
		switch {
		case a == "--":
			return false
		case a == "-f", a == "--f", a == "-f=true", a == "--f=true":
			return true
		}
	}
	return false
}

func runFollow(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	fs := c.flags()
	fs.Bool("f", false, "")
	out := fs.String("o", "", "")
	interval := fs.Duration("follow-interval", time.Second, "")
	force := fs.Bool("force", false, "")
	quiet := fs.Bool("q", false, "")
	asJSON := fs.Bool("json", false, "")
	rest, err := c.parse(fs, args, 1, stdout)
	if bad := new(errUsage); errors.As(err, &bad) {
		return &errUsage{bad.text + " (with -f: walferry restore " + followUsage + ")", c}
	}
	switch {
	case err != nil:
		return err
	case len(rest) == 0:
		return &errUsage{"restore: no URL given: where is the replica?", c}
	case *out == "" || *out == "-":
		return &errUsage{"restore: say with -o which file to keep up to date, as in -f -o standby.db", c}
	case *interval < 10*time.Millisecond || *interval > time.Hour:
		return &errUsage{fmt.Sprintf("restore: -follow-interval %s is not between 10ms and 1h", *interval), c}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return err
	}
	p := newProgress(stderr, *quiet)
	print := func(e standby.Event) {
		p.end()
		if *asJSON {
			_ = json.NewEncoder(stdout).Encode(e)
			return
		}
		fmt.Fprintln(stdout, followLine(e, *out))
	}
	return standby.Follow(ctx, store, *out, standby.Options{
		Interval: *interval, Force: *force, Progress: p.update, Event: print,
	})
}

// followLine tells an event to a person.
func followLine(e standby.Event, out string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Time.Format(time.RFC3339), e.State)
	lag := round(time.Duration(e.LagMs) * time.Millisecond)
	of := e.Of.Format(time.RFC3339)
	switch e.State {
	case standby.Filled:
		fmt.Fprintf(&b, "%s is at TXID %s, of %s, and can be read", out, e.TXID, of)
	case standby.CatchingUp:
		fmt.Fprintf(&b, "%s is at TXID %s, of %s, %s behind", out, e.TXID, of, lag)
	case standby.Following:
		fmt.Fprintf(&b, "%s has the newest TXID, %s, of %s", out, e.TXID, of)
		if e.LagMs > 0 {
			fmt.Fprintf(&b, ", which came here %s later", lag)
		}
	case standby.Stopped:
		fmt.Fprintf(&b, "%s stays at TXID %s, of %s", out, e.TXID, of)
	default:
		fmt.Fprintf(&b, "%s stays at TXID %s, of %s, since now: %s", out, e.TXID, of, e.Cause)
	}
	return b.String()
}
