package main

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the SQLite that the VFS is for
	"github.com/walferry/walferry/vfs"
)

// child does a task in a process of its own and prints samples, one a line.
func child(task string, args []string) error {
	if err := vfs.Register(); err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	switch task {
	case "write":
		return write(args[0], uint64(n))
	case "opens":
		return opens(args[0], n)
	case "many":
		return many(args[0], n)
	}
	return fmt.Errorf("unknown task %q", task)
}

func tell(s sample) { _ = json.NewEncoder(os.Stdout).Encode(s) }

// open is one connection to a database with walferry; what else it needs it has from the
// environment.
func open(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+path+"?vfs=walferry&_busy_timeout=20000&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, db.Ping()
}

// write changes a database until its input ends, then ships the rest and closes it.
func write(path string, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 1))
	ended := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(ended)
	}()
	db, err := open(path)
	if err != nil {
		return err
	}
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)"); err != nil {
		return err
	}
	next := time.Now()
	for {
		select {
		case <-ended:
			return finish(db)
		case <-time.After(time.Duration(r.IntN(30)) * time.Millisecond):
		}
		if db, err = step(db, path, r); err != nil {
			return err
		}
		if time.Now().After(next) {
			s := here()
			s.beside(path)
			tell(s)
			next = time.Now().Add(time.Second)
		}
	}
}

// step is one thing that an application does. SQLITE_BUSY is no error in it.
func step(db *sql.DB, path string, r *rand.Rand) (*sql.DB, error) {
	var err error
	exec := func(query string, args ...any) { _, err = db.Exec(query, args...) }
	id := r.IntN(2000)
	switch x := r.IntN(200); {
	case x < 100:
		exec("INSERT OR REPLACE INTO t VALUES(?, randomblob(?))", id, r.IntN(3000))
	case x < 130:
		exec("UPDATE t SET v = randomblob(?) WHERE id BETWEEN ? AND ?", r.IntN(3000), id, id+r.IntN(200))
	case x < 150:
		exec("DELETE FROM t WHERE id BETWEEN ? AND ?", id, id+r.IntN(100))
	case x < 180:
		err = db.QueryRow("SELECT count(*) FROM t WHERE id > ?", id).Scan(new(int))
	case x < 190:
		modes := []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}
		exec("PRAGMA wal_checkpoint(" + modes[r.IntN(len(modes))] + ")")
	case x < 192:
		exec("VACUUM")
	default:
		if err = db.Close(); err == nil {
			db, err = open(path)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "locked") || strings.Contains(err.Error(), "busy")) {
		err = nil
	}
	return db, err
}

// finish ships what is left, however long the store needs to be itself again.
func finish(db *sql.DB) error {
	var err error
	for range 60 {
		if _, err = db.Exec("PRAGMA walferry_sync"); err == nil {
			break
		}
		time.Sleep(time.Second)
	}
	return errors.Join(err, db.Close())
}

// opens opens and closes a database n times. Every tenth is the only connection, so that
// it begins and ends the shipping; the others come while one is open.
func opens(dir string, n int) error {
	path := filepath.Join(dir, "app.db")
	began := time.Now()
	for i := range n {
		if i == n/5 || i == n-1 {
			s := here()
			s.beside(path)
			tell(s)
		}
		if err := once(path, i); err != nil {
			return fmt.Errorf("open %d: %w", i, err)
		}
	}
	fmt.Fprintf(os.Stderr, "%d opens and closes in %.0fs\n", n, time.Since(began).Seconds())
	return nil
}

var held *sql.DB

func once(path string, i int) (err error) {
	if i%10 == 0 && held != nil {
		if err := held.Close(); err != nil {
			return err
		}
		held = nil
	}
	db, err := open(path)
	if err != nil {
		return err
	}
	if i%100 == 0 {
		if _, err = db.Exec("CREATE TABLE IF NOT EXISTS t(v); DELETE FROM t; INSERT INTO t VALUES(?)", i); err != nil {
			return err
		}
	} else if err = db.QueryRow("SELECT count(*) FROM t").Scan(new(int)); err != nil {
		return err
	}
	if i%10 == 1 {
		held = db
		return nil
	}
	return db.Close()
}

// perDatabase is how many descriptors a database needs that is open and ships: SQLite's
// three (file, WAL, wal-index) and a fourth of the file that our own connection leaves, since SQLite
// closes none while another connection has a lock; the ledger's in C and in Go, and the lock's.
const perDatabase = 7

// many opens n databases, commits to each, and ships them all.
func many(dir string, n int) error {
	before := here()
	tell(before)
	began := time.Now()
	var dbs []*sql.DB
	for i := range n {
		db, err := open(filepath.Join(dir, fmt.Sprint(i), "app.db"))
		if err == nil {
			_, err = db.Exec("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
		}
		if err != nil {
			return fmt.Errorf("database %d: %w", i, err)
		}
		dbs = append(dbs, db)
	}
	for i, db := range dbs {
		if _, err := db.Exec("PRAGMA walferry_sync"); err != nil {
			return fmt.Errorf("ship database %d: %w", i, err)
		}
	}
	s := here()
	tell(s)
	fmt.Fprintf(os.Stderr, "%d databases open and shipped in %.0fs: %.1f descriptors, %.1f goroutines, %.0f KB resident each; %d threads\n", n,
		time.Since(began).Seconds(), per(s.Descriptors-before.Descriptors, n), per(s.Goroutines-before.Goroutines, n),
		per(s.RSS-before.RSS, n)/1024, s.Threads)
	if most := before.Descriptors + int64(n)*perDatabase + 16; s.Descriptors > most {
		return fmt.Errorf("%d descriptors, and at most %d were expected", s.Descriptors, most)
	}
	for _, db := range dbs {
		if err := db.Close(); err != nil {
			return err
		}
	}
	runtime.GC()
	if s := here(); s.Descriptors > before.Descriptors+8 || s.Goroutines > before.Goroutines+8 {
		return fmt.Errorf("closed, they leave %d descriptors and %d goroutines, after %d and %d", s.Descriptors, s.Goroutines, before.Descriptors, before.Goroutines)
	}
	return nil
}

func per(total int64, n int) float64 { return float64(total) / float64(n) }
