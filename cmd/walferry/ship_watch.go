//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/shipper"
)

// lastBatch bounds the batch at the end of a watch, unless -timeout does.
const lastBatch = 10 * time.Second

// slowest is the longest pause after failures.
const slowest = 30 * time.Second

// granule is how old a file's times must be to tell that it was not written to since:
// the kernel's clock for them may stand still for so long.
const granule = 50 * time.Millisecond

// watch ships what changes until ctx ends, and then once more.
//
// A program with walferry wakes the shipper through the ledger. One without it wakes nobody, so
// the sizes and times of the database and its WAL are looked at: nothing is opened, since a
// close would drop the locks that SQLite holds in this process.
func (s *shipment) watch(ctx context.Context, stdout io.Writer) error {
	defer func() { s.db.Close() }()
	if pid := s.other(); pid != 0 {
		fmt.Fprintf(stdout, "watching %s; process %d ships it, and this one will when that ends\n", s.f.database, pid)
	} else {
		fmt.Fprintf(stdout, "watching %s; ships to %s\n", s.f.database, s.f.url)
	}
	var shipped files
	told, pause := "", s.interval()
	for done := false; !done; {
		began := time.Now()
		now := lookAt(s.path)
		if now.db.ino != 0 && now != shipped {
			err := s.shipChange(ctx, now, shipped)
			switch {
			case ctx.Err() != nil:
			case err == nil:
				shipped, pause, told = now, s.interval(), ""
				if !now.before(began.Add(-granule)) {
					shipped = files{db: stamp{dev: now.db.dev, ino: now.db.ino}} // look once more
				}
			case s.stuck():
				return err
			default:
				pause = min(max(2*pause, time.Second), slowest)
				if s.db.Status().State == shipper.StateNotWAL.String() && s.f.wal != "auto" {
					shipped = now // a look is a lock in such a mode: only where it may have ended
				}
				if s.says(err) && err.Error() != told {
					told = err.Error()
					fmt.Fprintln(s.stderr, "walferry:", told)
				}
			}
		}
		select {
		case <-ctx.Done():
			done = true
		case <-time.After(pause):
		}
	}
	return s.last()
}

// shipChange ships, from a new handle where the database is another file than it was.
func (s *shipment) shipChange(ctx context.Context, now, shipped files) error {
	if was := shipped.db; was.ino != 0 && (was.ino != now.db.ino || was.dev != now.db.dev) {
		s.db.Close()
		if err := s.open(); err != nil {
			return err
		}
	}
	_, err := s.sync(ctx)
	return err
}

// last is the batch at the end.
func (s *shipment) last() error {
	limit := lastBatch
	if s.f.timeout > 0 {
		limit = s.f.timeout
	}
	if lookAt(s.path).db.ino == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.sync(ctx); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the last batch was not shipped in %v; what is committed ships with the next start", limit)
	} else if err != nil {
		return fmt.Errorf("the last batch was not shipped: %w", err)
	}
	return nil
}

// interval is how often to look.
func (s *shipment) interval() time.Duration {
	if s.f.interval != 0 {
		return s.f.interval
	}
	if d, err := time.ParseDuration(os.Getenv("WALFERRY_INTERVAL")); err == nil {
		return d
	}
	return time.Second
}

// stuck reports whether nothing will ship until somebody does something.
func (s *shipment) stuck() bool {
	switch s.db.Status().State {
	case shipper.StateFenced.String(), shipper.StateUnclaimed.String(), shipper.StatePageSize.String():
		return true
	}
	return false
}

// says reports whether an error is to be told here: where this process ships, the shipper's
// own log has it.
func (s *shipment) says(err error) bool {
	status := s.db.Status()
	return status.ShipperPID != uint64(os.Getpid()) || status.State == shipper.StateNotWAL.String() || status.Cause == "" || status.LastError == ""
}

// files are what a database and its WAL look like from outside.
type files struct{ db, wal stamp }

// stamp is zero where there is no file.
type stamp struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec // and not ctime, which an open of the WAL by root changes
}

func lookAt(database string) files {
	return files{stampOf(database), stampOf(database + "-wal")}
}

func stampOf(path string) (s stamp) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return s
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim}
}

// before reports whether everything was written before a time.
func (f files) before(t time.Time) bool {
	return f.db.mtime.Nano() < t.UnixNano() && f.wal.mtime.Nano() < t.UnixNano()
}
