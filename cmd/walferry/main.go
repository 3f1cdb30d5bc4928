// Command walferry restores databases that the walferry VFS has replicated, keeps
// their replicas small, and shows how their replication is doing. The replication
// itself runs inside the application that uses the database; nothing here is needed
// for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/walferry/walferry/internal/version"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // of verify: something is damaged
	exitUsage   = 2
	exitUnknown = 3 // of verify: it could not be found out
)

// command is one of walferry's commands, in a file of its own.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error
	help                string
}

var commands = []*command{restoreCommand, lsCommand, verifyCommand, compactCommand, shipCommand, adoptCommand, statusCommand, versionCommand}

var versionCommand = &command{
	name:    "version",
	summary: "print the version",
	run: func(_ context.Context, c *command, args []string, stdout, _ io.Writer) error {
		if _, err := c.parse(c.flags(), args, 0, stdout); err != nil {
			return err
		}
		_, err := fmt.Fprintln(stdout, "walferry", version.Version)
		return err
	},
}

// errUsage is returned when the command line cannot be understood; its text says
// what is wrong with it.
type errUsage struct {
	text string
	c    *command // nil: none was recognised
}

func (e *errUsage) Error() string { return e.text }

// errHelped ends a command whose help was asked for, and printed.
var errHelped = errors.New("help was printed")

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // memory counts for more here than the 2 % of time that this costs
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what the first could not
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	usage := new(errUsage)
	switch {
	case err == nil, errors.Is(err, errHelped):
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "walferry:", err)
		if usage.c != nil {
			fmt.Fprintf(stderr, "usage: %s\n`walferry help %s` explains.\n", usage.c.usage(), usage.c.name)
		} else {
			fmt.Fprintln(stderr, "`walferry help` lists the commands.")
		}
		return exitUsage
	case errors.Is(err, errDamaged):
		return exitFailure // all is said
	}
	fmt.Fprintln(stderr, "walferry:", err)
	if unchecked := new(errUnchecked); errors.As(err, &unchecked) {
		return exitUnknown
	}
	return exitFailure
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return &errUsage{text: "no command given"}
	}
	switch name, rest := args[0], args[1:]; name {
	case "help", "-h", "-help", "--help":
		if len(rest) == 0 {
			return overview(stdout)
		}
		c := find(rest[0])
		if c == nil {
			return &errUsage{text: fmt.Sprintf("there is no command %q", rest[0])}
		}
		return c.printHelp(c.flags(), stdout)
	case "-version", "--version":
		return versionCommand.run(ctx, versionCommand, rest, stdout, stderr)
	default:
		c := find(name)
		if c == nil {
			return &errUsage{text: fmt.Sprintf("there is no command %q", name)}
		}
		return c.run(ctx, c, rest, stdout, stderr)
	}
}

func find(name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}

func overview(w io.Writer) error {
	fmt.Fprint(w, `walferry replicates SQLite databases to object storage, from inside the
application that writes them. This program brings them back.

`)
	for _, c := range commands {
		fmt.Fprintf(w, "  walferry %-42s %s\n", c.name+" "+c.args, c.summary)
	}
	_, err := fmt.Fprintf(w, "  walferry %-42s %s\n", "help [command]", "explain a command")
	return err
}

func (c *command) usage() string { return "walferry " + c.name + " " + c.args }

// flags is an empty set of flags for c. The commands add theirs to it.
func (c *command) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads flags and n arguments, in any order.
func (c *command) parse(fs *flag.FlagSet, args []string, n int, stdout io.Writer) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, errors.Join(errHelped, c.printHelp(fs, stdout))
		} else if err != nil {
			return nil, &errUsage{err.Error(), c}
		}
		// After -- or at the end there is nothing to parse any more.
		at := len(args) - fs.NArg()
		if fs.NArg() == 0 || at > 0 && args[at-1] == "--" {
			rest = append(rest, fs.Args()...)
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	if len(rest) > n {
		return nil, &errUsage{fmt.Sprintf("%s: what is %q for?", c.name, rest[n]), c}
	}
	return rest, nil
}

func (c *command) printHelp(fs *flag.FlagSet, w io.Writer) error {
	_, err := fmt.Fprintf(w, "usage: %s\n\n%s: %s.\n%s", c.usage(), c.name, c.summary, c.help)
	return err
}
