//go:build !cgo

package main

import (
	"context"
	"errors"
	"io"
)

// runShip is of builds without cgo, which have no VFS.
func runShip(_ context.Context, c *command, args []string, stdout, _ io.Writer) error {
	f, fs := new(shipFlags), c.flags()
	f.add(fs)
	rest, err := c.parse(fs, args, 2, stdout)
	if err != nil {
		return err
	}
	if err := f.check(rest); err != nil {
		return &errUsage{err.Error(), c}
	}
	return errors.New("ship: this walferry was built without cgo, and shipping needs SQLite's own C code: " +
		"build it with `make build` and a C compiler, or CGO_ENABLED=1 go build ./cmd/walferry; everything else works in this one")
}
