package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/shipper"
)

var statusCommand = &command{
	name:    "status",
	args:    "[-json] app.db",
	summary: "show how a database's replication is doing",
	run:     runStatus,
	help: `
  -json  one JSON object, with the fields of PRAGMA walferry_status

Only the ledger beside the database, app.db-ledger, is read: the database is not opened,
and it does not matter whether a program is using it.
`,
}

func runStatus(_ context.Context, c *command, args []string, stdout, _ io.Writer) error {
	flags := c.flags()
	asJSON := flags.Bool("json", false, "")
	rest, err := c.parse(flags, args, 1, stdout)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return &errUsage{"status: no database given", c}
	}
	s, err := readStatus(rest[0])
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	return printStatus(stdout, rest[0], s)
}

func readStatus(database string) (shipper.Status, error) {
	path := database
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // beside which the ledger lies
	}
	l, err := ledger.OpenReadOnly(path)
	if errors.Is(err, fs.ErrNotExist) {
		return shipper.Status{}, fmt.Errorf("%s has no ledger: it has not been opened with walferry", database)
	}
	if err != nil {
		return shipper.Status{}, err
	}
	defer l.Close()
	if err := l.Check(); err != nil {
		return shipper.Status{}, fmt.Errorf("%s%s says nothing: %w; the next program that opens the database with walferry mends it", database, ledger.Suffix, err)
	}
	return shipper.ReadStatus(l), nil
}

func printStatus(w io.Writer, database string, s shipper.Status) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("database", "%s", database)
	row("replica", "%s", s.Replica)
	state := s.State
	if s.Cause != "" {
		state += ": " + s.Cause
	}
	row("state", "%s", state)
	row("newest object", "TXID %s", s.TXID)
	row("behind", "%s", behind(s))
	if s.ShipperPID != 0 {
		row("shipper", "process %d%s", s.ShipperPID, heard(s))
	} else {
		row("shipper", "none: no program has the database open with walferry")
	}
	if s.LastError != "" {
		row("last error", "%s (since %s)", s.LastError, s.ErrorSince)
	}
	if s.Undone != "" {
		row("undone", "a crash took back TXIDs %s, which had been shipped", s.Undone)
	}
	if s.Batches > 0 {
		row("shipped", "%s in %d batches, %d requests, since the shipper started", size(int64(s.Bytes)), s.Batches, s.Requests)
	}
	if s.Conditional == "no" {
		row("warning", "the store ignores conditional writes: it cannot tell two writers apart")
	}
	return tw.Flush()
}

// behind says what the store lacks.
func behind(s shipper.Status) string {
	var parts []string
	if s.LagMs > 0 {
		parts = append(parts, fmt.Sprint(round(time.Duration(s.LagMs)*time.Millisecond)))
	}
	switch {
	case s.AllPending:
		parts = append(parts, "every page is to be compared with the replica")
	case s.Pending > 0:
		parts = append(parts, fmt.Sprintf("%d pages to ship", s.Pending))
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// heard says when the shipper last was heard of.
func heard(s shipper.Status) string {
	if s.HeartbeatMs == 0 {
		return ""
	}
	ago := time.Since(time.UnixMilli(int64(s.HeartbeatMs)))
	return fmt.Sprintf(", last heard of %s ago", round(max(0, ago)))
}
