// Package sqlcheck asks SQLite whether a database file is sound.
//
// It is for the command line and its tools only. The SQLite in here is a second
// one beside that of an application, and two of them in one process drop each
// other's locks: so nothing that is loaded into an application may import it.
package sqlcheck

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	// SQLite translated to Go: the command line stays one file without cgo,
	// that is copied to any machine. It is also built with sqlite_dbpage, by
	// which a standby gets its pages.
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// MaxProblems is how many problems a check names before it stops looking.
const MaxProblems = 100

// ErrUncheckable is wrapped where SQLite cannot go through the database for a
// reason that is no damage: a collation or a function that only the application
// has.
var ErrUncheckable = errors.New("database cannot be checked here")

// Check runs PRAGMA quick_check, or with full PRAGMA integrity_check, which also
// holds every index against its table and takes several times as long. It returns
// what is wrong, nil if nothing is; the error is for a check that could not be made.
//
// The file is opened read-only and as one that nobody writes to: no lock is
// taken, a -wal or -journal beside it is not looked at, and nothing is created beside it.
// So it must be complete, and stay as it is. Ends soon after ctx does.
func Check(ctx context.Context, path string, full bool) ([]string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// A FIFO would be waited for, and a directory gives an error that says little.
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("check database: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("check database: %s is not a file", path)
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("check database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)

	pragma := "quick_check"
	if full {
		pragma = "integrity_check"
	}
	problems, err := lines(ctx, db, fmt.Sprintf("PRAGMA %s(%d)", pragma, MaxProblems))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if failed := new(sqlite.Error); errors.As(err, &failed) {
		switch failed.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return append(problems, failed.Error()), nil
		case sqlite3.SQLITE_ERROR:
			return problems, fmt.Errorf("%w: %w", ErrUncheckable, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("check database: %w", err)
	}
	return problems, nil
}

// lines is what a check says, unless that is "ok".
func lines(ctx context.Context, db *sql.DB, pragma string) (all []string, err error) {
	rows, err := db.QueryContext(ctx, pragma)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return all, err
		}
		all = append(all, line)
	}
	if len(all) == 1 && all[0] == "ok" {
		all = nil
	}
	return all, rows.Err()
}
