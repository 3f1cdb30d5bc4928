package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
	"github.com/walferry/walferry/internal/sqlcheck"
)

var adoptCommand = &command{
	name:    "adopt",
	args:    "[-newer] app.db URL",
	summary: "go on with a replica that Litestream has written",
	run:     runAdopt,
	help: `
  app.db  the database
  URL     its replica, as for restore
  -newer  the database is a later state of what the replica holds: what differs, at
          most half of the pages, ships when walferry opens it

The whole replica is read, and compared page by page with the database. If they are the
same, app.db gets a ledger by which walferry goes on with the replica's history; it does
not upload the database again. Without that a database whose replica it did not
write itself stays unclaimed, and nothing ships.

End the program that has been writing the replica first, and let it ship what there is.
The other way round nothing is needed: litestream replicate goes on with a replica of ours.
`,
}

func runAdopt(ctx context.Context, c *command, args []string, stdout, _ io.Writer) error {
	fs := c.flags()
	newer := fs.Bool("newer", false, "")
	rest, err := c.parse(fs, args, 2, stdout)
	switch {
	case err != nil:
		return err
	case len(rest) < 2:
		return &errUsage{"adopt: name the database and the URL of its replica", c}
	}
	store, err := objstore.New(rest[1], objstore.Options{})
	if errors.Is(err, objstore.ErrURL) {
		return &errUsage{err.Error(), c}
	} else if err != nil {
		return err
	}
	var snapshot *sqlcheck.Snapshot
	defer func() {
		if snapshot != nil {
			snapshot.Close()
		}
	}()
	a, err := restore.Adopt(ctx, store, rest[0], *newer, func(ctx context.Context) (restore.Local, error) {
		if snapshot, err = sqlcheck.OpenSnapshot(ctx, rest[0]); err != nil {
			return restore.Local{}, err
		}
		return restore.Local{PageSize: snapshot.PageSize, Pages: snapshot.Pages, Each: snapshot.Each}, nil
	})
	if err != nil {
		return err
	}
	same := "they are the same"
	if a.Differ > 0 {
		same = fmt.Sprintf("%d pages differ, which ship when walferry opens it", a.Differ)
	}
	_, err = fmt.Fprintf(stdout, "adopted %s for %s: TXID %s, %d pages compared, %s\n", store, rest[0], a.TXID, a.Pages, same)
	return err
}
