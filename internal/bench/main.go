// Command bench measures walferry against the plain unix VFS on this machine and prints one table.
//
//	go run ./internal/bench [-quick] [-rounds 9] [-only REGEX] [-size 1GB] [-dir DIR]
//	LITESTREAM=/path/to/litestream go run ./internal/bench
//	go run ./internal/bench -only history [-files 10000] [-watch 150s]
//	LITESTREAM_VFS=dist/tools/litestream-vfs.so go run ./internal/bench -only replica
//
// # How it measures
//
// Each side of each round is a child process of its own, this program started again, so that its
// processor time, its peak memory and its stalls are its own. Every round works on a fresh copy of
// the same database, and the order of the sides turns from round to round (A B, B A, …), so that a
// machine that warms up or slows down does so for both. A figure is the median over the rounds. A
// ratio is taken inside each round, and the median of those ratios is shown. Before each measured
// stretch the first snapshot is in the replica and the disk is flushed.
//
// With LITESTREAM set, a third side is the plain VFS with litestream running beside the child. The
// section "history" compares with it directly: both programs do the same work, and no plain
// side could. Its S3 server is versitygw, on this machine; where a network is measured, toxiproxy
// stands before it. With -control the second side is the plain VFS again: its ratios are the noise
// of the machine, and a difference smaller than that was not measured.
//
// The section "replica" reads a replica where it lies, with walferry's VFS and, where LITESTREAM_VFS
// names it, litestream's: one bucket, one script, the same rows, and for each an interpreter
// that has loaded nothing else. Both are as they come, without options. The server is 20 ms away, to which a
// connection costs nothing to make. Requests and bytes are what the server sees and sends.
//
// # What it promises
//
// Every number in the table comes from the run that printed it. What could not be measured because
// lz4 is missing says so in its row. The exit status is 0 when goals are missed, because this is
// a report, and 1 when a measurement failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childCommand {
		if err := runChild(os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[2], err)
			os.Exit(1)
		}
		return
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run parses args, takes the measurements that were asked for and prints the table. Its error names
// the measurements that failed; the table has been printed all the same.
func run(ctx context.Context, args []string) (err error) {
	cfg, err := parseConfig(args)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	describeMachine(os.Stdout, b)
	failed := b.runAll()
	b.table.print(os.Stdout)
	fmt.Printf("\nload average at the end: %s\n", loadAverage())
	return failed
}
