package sqlcheck

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
)

// Snapshot is one committed state of a database, for as long as it is not closed. It
// holds a read transaction of SQLite's own, as any client does.
type Snapshot struct {
	PageSize, Pages uint32

	ctx  context.Context
	db   *sql.DB
	conn *sql.Conn
}

// OpenSnapshot pins the newest committed state of a database that exists; others may go
// on writing. It ends with ctx.
func OpenSnapshot(ctx context.Context, path string) (s *Snapshot, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_pragma=busy_timeout(10000)&_pragma=query_only(1)"}
	s = &Snapshot{ctx: ctx}
	if s.db, err = sql.Open("sqlite", name.String()); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if s.conn, err = s.db.Conn(ctx); err == nil {
		_, err = s.conn.ExecContext(ctx, "BEGIN")
	}
	if err == nil { // page_count reads, which is what begins the transaction
		err = s.conn.QueryRowContext(ctx, "PRAGMA page_count").Scan(&s.Pages)
	}
	if err == nil {
		err = s.conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&s.PageSize)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read database %s: %w", path, err), s.Close())
	}
	return s, nil
}

// Each calls f for every page in order, and ends with its error.
func (s *Snapshot) Each(f func(pgno uint32, page []byte) error) error {
	rows, err := s.conn.QueryContext(s.ctx, "SELECT pgno, data FROM sqlite_dbpage")
	if err != nil {
		return err
	}
	defer rows.Close()
	var page sql.RawBytes
	var pgno uint32
	for rows.Next() {
		if err := rows.Scan(&pgno, &page); err != nil {
			return err
		}
		if err := f(pgno, page); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close ends the state.
func (s *Snapshot) Close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	return errors.Join(err, s.db.Close())
}
