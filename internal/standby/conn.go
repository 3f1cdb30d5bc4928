package standby

import (
	"fmt"
	"unsafe"

	"modernc.org/libc"
	// SQLite in Go, by its C interface: database/sql does not give the
	// callback by which a commit is kept from vacuuming, nor checkpoints of a kind.
	sqlite3 "modernc.org/sqlite/lib"
)

// conn is one connection to a database. It belongs to one goroutine at a time.
type conn struct {
	tls *libc.TLS
	db  uintptr
	buf uintptr // of bufSize bytes, for the pages that are bound
}

// bufSize is two of the largest pages.
const bufSize = 2 * 65536

// sqlError is what SQLite answered.
type sqlError struct {
	code int // extended
	text string
}

func (e *sqlError) Error() string { return fmt.Sprintf("%s (SQLite error %d)", e.text, e.code) }

// memory is an address of SQLite's memory, which is none of Go's heap.
func memory(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// openConn opens an existing database for writing.
func openConn(path string) (*conn, error) {
	c := &conn{tls: libc.NewTLS()}
	name, err := libc.CString(path)
	if err != nil {
		c.tls.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	defer libc.Xfree(c.tls, name)
	out := libc.Xcalloc(c.tls, 1, 8)
	defer libc.Xfree(c.tls, out)
	rc := sqlite3.Xsqlite3_open_v2(c.tls, name, out, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_FULLMUTEX, 0)
	c.db = *(*uintptr)(memory(out))
	if rc != sqlite3.SQLITE_OK {
		err := c.fail(rc)
		c.close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	c.buf = libc.Xmalloc(c.tls, bufSize)
	sqlite3.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
	// A commit in an auto_vacuum database frees pages at its end, by what page 1
	// says. The pages that are written here had that done where they come from.
	sqlite3.Xsqlite3_autovacuum_pages(c.tls, c.db, keepPages, 0, 0)
	return c, nil
}

// keepPages is sqlite3_autovacuum_pages's callback; 0 pages are to be freed.
var keepPages = cFunc(func(*libc.TLS, uintptr, uintptr, uint32, uint32, uint32) uint32 { return 0 })

// cFunc is a function as the translated SQLite calls it: the address of its
// closure, which as that of a function without captures never moves.
func cFunc(f func(*libc.TLS, uintptr, uintptr, uint32, uint32, uint32) uint32) uintptr {
	return *(*uintptr)(unsafe.Pointer(&struct {
		f func(*libc.TLS, uintptr, uintptr, uint32, uint32, uint32) uint32
	}{f}))
}

func (c *conn) close() {
	if c.db != 0 {
		sqlite3.Xsqlite3_close_v2(c.tls, c.db)
	}
	if c.buf != 0 {
		libc.Xfree(c.tls, c.buf)
	}
	c.tls.Close()
}

func (c *conn) fail(rc int32) error {
	if c.db == 0 {
		return &sqlError{int(rc), "out of memory"}
	}
	return &sqlError{int(rc), libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls, c.db))}
}

// busyTimeout is how long a statement waits for a lock.
func (c *conn) busyTimeout(ms int32) { sqlite3.Xsqlite3_busy_timeout(c.tls, c.db, ms) }

// inTransaction reports a transaction that was begun and has not ended.
func (c *conn) inTransaction() bool { return sqlite3.Xsqlite3_get_autocommit(c.tls, c.db) == 0 }

// shrink gives back the memory of the page cache, and with it what the cache has
// worked out about pages that have been replaced since.
func (c *conn) shrink() { sqlite3.Xsqlite3_db_release_memory(c.tls, c.db) }

// checkpoint copies the WAL into the database. busy: a reader kept it from all
// that the mode asks for.
func (c *conn) checkpoint(mode int32) (busy bool, err error) {
	rc := sqlite3.Xsqlite3_wal_checkpoint_v2(c.tls, c.db, 0, mode, 0, 0)
	if rc&0xff == sqlite3.SQLITE_BUSY || rc&0xff == sqlite3.SQLITE_LOCKED {
		return true, nil
	}
	if rc != sqlite3.SQLITE_OK {
		return false, fmt.Errorf("checkpoint database: %w", c.fail(rc))
	}
	return false, nil
}

// exec runs statements that give nothing.
func (c *conn) exec(sql string) error {
	text, err := libc.CString(sql)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, text)
	if rc := sqlite3.Xsqlite3_exec(c.tls, c.db, text, 0, 0, 0); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

// stmt is a prepared statement.
type stmt struct {
	c *conn
	p uintptr
}

func (c *conn) prepare(sql string) (*stmt, error) {
	text, err := libc.CString(sql)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, text)
	out := libc.Xcalloc(c.tls, 1, 8)
	defer libc.Xfree(c.tls, out)
	if rc := sqlite3.Xsqlite3_prepare_v2(c.tls, c.db, text, -1, out, 0); rc != sqlite3.SQLITE_OK {
		return nil, c.fail(rc)
	}
	return &stmt{c, *(*uintptr)(memory(out))}, nil
}

func (s *stmt) finalize() {
	if s != nil {
		sqlite3.Xsqlite3_finalize(s.c.tls, s.p)
	}
}

// run executes a statement to its end. Arguments are int64 or at most one []byte,
// of at most bufSize bytes.
func (s *stmt) run(args ...any) error {
	_, err := s.step(args...)
	if rc := sqlite3.Xsqlite3_reset(s.c.tls, s.p); err == nil && rc != sqlite3.SQLITE_OK {
		err = s.c.fail(rc)
	}
	return err
}

// step binds, if there are any, and goes to the next row.
func (s *stmt) step(args ...any) (row bool, err error) {
	for i, a := range args {
		rc := int32(sqlite3.SQLITE_OK)
		switch v := a.(type) {
		case int64:
			rc = sqlite3.Xsqlite3_bind_int64(s.c.tls, s.p, int32(i+1), v)
		case []byte:
			copy(unsafe.Slice((*byte)(memory(s.c.buf)), bufSize), v)
			rc = sqlite3.Xsqlite3_bind_blob(s.c.tls, s.p, int32(i+1), s.c.buf, int32(len(v)), sqlite3.SQLITE_STATIC)
		}
		if rc != sqlite3.SQLITE_OK {
			return false, s.c.fail(rc)
		}
	}
	switch rc := sqlite3.Xsqlite3_step(s.c.tls, s.p); rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	default:
		return false, s.c.fail(rc)
	}
}

func (s *stmt) reset() { sqlite3.Xsqlite3_reset(s.c.tls, s.p) }

func (s *stmt) int64(i int32) int64 { return sqlite3.Xsqlite3_column_int64(s.c.tls, s.p, i) }

// blob is valid until the next step or reset.
func (s *stmt) blob(i int32) []byte {
	p := sqlite3.Xsqlite3_column_blob(s.c.tls, s.p, i)
	n := sqlite3.Xsqlite3_column_bytes(s.c.tls, s.p, i)
	if p == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(memory(p)), n)
}

func (s *stmt) text(i int32) string {
	return libc.GoString(sqlite3.Xsqlite3_column_text(s.c.tls, s.p, i))
}

// number is the one number that a statement gives.
func (c *conn) number(sql string) (int64, error) {
	s, err := c.prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.finalize()
	if row, err := s.step(); err != nil || !row {
		return 0, err
	}
	return s.int64(0), nil
}

// word is the one text that a statement gives.
func (c *conn) word(sql string) (string, error) {
	s, err := c.prepare(sql)
	if err != nil {
		return "", err
	}
	defer s.finalize()
	if row, err := s.step(); err != nil || !row {
		return "", err
	}
	return s.text(0), nil
}
