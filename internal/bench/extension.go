package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
)

//go:embed load.py
var loadScript string

// loaded is what load.py printed: nanoseconds and bytes.
type loaded struct {
	Load, Open            float64
	Before, Loaded, After float64
}

// measureExtension measures the loadable extension as it lies there: its size, and what a host pays
// for loading it and for its first replicated database.
func measureExtension(b *bench) error {
	if b.Control {
		b.table.skip("walferry.so", notShipping)
		return nil
	}
	extension, err := filepath.Abs(b.Extension)
	if err != nil {
		return err
	}
	bytes, err := fileSize(extension)
	if err != nil {
		return fmt.Errorf("%w: run make loadable first", err)
	}
	got := samples[loaded]{}
	for range b.Rounds {
		one, err := measureIn(b, func(dir string) (loaded, error) { return b.load(dir, extension) })
		if err != nil {
			return err
		}
		got[walferry] = append(got[walferry], one)
	}
	file := samples[float64]{walferry: {float64(bytes)}}
	b.table.add(
		newFigure("walferry.so: size", amount, file, func(v float64) float64 { return v }, atMost(16e6)),
		newFigure("walferry.so: time to load", duration, got, func(l loaded) float64 { return l.Load }, atMost(50e6)),
		newFigure("walferry.so: resident after the load", amount, got, func(l loaded) float64 { return l.Loaded - l.Before }, atMost(20e6)),
		newFigure("walferry.so: first open", duration, got, func(l loaded) float64 { return l.Open }, goal{}),
		newFigure("walferry.so: resident after the first open", amount, got, func(l loaded) float64 { return l.After - l.Before }, goal{}),
	)
	return nil
}

// load runs load.py once, in an interpreter of its own.
func (b *bench) load(dir, extension string) (result loaded, err error) {
	t := b.target(walferry, dir)
	if err := b.copyBase(0, t); err != nil {
		return result, err
	}
	flushDisk()
	cmd := exec.CommandContext(b.ctx, b.Python, "-c", loadScript, extension, t.dsn())
	cmd.Env = b.environ()
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return result, fmt.Errorf("load %s: %w: %s", extension, err, exit.Stderr)
		}
		return result, fmt.Errorf("load %s: %w", extension, err)
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return result, fmt.Errorf("parse output of load.py: %w", err)
	}
	return result, nil
}
