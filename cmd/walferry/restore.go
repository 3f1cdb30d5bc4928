package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
	"github.com/walferry/walferry/internal/sqlcheck"
)

var restoreCommand = &command{
	name:    "restore",
	args:    "-o out.db [flags] URL",
	summary: "write a replica's newest or an older state to a file",
	run:     runRestore,
	help: `
  URL      where the replica is:
             file:///var/backups/app
             s3://bucket/prefix
             s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1
           Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the
           AWS profile file, or the machine's role.
  -o FILE  the database to write; - is standard output, where the database goes once
           all of it is verified (until then it takes its size in $TMPDIR)

Which state; without any of these the newest:
  -timestamp T  the last one at or before T: 2026-01-31T14:30:00Z, "2026-01-31 14:30",
                "5 minutes ago", "yesterday 14:30"; a T in the future is the newest
  -txid N       a TXID, in hexadecimal as in the names of objects; leading zeros
                may be left out
  -mark NAME    where SELECT walferry_mark('NAME') was called

What to do:
  -force    replace FILE, and its -wal, -shm, -journal and -ledger, if they exist. They
            are replaced when the new ones are complete, and not while a
            program has FILE open.
  -delta    replace FILE likewise, but keep those of its pages that are the replica's, by
            what FILE-ledger tells of them, and download only the others. What the
            -wal holds is discarded. Where that is not possible all is
            downloaded, and a line says why.
  -dry-run  show what would be downloaded, and write nothing
  -check none|quick|full
            run PRAGMA quick_check or integrity_check on the result before it gets
            its name. Every file of the replica is verified anyway; this finds damage that
            the database had before it was replicated. Default none.
  -if-db-not-exists   do nothing, successfully, if FILE exists
  -if-replica-exists  do nothing, successfully, if the replica holds nothing
  -json     the result, or the plan of -dry-run, as one JSON object
  -q        no progress

If a file of the replica is damaged or missing the restore fails, says which, and
leaves FILE as it was. The result is printed as one line on standard output, with -o -
on standard error. Replicas that Litestream wrote are restored as well.

The newest state comes with a file FILE-ledger, by which walferry knows that this
database may go on with the replica's history; keep the two together. An older state has
none: opened with walferry on the same replica it ships nothing, so that it cannot
overwrite what came after it. To go on from it give it another replica, or
open it with takeover=1.
` + followHelp,
}

// restoreFlags are the command line of a restore.
type restoreFlags struct {
	out, timestamp, txid, mark, check string

	force, delta, dryRun, quiet, json bool
	ifNoDB, ifReplica                 bool
}

func (f *restoreFlags) add(fs *flag.FlagSet) {
	fs.StringVar(&f.out, "o", "", "")
	fs.StringVar(&f.timestamp, "timestamp", "", "")
	fs.StringVar(&f.txid, "txid", "", "")
	fs.StringVar(&f.mark, "mark", "", "")
	fs.StringVar(&f.check, "check", "none", "")
	fs.BoolVar(&f.force, "force", false, "")
	fs.BoolVar(&f.delta, "delta", false, "")
	fs.BoolVar(&f.dryRun, "dry-run", false, "")
	fs.BoolVar(&f.json, "json", false, "")
	fs.BoolVar(&f.quiet, "q", false, "")
	fs.BoolVar(&f.ifNoDB, "if-db-not-exists", false, "")
	fs.BoolVar(&f.ifReplica, "if-replica-exists", false, "")
}

// target is what state the flags name.
func (f *restoreFlags) target(now time.Time) (t history.Target, err error) {
	named := 0
	for _, s := range []string{f.timestamp, f.txid, f.mark} {
		if s != "" {
			named++
		}
	}
	if named > 1 {
		return t, errors.New("restore: give one of -timestamp, -txid and -mark")
	}
	t.Mark = f.mark
	if f.timestamp != "" {
		if t.Time, err = history.ParseTime(f.timestamp, now); err != nil {
			return t, fmt.Errorf("restore: -timestamp: %w", err)
		}
	}
	if f.txid != "" {
		n, err := strconv.ParseUint(f.txid, 16, 64)
		if err != nil || n == 0 {
			return t, fmt.Errorf("restore: -txid: %q is no TXID: up to 16 hexadecimal digits, not zero", f.txid)
		}
		t.TXID = ltx.TXID(n)
	}
	return t, nil
}

// options are those of the restore package.
func (f *restoreFlags) options(target history.Target, progress func(done, total int64)) (restore.Options, error) {
	o := restore.Options{Target: target, Force: f.force, Delta: f.delta, Progress: progress}
	switch f.check {
	case "none":
	case "quick", "full":
		o.Check = func(ctx context.Context, path string) ([]string, error) {
			return sqlcheck.Check(ctx, path, f.check == "full")
		}
	default:
		return o, fmt.Errorf("restore: -check: %q is not none, quick or full", f.check)
	}
	return o, nil
}

func runRestore(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	if follows(args) {
		return runFollow(ctx, c, args, stdout, stderr)
	}
	f, fs := new(restoreFlags), c.flags()
	f.add(fs)
	rest, err := c.parse(fs, args, 1, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) == 0:
		return &errUsage{"restore: no URL given: where is the replica?", c}
	case f.out == "" && !f.dryRun:
		return &errUsage{"restore: say with -o which file to write, as in -o app.db", c}
	case f.out == "-" && f.delta:
		return &errUsage{"restore: -delta needs a file to begin with, and -o - is none", c}
	}
	target, err := f.target(time.Now())
	if err != nil {
		return &errUsage{err.Error(), c}
	}
	p := newProgress(stderr, f.quiet)
	opts, err := f.options(target, p.update)
	if err != nil {
		return &errUsage{err.Error(), c}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return err
	}
	say := &report{f: f, replica: store.String(), stdout: stdout, stderr: stderr}
	if f.out == "-" {
		say.stdout = stderr
	}
	if f.ifNoDB && f.out != "-" {
		if _, err := os.Lstat(f.out); err == nil {
			return say.nothing(fmt.Sprintf("%s exists", f.out))
		}
	}
	if f.dryRun {
		err = say.plan(ctx, store, target)
	} else {
		var r restore.Result
		if f.out == "-" {
			r, err = restore.Stream(ctx, store, stdout, opts)
		} else {
			r, err = restore.Restore(ctx, store, f.out, opts)
		}
		p.end()
		if err == nil {
			err = say.result(r)
		}
	}
	switch {
	case errors.Is(err, history.ErrNothing) && f.ifReplica:
		return say.nothing(fmt.Sprintf("%s holds no database", store))
	case errors.Is(err, context.Canceled) && f.out == "-":
		return errors.New("interrupted")
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; nothing was changed")
	}
	return err
}
