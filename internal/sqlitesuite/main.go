// Command sqlitesuite runs SQLite's own tests twice, over the plain VFS and over
// walferry while it replicates, and compares the results case by case. Each database
// in WAL mode that a test leaves or deletes is restored from its replica and compared.
//
// build.sh brings the tests and links them, driver.tcl runs one file, known.txt lists
// the cases that may differ and why.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

type config struct {
	root     string // of the built tests
	walferry string // the command line, for restore and ship
	scratch  string
	logs     string
	timeout  time.Duration
	aside    int  // databases that are compared of one file
	keep     bool // ledgers and replicas outlive their databases
	cached   bool
	known    known
}

func main() {
	var c config
	dist := flag.String("dist", "dist", "directory with what was built")
	set := flag.String("set", "quick", "quick, full, or a suite of permutations.test such as veryquick")
	files := flag.String("files", "", "instead of a set: names or patterns, with spaces")
	skip := flag.String("skip", "", "names or patterns to leave out")
	modes := flag.String("modes", "asis wal", "asis: as the tests are written; wal: each connection in WAL mode")
	jobs := flag.Int("jobs", max(1, runtime.NumCPU()/2), "files at a time; each is two processes")
	flag.DurationVar(&c.timeout, "timeout", 10*time.Minute, "of one file")
	flag.IntVar(&c.aside, "databases", 100, "most databases that are set aside and compared of one file")
	flag.StringVar(&c.scratch, "scratch", os.TempDir(), "where the tests run")
	flag.BoolVar(&c.keep, "keep-ledgers", false, "leave ledgers and replicas where the tests delete a database and make another of its name")
	flag.BoolVar(&c.cached, "cached", false, "take results of the plain VFS of an earlier run")
	flag.Parse()
	if err := c.run(*dist, *set, *files, *skip, strings.Fields(*modes), *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "sqlitesuite:", err)
		os.Exit(1)
	}
}

func (c *config) run(dist, set, patterns, skip string, modes []string, jobs int) (err error) {
	dist, err = filepath.Abs(dist)
	if err != nil {
		return err
	}
	c.root = filepath.Join(dist, "sqlite", "current")
	c.walferry = filepath.Join(dist, "walferry")
	c.logs = filepath.Join(dist, "sqlite", "logs")
	if c.known, err = readKnown("internal/sqlitesuite/known.txt"); err != nil {
		return err
	}
	if c.scratch, err = os.MkdirTemp(c.scratch, "sqlitesuite-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.scratch)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	files, err := c.choose(ctx, set, strings.Fields(patterns), strings.Fields(skip))
	if err != nil {
		return err
	}

	type job struct{ file, mode string }
	queue := make(chan job)
	var total report
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range jobs {
		workers.Go(func() {
			for j := range queue {
				r := c.file(ctx, j.file, j.mode)
				if ctx.Err() != nil {
					continue // half a run says nothing
				}
				mu.Lock()
				fmt.Print(r.String())
				total.add(r)
				mu.Unlock()
			}
		})
	}
	for _, mode := range modes {
		for _, f := range files {
			if ctx.Err() == nil {
				queue <- job{f, mode}
			}
		}
	}
	close(queue)
	workers.Wait()
	fmt.Print(total.summary())
	if err := ctx.Err(); err != nil {
		return err
	}
	return total.verdict()
}
