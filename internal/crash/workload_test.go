package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/walferry/walferry/internal/crash/trap"
)

// orders tell a process what to do.
type orders struct {
	trap.Plan
	URI    string
	Seed   uint64 // of the history: what commit n does
	Own    uint64 // of what this process does
	Conns  int
	Steps  int // of each connection
	Sync   string
	Plain  bool // commits, and nothing else
	Settle bool // ship what is there, and nothing else
	Count  bool // print how often each step was met
}

// conn is one connection.
type conn struct {
	*sql.Conn
	db *sql.DB
}

func open(uri string) (*conn, error) {
	db, err := sql.Open("sqlite3", uri)
	if err != nil {
		return nil, err
	}
	c, err := db.Conn(context.Background())
	if err != nil {
		db.Close()
		return nil, err
	}
	return &conn{c, db}, nil
}

func (c *conn) close() {
	c.Conn.Close()
	c.db.Close()
}

func (c *conn) exec(query string, args ...any) error {
	if _, err := c.ExecContext(context.Background(), query, args...); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

func (c *conn) text(query string, args ...any) (string, error) {
	var s sql.NullString
	if err := c.QueryRowContext(context.Background(), query, args...).Scan(&s); err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	return s.String, nil
}

func (c *conn) number(query string, args ...any) (int, error) {
	s, err := c.text(query, args...)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

// last is the number of the newest commit, 0 before the first.
func (c *conn) last() (int, error) {
	if n, err := c.number("SELECT count(*) FROM sqlite_schema WHERE name='n'"); n == 0 || err != nil {
		return 0, err
	}
	return c.number("SELECT n FROM n")
}

// commit makes the next commit of a history and returns its number. What it does
// depends on that alone, whoever makes it: so every state that was ever committed
// is known by its number.
func (c *conn) commit(seed uint64) (n int, err error) {
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	if n, err = c.last(); err == nil {
		n++
		err = c.change(seed, n)
	}
	if err == nil {
		err = c.exec("COMMIT")
	}
	if err != nil {
		_ = c.exec("ROLLBACK")
	}
	return n, err
}

func (c *conn) change(seed uint64, n int) error {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	content := func(most int) string { return strings.Repeat(strconv.Itoa(r.IntN(1000)), 1+r.IntN(most/3)) }
	var err error
	do := func(query string, args ...any) {
		if err == nil {
			err = c.exec(query, args...)
		}
	}
	if n == 1 {
		do("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
		do("CREATE INDEX ta ON t(a)")
		do("CREATE TABLE n(n INTEGER)")
		do("INSERT INTO n VALUES(0)")
	}
	do("UPDATE n SET n=?", n)
	do("DELETE FROM t WHERE (SELECT count(*) FROM t) > 90 AND id%3=0")
	switch r.IntN(9) {
	case 0, 1, 2:
		for range 1 + r.IntN(10) {
			do("INSERT INTO t(a,b) VALUES(?,?)", content(60), content(1500))
		}
	case 3, 4:
		do("UPDATE t SET a=? WHERE id%?=0", content(60), 3+r.IntN(5))
	case 5:
		do("DELETE FROM t WHERE id%?=0", 2+r.IntN(4))
	case 6: // with a spill, where the cache is small
		do("SAVEPOINT s")
		do("UPDATE t SET b=?", content(1500))
		do("ROLLBACK TO s")
		do("INSERT INTO t(a) VALUES(?)", content(60))
	case 7:
		do("CREATE TABLE u(x)")
		do("INSERT INTO u SELECT b FROM t LIMIT 20")
		do("DROP TABLE u")
	case 8: // there and back
		do("UPDATE t SET a='same' WHERE id%2=0")
	}
	return err
}

// state sums up all that is in the database.
func (c *conn) state() (uint64, error) {
	rows, err := c.QueryContext(context.Background(), "SELECT id, a, b FROM t ORDER BY id")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	h := fnv.New64a()
	for rows.Next() {
		var id int
		var a, b sql.NullString
		if err := rows.Scan(&id, &a, &b); err != nil {
			return 0, err
		}
		fmt.Fprintf(h, "%d %v %v|", id, a, b)
	}
	return h.Sum64(), rows.Err()
}

// run is a process's life. It prints what it knows to have been committed, and to
// be in the store.
func (o *orders) run() {
	if o.Settle {
		o.settle()
		return
	}
	var all sync.WaitGroup
	for i := range o.Conns {
		all.Go(func() { o.work(rand.New(rand.NewPCG(o.Own, uint64(i)))) })
	}
	all.Wait()
}

// open opens the database. Somebody who stands still may hold a lock meanwhile.
func (o *orders) open() *conn {
	for {
		c, err := open(o.URI)
		for _, pragma := range []string{"synchronous=" + o.Sync, "cache_size=10"} {
			if err == nil {
				if err = c.exec("PRAGMA " + pragma); err != nil {
					c.close()
				}
			}
		}
		if err == nil {
			return c
		}
		if !busy(err) {
			die(err)
		}
	}
}

// busy tells that somebody holds a lock.
func busy(err error) bool {
	var failed sqlite3.Error
	return errors.As(err, &failed) && (failed.Code == sqlite3.ErrBusy || failed.Code == sqlite3.ErrLocked)
}

func (o *orders) work(r *rand.Rand) {
	c := o.open()
	defer func() { c.close() }()
	o.tell(c.exec(fmt.Sprintf("PRAGMA wal_autocheckpoint=%d", []int{0, 5, 20, 60}[r.IntN(4)])))
	own := 0 // newest commit of this connection
	for range o.Steps {
		switch x := r.IntN(32); {
		case x < 20 || o.Plain:
			n, err := c.commit(o.Seed)
			if err == nil {
				fmt.Println("committed", n)
				own = n
			}
			o.tell(err)
		case x < 24:
			n, err := c.last()
			if err == nil {
				err = c.confirm(n, "PRAGMA walferry_sync")
			}
			o.tell(err)
		case x < 26:
			if own > 0 {
				o.tell(c.confirm(own, "SELECT walferry_wait(walferry_token(), 2000)"))
			}
		case x < 29:
			o.tell(c.exec("PRAGMA wal_checkpoint(" + []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[r.IntN(4)] + ")"))
		case x < 30:
			o.tell(c.exec("VACUUM"))
		case x < 31:
			_, err := c.text("SELECT walferry_mark(?)", fmt.Sprint("m", r.IntN(9)))
			o.tell(err)
		default:
			c.close()
			c = o.open()
			own = 0
		}
	}
}

// confirm asks for commit n to be in the store.
func (c *conn) confirm(n int, how string) error {
	answer, err := c.text(how)
	if err == nil && answer != "0" && answer != "" {
		fmt.Println("confirmed", n)
	}
	return err
}

// tell prints an error that need not have been. A lock that somebody holds, and a
// database that could not be switched to WAL mode yet since others are at it, are none.
func (o *orders) tell(err error) {
	if err != nil && !busy(err) && !strings.Contains(err.Error(), "is not in WAL mode") {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func (o *orders) settle() {
	c := o.open()
	defer c.close()
	n, err := c.last()
	for until := time.Now().Add(10 * time.Second); err == nil; {
		if _, err = c.text("PRAGMA walferry_sync"); err == nil {
			fmt.Println("confirmed", n)
			return
		}
		if time.Now().After(until) {
			break
		}
		err = nil
	}
	fmt.Println("error", "settle:", err)
}
