package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

var restoreCommand = &command{
	name:    "restore",
	args:    "-o out.db [-force] [-q] URL",
	summary: "write the newest state of a replica to a database file",
	run:     runRestore,
	help: `
  URL      where the replica is:
             file:///var/backups/app
             s3://bucket/prefix
             s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1
           Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the
           AWS profile file, or the machine's role.
  -o FILE  the database to write. Beside it a file FILE-ledger is written, by which
           walferry knows that this database may go on with the replica's history;
           keep the two together.
  -force   replace FILE, and its -wal, -shm, -journal and -ledger, if they exist. They
           are replaced when the new ones are complete, and not while a
           program has FILE open.
  -q       no progress

Every file of the replica is verified. If one is damaged or missing the restore
fails, says which, and leaves FILE as it was. The result is also printed as one
line on standard output. Replicas that Litestream wrote are restored as well.
`,
}

func runRestore(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	fs := c.flags()
	out := fs.String("o", "", "")
	force := fs.Bool("force", false, "")
	quiet := fs.Bool("q", false, "")
	rest, err := c.parse(fs, args, 1, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) == 0:
		return &errUsage{"restore: no URL given: where is the replica?", c}
	case *out == "":
		return &errUsage{"restore: say with -o which file to write, as in -o app.db", c}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return err
	}
	p := newProgress(stderr, *quiet)
	r, err := restore.Restore(ctx, store, *out, restore.Options{Force: *force, Progress: p.update})
	p.end()
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; nothing was changed")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "restored %s to %s: TXID %s, %s in %d pages of %d bytes, from %d objects in %s; newest object of %s\n",
		store, *out, r.TXID, size(r.Size()), r.Pages, r.PageSize, r.Objects, round(r.Duration), r.Time.UTC().Format(time.RFC3339Nano))
	return err
}
