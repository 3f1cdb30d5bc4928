package main

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// base returns the path of a database of about the given size (0: only its schema), made when it is
// first asked for. It is closed, checkpointed and in WAL mode; nobody may open it, only a copy of it.
func (b *bench) base(bytes size) (string, error) {
	name := fmt.Sprintf("base-%d.db", bytes)
	if path, made := b.bases[name]; made {
		return path, nil
	}
	b.progress("  making a database of %v", bytes)
	path := filepath.Join(b.scratch, name)
	if err := makeDatabase(path, bytes); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	b.bases[name] = path
	return path, nil
}

// makeDatabase fills path with rows until it has about the given size. The rows depend on nothing
// but their number, so every run measures the same database.
//
//	events  what one-row and 100-row commits append to
//	source  100 rows that a 100-row commit copies
//	rows    what page updates and reads use
func makeDatabase(path string, bytes size) (err error) {
	t := target{Side: plain, DB: path, Sync: "OFF"}
	c, err := t.connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for _, sql := range []string{
		"PRAGMA cache_size=-65536",
		"CREATE TABLE events(id INTEGER PRIMARY KEY, v TEXT NOT NULL)",
		"CREATE TABLE source(v TEXT NOT NULL)",
		"CREATE TABLE rows(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, v TEXT NOT NULL)",
	} {
		if err := c.exec(sql); err != nil {
			return err
		}
	}
	for i := range 100 {
		if err := c.exec("INSERT INTO source VALUES(?)", payload(i)); err != nil {
			return err
		}
	}
	if err := fillRows(c, int64(bytes)); err != nil {
		return err
	}
	_, err = c.value("PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// fillRows appends documents to the table rows until their text alone is 94 % of bytes: the rest is
// what SQLite adds.
func fillRows(c *conn, bytes int64) error {
	const perCommit = 5000
	stmt, err := c.prepare("INSERT INTO rows(n, v) VALUES(0, ?)")
	if err != nil {
		return err
	}
	defer stmt.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for done := int64(0); done < bytes*94/100; {
		if err := c.exec("BEGIN"); err != nil {
			return err
		}
		for range perCommit {
			doc := document(rng)
			if _, err := stmt.Exec([]driver.Value{doc}); err != nil {
				return err
			}
			if done += int64(len(doc)); done >= bytes*94/100 {
				break
			}
		}
		if err := c.exec("COMMIT"); err != nil {
			return err
		}
	}
	return nil
}

var (
	words = []string{
		"order", "shipped", "customer", "invoice", "pending", "address", "harbour", "container",
		"payment", "refund", "weight", "manifest", "customs", "delayed", "arrived", "signed",
		"warehouse", "pallet", "driver", "route", "ferry", "island", "morning", "evening",
		"fragile", "returned", "damaged", "insured", "priority", "standard", "express", "bulk",
	}
	actions  = []string{"create", "update", "view", "delete", "export", "login"}
	browsers = []string{"Firefox/128.0", "Chrome/126.0.6478.61", "Safari/17.5", "curl/8.8.0"}
)

// document returns one JSON document as an application would log it, some 450 bytes. lz4 makes it
// two to three times smaller, page by page or as a file; the report says how much exactly.
func document(rng *rand.Rand) string {
	buf := make([]byte, 0, 640)
	buf = fmt.Appendf(buf, `{"id":"%016x","at":"2025-%02d-%02dT%02d:%02d:%02d.%03dZ","user":"user-%06d",`,
		rng.Uint64(), 1+rng.IntN(12), 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1000), rng.IntN(1e6))
	buf = fmt.Appendf(buf, `"action":%q,"path":"/api/v1/shipments/%08x","status":%d,"took_ms":%d.%02d,"browser":%q,"note":"`,
		actions[rng.IntN(len(actions))], rng.Uint32(), 200+rng.IntN(5), rng.IntN(900), rng.IntN(100), browsers[rng.IntN(len(browsers))])
	for range 16 + rng.IntN(24) {
		buf = append(buf, words[rng.IntN(len(words))]...)
		buf = append(buf, ' ')
	}
	return string(append(buf, `"}`...))
}

// payload returns the value of the i-th small row, 100 bytes.
func payload(i int) string {
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	buf := make([]byte, 0, 100)
	for len(buf) < 100 {
		buf = append(buf, words[rng.IntN(len(words))]...)
		buf = append(buf, ' ')
	}
	return string(buf[:100])
}

// copyBase copies the base database of the given size to t.
func (b *bench) copyBase(bytes size, t target) error {
	path, err := b.base(bytes)
	if err != nil {
		return err
	}
	return copyFile(path, t.DB)
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// flushDisk writes out what earlier steps left in the page cache, so that they do not slow the next.
func flushDisk() { unix.Sync() }
