package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

var shipCommand = &command{
	name:    "ship",
	args:    "[flags] app.db URL",
	summary: "ship a database from outside the application, once or as a sidecar",
	run:     runShip,
	help: `
For an application that cannot load walferry, and to ship what a process has left
behind that has ended. Without -watch what is committed now is shipped, and the command
ends: with status 0 if the replica has all of it, with 1 and the cause otherwise. If another
process ships the database already, it is asked to.

  URL  where the replica is, as for restore; WALFERRY_REPLICA serves too

  -watch            stay until SIGINT or SIGTERM, ship what any program commits, and once
                    more at the end. Between two batches the database is not open here.
                    Where another process ships, wait until it ends and take over.
  -interval D       the window, 10ms to 1h, and how often -watch looks. Default 1s.
  -timeout D        give up after D. Until then a store that does not answer is tried
                    again; without it the first failure is the last, and nothing else has
                    a limit. With -watch it bounds the batch at the end (default 10s).
  -wal auto|keep    auto: switch a database that is not in WAL mode to it, as soon as
                    nobody is at it. keep, the default, says so and ships nothing.
  -takeover         go on with the replica's history though nothing proves that it is this
                    database's; every page is sent. See also adopt.
  -sync-before-ship an fdatasync of the WAL before each object
  -json             the result as one JSON object

Every variable of the VFS (WALFERRY_INTERVAL...) holds here, too; a flag wins.
`,
}

// shipFlags are the command line of a ship.
type shipFlags struct {
	database, url string

	watch, takeover, syncFirst, json bool
	interval, timeout                time.Duration // 0: not given
	wal                              string
}

func (f *shipFlags) add(fs *flag.FlagSet) {
	fs.BoolVar(&f.watch, "watch", false, "")
	fs.BoolVar(&f.takeover, "takeover", false, "")
	fs.BoolVar(&f.syncFirst, "sync-before-ship", false, "")
	fs.BoolVar(&f.json, "json", false, "")
	fs.DurationVar(&f.interval, "interval", 0, "")
	fs.DurationVar(&f.timeout, "timeout", 0, "")
	fs.StringVar(&f.wal, "wal", "keep", "")
}

// check takes the arguments and looks whether they make sense.
func (f *shipFlags) check(args []string) error {
	if len(args) == 0 {
		return errors.New("ship: no database given")
	}
	f.database = args[0]
	switch f.url = os.Getenv("WALFERRY_REPLICA"); {
	case len(args) > 1:
		f.url = args[1]
	case f.url == "":
		return errors.New("ship: no URL given: where is the replica?")
	}
	if _, err := objstore.New(f.url, objstore.Options{}); errors.Is(err, objstore.ErrURL) {
		return fmt.Errorf("ship: %w", err)
	}
	switch {
	case f.wal != "auto" && f.wal != "keep":
		return fmt.Errorf("ship: -wal: %q is not auto or keep", f.wal)
	case f.timeout < 0:
		return fmt.Errorf("ship: -timeout: %v is less than nothing", f.timeout)
	case f.interval != 0 && (f.interval < 10*time.Millisecond || f.interval > time.Hour):
		return fmt.Errorf("ship: -interval: %v is not from 10ms to 1h", f.interval)
	}
	return nil
}
