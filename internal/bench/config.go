package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/dustin/go-humanize"
)

// config is what the command line asks for.
type config struct {
	Rounds   int            // rounds of each comparison
	Only     *regexp.Regexp // measurements to take, by name
	Control  bool           // the second side is the plain VFS again
	Dir      string         // where the scratch directory is made
	Interval time.Duration  // walferry's window
	sizes
	tools
}

// sizes says how much of everything is measured; -quick makes all of it small.
type sizes struct {
	Load     time.Duration // how long a write load lasts on the plain side
	Mid      size          // the database of page updates and reads
	Big      size          // the database of the first snapshot and the restore
	Commits  int           // commits whose way to the replica is watched
	Idle     time.Duration // how long the idle databases are watched
	IdleMany int           // how many idle databases are "many"
}

// tools are the programs and files beside this one.
type tools struct {
	Extension  string // walferry.so
	Command    string // walferry
	Python     string // an interpreter whose sqlite3 module loads extensions
	Litestream string // empty: no third side
}

// full is what the goals are stated for; quick is a smoke test of the program itself.
var (
	full = sizes{
		Load: 3500 * time.Millisecond, Mid: 100e6, Big: 1e9,
		Commits: 40, Idle: time.Minute, IdleMany: 100,
	}
	quick = sizes{
		Load: 400 * time.Millisecond, Mid: 8e6, Big: 24e6,
		Commits: 4, Idle: 3 * time.Second, IdleMany: 10,
	}
)

const (
	fullRounds  = 9
	quickRounds = 2
)

// size is a number of bytes that can be given as 1GB or 512MiB.
type size uint64

func (s size) String() string { return humanize.Bytes(uint64(s)) }

// Set implements flag.Value.
func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil {
		return err
	}
	if n < 1e6 {
		return errors.New("must be at least 1MB")
	}
	*s = size(n)
	return nil
}

// parseConfig reads the command line, and ends the program if it is not understood or asks for help.
func parseConfig(args []string) (config, error) {
	cfg := config{sizes: full, tools: tools{Litestream: os.Getenv("LITESTREAM")}}
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	small := fs.Bool("quick", false, "few rounds and small sizes: a smoke test, not a measurement")
	fs.IntVar(&cfg.Rounds, "rounds", 0, "rounds of each comparison (default 9, with -quick 2)")
	only := fs.String("only", "", "take only the measurements whose name matches this `regexp`")
	fs.BoolVar(&cfg.Control, "control", false, "measure plain against plain: the noise of this machine")
	fs.StringVar(&cfg.Dir, "dir", ".", "make the scratch directory in `dir`; it should be a real disk")
	fs.DurationVar(&cfg.Interval, "interval", time.Second, "walferry's interval")
	big, idle := full.Big, full.Idle
	fs.Var(&big, "size", "`size` of the big database (with -quick 24MB)")
	fs.DurationVar(&idle, "idle", idle, "how long idle databases are watched (with -quick 3s)")
	fs.StringVar(&cfg.Extension, "extension", "dist/walferry.so", "the loadable extension")
	fs.StringVar(&cfg.Command, "walferry", "dist/walferry", "the command")
	fs.StringVar(&cfg.Python, "python", "/usr/bin/python3", "a python3 whose sqlite3 loads extensions")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Measure walferry against the plain VFS; LITESTREAM=path adds litestream.\n")
		fs.PrintDefaults()
		fmt.Fprintf(fs.Output(), "Measurements:\n")
		for _, m := range measurements() {
			fmt.Fprintf(fs.Output(), "  %s\n", m.name)
		}
	}
	_ = fs.Parse(args) // exits on an error
	if fs.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}

	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["rounds"] {
		cfg.Rounds = fullRounds
	}
	if *small {
		cfg.sizes = quick
		if !given["rounds"] {
			cfg.Rounds = quickRounds
		}
	}
	if given["size"] || !*small {
		cfg.Big = big
	}
	if given["idle"] || !*small {
		cfg.Idle = idle
	}
	if cfg.Rounds < 1 {
		return config{}, fmt.Errorf("-rounds %d: must be at least 1", cfg.Rounds)
	}
	if cfg.Idle <= 0 {
		return config{}, fmt.Errorf("-idle %v: must be positive", cfg.Idle)
	}
	if cfg.Interval < 10*time.Millisecond || cfg.Interval > time.Hour {
		return config{}, fmt.Errorf("-interval %v: must be between 10ms and 1h", cfg.Interval)
	}
	var err error
	if cfg.Only, err = regexp.Compile(*only); err != nil {
		return config{}, fmt.Errorf("-only: %w", err)
	}
	return cfg, nil
}
