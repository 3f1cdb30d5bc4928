//go:build cgo

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the one SQLite that has the database open in this process
	"github.com/superfly/ltx"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/shipper"
	"github.com/walferry/walferry/vfs"
)

func runShip(ctx context.Context, c *command, args []string, stdout, stderr io.Writer) error {
	f, fs := new(shipFlags), c.flags()
	f.add(fs)
	rest, err := c.parse(fs, args, 2, stdout)
	if err != nil {
		return err
	}
	if err := f.check(rest); err != nil {
		return &errUsage{err.Error(), c}
	}
	s, err := openShipment(f, stderr)
	if err != nil {
		return err
	}
	if f.watch {
		return s.watch(ctx, stdout)
	}
	defer s.db.Close()
	return s.once(ctx, stdout)
}

// shipment is a database that is shipped from here.
type shipment struct {
	f      *shipFlags
	path   string // with symbolic links followed
	db     *vfs.Database
	before string // newest TXID of the ledger, before
	stderr io.Writer
}

// openShipment writes nothing where there is no database.
func openShipment(f *shipFlags, stderr io.Writer) (*shipment, error) {
	s := &shipment{f: f, stderr: stderr, before: ltx.TXID(0).String()}
	fi, err := os.Stat(f.database)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no database %s", f.database)
	} else if err != nil {
		return nil, fmt.Errorf("look at database: %w", err)
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", f.database)
	}
	if s.path, err = filepath.Abs(f.database); err == nil {
		s.path, err = filepath.EvalSymlinks(s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("look at database: %w", err)
	}
	if was, err := readStatus(s.path); err == nil {
		s.before = was.TXID
	}
	if err := vfs.Register(); err != nil {
		return nil, err
	}
	if os.Getenv("WALFERRY_LOG") == "" {
		// A sidecar's log is all that is heard of it; here the error is returned.
		cext.SetLogLevel(cext.LogOff)
		if f.watch {
			cext.SetLogLevel(cext.LogInfo)
		}
	}
	return s, s.open()
}

func (s *shipment) open() (err error) {
	opts := []vfs.Option{
		vfs.WithReplica(s.f.url),
		vfs.WithCloseTimeout(0), // Sync has waited
	}
	if s.f.interval != 0 {
		opts = append(opts, vfs.WithInterval(s.f.interval))
	}
	if s.f.takeover {
		opts = append(opts, vfs.WithTakeover())
	}
	if s.f.syncFirst {
		opts = append(opts, vfs.WithSyncBeforeShip())
	}
	s.db, err = vfs.Open(s.path, opts...)
	return err
}

// sync ships what is committed, and switches the database to WAL mode if it may.
func (s *shipment) sync(ctx context.Context) (ltx.TXID, error) {
	if err := s.elsewhere(); err != nil {
		return 0, err
	}
	txid, err := s.db.Sync(ctx)
	if err == nil {
		return txid, nil
	}
	status := s.db.Status()
	switch status.State {
	case shipper.StateNotWAL.String():
		if err := s.switchToWAL(ctx); err != nil {
			return 0, err
		}
		// A look that began before the switch may be what answers the first.
		txid, err := s.db.Sync(ctx)
		if err != nil && s.db.Status().State == shipper.StateNotWAL.String() {
			txid, err = s.db.Sync(ctx)
		}
		return txid, err
	case shipper.StateUnclaimed.String():
		return 0, fmt.Errorf("%w. With this command that is -takeover; if the two should be the same, `walferry adopt` finds out and sends nothing twice", err)
	case shipper.StateFenced.String():
		return 0, fmt.Errorf("%w (here: -takeover)", err)
	}
	if pid := s.other(); pid != 0 && errors.Is(err, context.DeadlineExceeded) {
		return 0, fmt.Errorf("process %d ships %s and has not answered in time; see whether it is stopped", pid, s.f.database)
	}
	return 0, err
}

// other is the process that ships in place of this one, 0 if none does.
func (s *shipment) other() uint64 {
	if pid := s.db.Status().ShipperPID; pid != uint64(os.Getpid()) {
		return pid
	}
	return 0
}

// elsewhere is an error if another process ships to another replica.
func (s *shipment) elsewhere() error {
	store, err := objstore.New(s.f.url, objstore.Options{})
	if err != nil || strings.Contains(s.f.url, "{") {
		return nil // the VFS knows
	}
	if pid, there := s.other(), s.db.Status().Replica; pid != 0 && there != "" && there != store.String() {
		return fmt.Errorf("process %d ships %s to %s, and a database has one replica: stop that process first", pid, s.f.database, there)
	}
	return nil
}

// switchToWAL switches the database, or says why not.
func (s *shipment) switchToWAL(ctx context.Context) error {
	fi, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no database %s any more", s.f.database)
	case err == nil && fi.Size() == 0:
		return fmt.Errorf("%s is empty: there is nothing to ship before a program has written to it", s.f.database)
	case s.f.wal != "auto":
		return fmt.Errorf("%s is not in WAL mode, so nothing of it can be shipped: switch it with -wal auto, or with PRAGMA journal_mode=WAL in any program; it stays so", s.f.database)
	}
	// Without walferry's VFS: there is nothing to mark, all of it is compared. It waits a
	// moment for a connection of the shipper's own, which does not give way to it.
	name := url.URL{Scheme: "file", Path: s.path, RawQuery: "vfs=unix&mode=rw&_busy_timeout=1000"}
	db, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return fmt.Errorf("switch %s to WAL mode: %w", s.f.database, err)
	}
	defer db.Close()
	mode := ""
	err = db.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode)
	if err == nil && mode != "wal" {
		err = fmt.Errorf("SQLite leaves it in mode %q", mode)
	}
	if err != nil {
		return fmt.Errorf("switch %s to WAL mode, which takes a moment in which nobody else is at it: %w", s.f.database, err)
	}
	return nil
}

// retryPause is between two tries of a store that does not answer.
const retryPause = time.Second

// once ships and says what it has shipped.
func (s *shipment) once(ctx context.Context, stdout io.Writer) error {
	if s.f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.f.timeout)
		defer cancel()
	}
	txid, err := s.sync(ctx)
	cause := err
	for err != nil && s.f.timeout > 0 && ctx.Err() == nil && s.passes() {
		cause = err
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
		txid, err = s.sync(ctx)
	}
	switch {
	case err == nil:
	case errors.Is(ctx.Err(), context.Canceled):
		return errors.New("interrupted; what was not shipped is shipped by whoever ships next")
	case ctx.Err() != nil && errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("not shipped in %v; what is committed ships with the next try", s.f.timeout)
	case ctx.Err() != nil:
		return fmt.Errorf("not shipped in %v: %w", s.f.timeout, cause)
	default:
		return err
	}
	r := shipped{Database: s.f.database, TXID: txid.String(), By: s.other()}
	if r.By == 0 {
		s.db.Close() // now the counters are final
		if now, err := readStatus(s.path); err == nil {
			r.Objects, r.Bytes, r.Replica = now.Batches, now.Bytes, now.Replica
		}
	} else {
		r.Replica = s.db.Status().Replica
	}
	r.Shipped = r.Objects > 0 || r.By != 0 && r.TXID != s.before
	return r.print(s.f.json, stdout)
}

// passes reports whether a failure may end by itself.
func (s *shipment) passes() bool {
	switch s.db.Status().State {
	case shipper.StateUnreachable.String(), shipper.StateStarting.String(), shipper.StateFailing.String(), shipper.StateShipping.String():
		return true
	case shipper.StateNotWAL.String():
		return s.f.wal == "auto"
	}
	return false
}

// shipped is what has been shipped.
type shipped struct {
	Database string `json:"database"`
	Replica  string `json:"replica"`
	Shipped  bool   `json:"shipped"` // something was, just now
	TXID     string `json:"txid"`    // newest of the replica
	Objects  uint64 `json:"objects,omitempty"`
	Bytes    uint64 `json:"bytes,omitempty"` // that were sent
	By       uint64 `json:"by_process,omitempty"`
}

func (r shipped) print(asJSON bool, w io.Writer) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var err error
	switch {
	case r.By != 0:
		_, err = fmt.Fprintf(w, "process %d ships %s to %s, and has shipped what was committed: TXID %s\n", r.By, r.Database, r.Replica, r.TXID)
	case r.Shipped:
		_, err = fmt.Fprintf(w, "shipped %s to %s: TXID %s, %s in %d %s\n",
			r.Database, r.Replica, r.TXID, size(int64(r.Bytes)), r.Objects, plural(int(r.Objects), "object"))
	default:
		_, err = fmt.Fprintf(w, "nothing to ship: %s has %s as it is, TXID %s\n", r.Replica, r.Database, r.TXID)
	}
	return err
}
