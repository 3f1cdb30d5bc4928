// Command soak runs walferry for as long as it is asked to, under a mixed load and with faults
// that come and go, and looks whether anything grows.
//
//	go run ./internal/soak [-duration 3m] [-opens 100000] [-many 1000] [-seed N] [-server versitygw]
//
// # The load
//
// Several databases, each with two processes: one that stays and one that is killed and started
// again. Both insert, change and delete, so that a database stays about as large as it is,
// checkpoint, VACUUM, and now and then close and open. The store is an S3 server behind a proxy
// that by turns works, refuses, stalls, and loses replies. At the end the store works again, and
// each replica must restore to its database, byte for byte.
//
// # What must stay flat
//
// Once a second each process that stays tells its memory, descriptors, threads and goroutines,
// and the parent looks at the files beside each database. The median of the last fifth of the
// samples may exceed that of the second fifth, when everything has warmed up, by the slack that
// is printed beside it (flat.go).
//
// Two more figures are taken apart: what a hundred thousand opens and closes in one process
// leave behind, and what a thousand databases cost that are open at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// childEnv makes this program one of the soak's own processes.
const childEnv = "WALFERRY_SOAK_CHILD"

func main() {
	childMain()
	var c config
	flag.DurationVar(&c.duration, "duration", 3*time.Minute, "of the mixed load; 0: none")
	flag.IntVar(&c.databases, "databases", 3, "of the mixed load")
	flag.IntVar(&c.opens, "opens", 100_000, "opens and closes in one process; 0: none")
	flag.IntVar(&c.many, "many", 1000, "databases that are open in one process; 0: none")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "of all chance")
	flag.StringVar(&c.server, "server", "dist/tools/versitygw", "the S3 server's binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\n", err)
		os.Exit(1)
	}
}

// childMain does a child's work, and returns only where this is no child.
func childMain() {
	if task := os.Getenv(childEnv); task != "" {
		if err := child(task, os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "soak %s: %v\n", task, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

type config struct {
	duration               time.Duration
	databases, opens, many int
	seed                   uint64
	server                 string
}

func run(ctx context.Context, c config) error {
	fmt.Printf("seed %d\n", c.seed)
	var errs []error
	if c.duration > 0 {
		errs = append(errs, load(ctx, c))
	}
	for _, task := range []struct {
		name string
		n    int
	}{{"opens", c.opens}, {"many", c.many}} {
		if task.n > 0 && ctx.Err() == nil {
			errs = append(errs, alone(ctx, task.name, task.n))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}
