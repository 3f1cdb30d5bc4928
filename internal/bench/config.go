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
	history
	reading
}

// history is how much of section "history" is measured.
type history struct {
	Files   int           // level 0 objects of a long history
	Watch   time.Duration // how long requests are counted, to be scaled to an hour
	Uplink  int64         // bytes a second at which a snapshot uploads under writes
	Repeats int           // rounds of what takes minutes, if not fewer are asked for
}

// reading is how much of section "replica" is measured.
type reading struct {
	Points int           // rows that are read, one by one
	Part   size          // of the database that is scanned with both programs
	Warm   time.Duration // how long reads of pages that are in memory are repeated
}

// tools are the programs and files beside this one.
type tools struct {
	Extension  string // walferry.so
	Command    string // walferry
	Python     string // an interpreter whose sqlite3 module loads extensions
	Litestream string // empty: no third side
	Versitygw  string // the S3 server; `make tools` builds it

	LitestreamVFS string // its loadable extension; empty: section "replica" has no such side
}

// full is what the goals are stated for; quick is a smoke test of the program itself.
var (
	full = sizes{
		Load: 3500 * time.Millisecond, Mid: 100e6, Big: 1e9,
		Commits: 40, Idle: time.Minute, IdleMany: 100,
		history: history{Files: 10_000, Watch: 150 * time.Second, Uplink: 5e6, Repeats: 3},
		reading: reading{Points: 1000, Part: 8e6, Warm: 2 * time.Second},
	}
	quick = sizes{
		Load: 400 * time.Millisecond, Mid: 8e6, Big: 24e6,
		Commits: 4, Idle: 2 * time.Second, IdleMany: 10,
		history: history{Files: 200, Watch: 2 * time.Second, Uplink: 24e6, Repeats: 1},
		reading: reading{Points: 50, Part: 1e6, Warm: 200 * time.Millisecond},
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
	cfg := config{sizes: full, tools: tools{Litestream: os.Getenv("LITESTREAM"), LitestreamVFS: os.Getenv("LITESTREAM_VFS")}}
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	small := fs.Bool("quick", false, "few rounds and small sizes: a smoke test, not a measurement")
	fs.IntVar(&cfg.Rounds, "rounds", 0, "rounds of each comparison (default 9, with -quick 2)")
	only := fs.String("only", "", "take only the measurements whose name matches this `regexp`")
	fs.BoolVar(&cfg.Control, "control", false, "measure plain against plain: the noise of this machine")
	fs.StringVar(&cfg.Dir, "dir", ".", "make the scratch directory in `dir`; it should be a real disk")
	fs.DurationVar(&cfg.Interval, "interval", time.Second, "walferry's interval")
	big, idle, files, watch := full.Big, full.Idle, full.Files, full.Watch
	fs.Var(&big, "size", "`size` of the big database (with -quick 24MB)")
	fs.DurationVar(&idle, "idle", idle, "how long idle databases are watched (with -quick 2s)")
	fs.IntVar(&files, "files", files, "level 0 objects of a long history (with -quick 200)")
	fs.DurationVar(&watch, "watch", watch, "how long requests are counted (with -quick 2s)")
	fs.StringVar(&cfg.Extension, "extension", "dist/walferry.so", "the loadable extension")
	fs.StringVar(&cfg.Command, "walferry", "dist/walferry", "the command")
	fs.StringVar(&cfg.Versitygw, "versitygw", "dist/tools/versitygw", "the S3 server, as make tools builds it")
	fs.StringVar(&cfg.Python, "python", "/usr/bin/python3", "a python3 whose sqlite3 loads extensions")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Measure walferry against the plain VFS; LITESTREAM=path adds litestream, LITESTREAM_VFS=path its VFS.\n")
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
	if given["files"] || !*small {
		cfg.Files = files
	}
	if given["watch"] || !*small {
		cfg.Watch = watch
	}
	if cfg.Files < 1 {
		return config{}, fmt.Errorf("-files %d: must be at least 1", cfg.Files)
	}
	if cfg.Watch < time.Second {
		return config{}, fmt.Errorf("-watch %v: must be at least 1s", cfg.Watch)
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
