package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// mostCompared is the largest database that is read into memory: walbig.test has one of 5 GB.
const mostCompared = 256 << 20

// restored counts what became of the databases that a file left.
type restored struct {
	atClose  int            // the replica is the database, with nothing done after the test
	shipped  int            // it is after `walferry ship`: the process was killed, or the database was open
	excepted map[string]int // cannot be, by reason
	wrong    []string
}

// What SQLite or walferry says of a database that cannot be shipped, and what it means.
var exceptions = []struct{ text, reason string }{
	{"page size changed", "page size changed"},
	{"malformed", "SQLite finds it malformed"},
	{"is not a database", "is not a database any more"},
	{"database disk image", "SQLite finds it malformed"},
}

// databases compares every database in WAL mode with what its replica restores to.
func (c *config) databases(ctx context.Context, name, mode, dir string) restored {
	r := restored{excepted: map[string]int{}}
	replicas := filepath.Join(dir, "replica")
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if path == replicas {
			return fs.SkipDir
		}
		database, ok := strings.CutSuffix(path, "-ledger")
		if !ok || !isWAL(database) {
			return nil
		}
		replica := filepath.Join(replicas, database)
		if strings.HasPrefix(path, filepath.Join(dir, "aside")+"/") {
			replica = filepath.Join(filepath.Dir(path), "replica")
		}
		c.check(ctx, &r, database, replica)
		return nil
	})
	if len(r.wrong) > 0 {
		keep := filepath.Join(c.logs, name+"."+mode+".databases")
		os.RemoveAll(keep)
		_ = os.CopyFS(keep, os.DirFS(dir))
	}
	return r
}

func isWAL(database string) bool {
	f, err := os.Open(database)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 20)
	n, _ := f.Read(head)
	return n == 20 && head[18] == 2 && head[19] == 2
}

func (c *config) check(ctx context.Context, r *restored, database, replica string) {
	if fi, err := os.Stat(database); err == nil && fi.Size() > mostCompared {
		r.excepted["too large to compare here"]++
		return
	}
	equal, first := c.restore(ctx, database, replica)
	if fi, err := os.Stat(database + "-wal"); equal && (err != nil || fi.Size() == 0) {
		r.atClose++
		return
	}
	ship := exec.CommandContext(ctx, c.walferry, "ship", database, "file://"+replica)
	ship.Env = append(os.Environ(), "WALFERRY_TAKEOVER=1") // as in the test
	out, err := ship.CombinedOutput()
	if equal, second := c.restore(ctx, database, replica); err == nil && equal {
		r.shipped++
	} else {
		if cutShort(database) {
			r.excepted["cut short by the test"]++
			return
		}
		for _, e := range exceptions {
			if strings.Contains(string(out), e.text) {
				r.excepted[e.reason]++
				return
			}
		}
		r.wrong = append(r.wrong, fmt.Sprintf("%s: before: %s; ship: %s; after: %s", database, first, bytes.TrimSpace(out), second))
	}
}

// restore tells whether the replica restores to the database's bytes, or what it says.
func (c *config) restore(ctx context.Context, database, replica string) (bool, string) {
	var restored bytes.Buffer
	store, err := objstore.New("file://"+replica, objstore.Options{})
	if err == nil {
		_, err = restore.Stream(ctx, store, &restored, restore.Options{})
	}
	if err != nil {
		return false, err.Error()
	}
	a, err := os.ReadFile(database)
	if err != nil {
		return false, err.Error()
	}
	b := restored.Bytes()
	if bytes.Equal(a, b) {
		return true, ""
	}
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	return false, fmt.Sprintf("%d bytes, restored %d, equal up to %d", len(a), len(b), at)
}

// cutShort tells whether a database has fewer bytes than its first page says.
func cutShort(database string) bool {
	db, err := os.ReadFile(database)
	if err != nil || len(db) < 100 {
		return err == nil
	}
	pageSize := int(binary.BigEndian.Uint16(db[16:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	return len(db) < pageSize*int(binary.BigEndian.Uint32(db[28:]))
}
