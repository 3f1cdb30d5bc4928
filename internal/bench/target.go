package main

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// side is one of the things that are compared, and the head of its column.
type side string

const (
	plain      side = "plain"           // the platform's VFS
	walferry   side = "walferry"        // through walferry, with a directory as the replica
	control    side = "plain again"     // the platform's VFS in walferry's place
	litestream side = "with litestream" // the platform's VFS, litestream running beside
)

// sides returns the columns of this run: plain first, what is judged second.
func (b *bench) sides() []side {
	all := []side{plain, walferry}
	if b.Control {
		all[1] = control
	}
	if b.Litestream != "" {
		all = append(all, litestream)
	}
	return all
}

// columns are the sides of this run's table: those, and litestream where only its VFS is there.
func (b *bench) columns() []side {
	all := b.sides()
	if b.Litestream == "" && b.LitestreamVFS != "" {
		all = append(all, litestream)
	}
	return all
}

// shippers returns the columns whose commits go to a replica.
func (b *bench) shippers() []side {
	return slices.DeleteFunc(b.sides(), func(s side) bool { return s == plain || s == control })
}

// target is a database and the side from which a child is to open it.
type target struct {
	Side     side
	DB       string // path of the database file
	Replica  string // the directory of the replica
	S3       bucket // where the replica is if not in a directory
	Interval time.Duration
	Sync     string // PRAGMA synchronous, FULL if empty
	MmapSize int64  // PRAGMA mmap_size

	SnapshotInterval time.Duration // walferry's; 0: its default
}

// target returns a target of side s for the database dir/app.db, replicated to dir/replica.
func (b *bench) target(s side, dir string) target {
	return target{
		Side: s, DB: filepath.Join(dir, "app.db"), Replica: filepath.Join(dir, "replica"),
		Interval: b.Interval, Sync: "FULL",
	}
}

// dsn is the connection string. The plain sides name the unix VFS, whatever the default is.
func (t target) dsn() string {
	q := url.Values{"vfs": {"unix"}, "_synchronous": {t.Sync}, "_journal_mode": {"WAL"}}
	if t.Side == walferry {
		q.Set("vfs", "walferry")
		q.Set("replica", t.url())
		q.Set("interval", t.Interval.String())
		if t.SnapshotInterval > 0 {
			q.Set("snapshot_interval", t.SnapshotInterval.String())
		}
	}
	return "file:" + (&url.URL{Path: t.DB}).EscapedPath() + "?" + q.Encode()
}

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// conn is one connection, straight on the driver: database/sql's pool, its locks and its goroutines
// would be measured too.
type conn struct{ *sqlite3.SQLiteConn }

// register registers walferry's VFS, once in the process.
var register = sync.OnceValue(registerVFS)

// open opens the target. On walferry's side everything is in the replica when it returns, so that
// the first snapshot is not measured by those who measure something else.
func (t target) open() (*conn, error) {
	c, err := t.openUnshipped()
	if err != nil {
		return nil, err
	}
	if err := t.ship(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// openUnshipped opens the target and waits for nothing, as an application does.
func (t target) openUnshipped() (*conn, error) {
	if t.Side == walferry {
		if err := register(); err != nil {
			return nil, fmt.Errorf("register vfs: %w", err)
		}
	}
	return t.connect()
}

// connect opens a connection and sets its pragmas. The VFS must have been registered.
func (t target) connect() (*conn, error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(t.dsn())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t.DB, err)
	}
	c := &conn{opened.(*sqlite3.SQLiteConn)}
	if t.MmapSize > 0 {
		got, err := c.value(fmt.Sprintf("PRAGMA mmap_size=%d", t.MmapSize))
		if err == nil && got != t.MmapSize {
			err = fmt.Errorf("asked for %d bytes of mmap, got %v", t.MmapSize, got)
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// ship waits until everything committed is in the replica; it does nothing on the other sides.
func (t target) ship(c *conn) error {
	if t.Side != walferry {
		return nil
	}
	_, err := c.value("PRAGMA walferry_sync")
	return err
}

// requests returns how many requests walferry has made to the store since the database was opened.
func (t target) requests(c *conn) (int64, error) {
	if t.Side != walferry {
		return 0, nil
	}
	v, err := c.value("PRAGMA walferry_status")
	if err != nil {
		return 0, err
	}
	var status struct{ Requests *int64 }
	if err := json.Unmarshal([]byte(fmt.Sprint(v)), &status); err != nil {
		return 0, fmt.Errorf("parse walferry_status: %w", err)
	}
	if status.Requests == nil {
		return 0, errors.New("walferry_status has no field \"requests\"")
	}
	return *status.Requests, nil
}

func (c *conn) exec(query string, args ...driver.Value) error {
	if _, err := c.ExecContext(context.Background(), query, bind(args...)); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

// value returns the first column of the first row, text as a string.
func (c *conn) value(query string, args ...driver.Value) (driver.Value, error) {
	rows, err := c.QueryContext(context.Background(), query, bind(args...))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	first, err := firstValue(rows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	return first, nil
}

// firstValue reads one row and closes rows.
func firstValue(rows driver.Rows) (driver.Value, error) {
	dest := make([]driver.Value, len(rows.Columns()))
	err := rows.Next(dest)
	if errors.Is(err, io.EOF) {
		err = errors.New("no row")
	}
	if err = errors.Join(err, rows.Close()); err != nil {
		return nil, err
	}
	if text, ok := dest[0].([]byte); ok {
		return string(text), nil
	}
	return dest[0], nil
}

// prepare returns a statement that can be run again and again.
func (c *conn) prepare(query string) (*sqlite3.SQLiteStmt, error) {
	s, err := c.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", query, err)
	}
	return s.(*sqlite3.SQLiteStmt), nil
}

func bind(values ...driver.Value) []driver.NamedValue {
	args := make([]driver.NamedValue, len(values))
	for i, v := range values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return args
}
