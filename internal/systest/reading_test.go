package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/s3test"
)

// reading is a program with a connection to the place's replica, driven line by line. It looks for the
// newest state with each transaction unless params have another poll.
func (p *place) reading(params ...string) client {
	p.t.Helper()
	return p.client(append([]string{"vfs=walferry-replica", "poll=0s"}, params...)...)
}

// filled is a place with three tables, of 3 MB, shipped to a bucket or a directory.
func filled(t testing.TB, server *s3test.Server, prefix string) *place {
	t.Helper()
	p := newPlace(t)
	if server != nil {
		p.onS3(server, "bucket", prefix)
	}
	s := p.client("interval=1h")
	s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v, b)")
	s.exec("CREATE INDEX i ON t(v)")
	s.exec("PRAGMA walferry_sync")
	s.exec("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t SELECT i, i * 7919 % 3001, randomblob(900) FROM n")
	s.exec("PRAGMA walferry_sync")
	s.exec("UPDATE t SET v = -v WHERE id % 100 = 0")
	s.exec("PRAGMA walferry_sync")
	s.end()
	return p
}

// TestReading_TransactionsAreOneStateUnderAWriter reads with threads of several processes, from small caches,
// while a writer, merges and retention go on, in it and from outside.
func TestReading_TransactionsAreOneStateUnderAWriter(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, store := range []string{"file", "s3"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			if store == "s3" {
				p.onS3(server, "bucket", "app")
			}
			w := p.start("writing.py", "interval=20ms", "l0_retention=3s", "snapshot_interval=1s", "retention=3s")
			w.expect("ready")
			dir, n := tempDir(t), fmt.Sprint(rounds(t, 15))
			readers := []*proc{
				p.start("readers.py", "4", n, "cache_size=1MB"),
				p.start("readers.py", "2", n, "cache_dir="+dir, "cache_dir_size=1MB"),
				p.start("readers.py", "2", n, "hydrate="+filepath.Join(dir, "local"), "cache_size=1MB"),
			}
			stop := make(chan struct{})
			merged := make(chan error, 1)
			go func() {
				defer close(merged)
				for {
					select {
					case <-stop:
						return
					case <-time.After(300 * time.Millisecond):
						if r := p.walferry("compact", "-snapshot", "-retention", "3s", "-l0-retention", "3s", p.replica); r.code != 0 {
							merged <- fmt.Errorf("compact: %s", r.stderr)
							return
						}
					}
				}
			}()
			for i, r := range readers {
				r.patience *= 3
				done := r.expect("done")
				for _, line := range r.seen {
					t.Errorf("process %d: %s", i, line)
				}
				if strings.HasPrefix(done, "0 ") {
					t.Errorf("process %d: no transaction went well", i)
				}
				t.Logf("process %d: %s transactions read, and gone", i, done)
			}
			close(stop)
			if err := <-merged; err != nil {
				t.Error(err)
			}
			w.finish()
			r := p.reading()
			copied := filepath.Join(p.dir, "copy.db")
			r.exec("VACUUM INTO 'file:" + copied + "?vfs=unix'")
			r.end()
			const all = "SELECT count(*), sum(v) FROM t; SELECT * FROM head; SELECT count(*), hex(max(x)) FROM log; SELECT id, hex(b) FROM big"
			if got, want := p.query(copied, all), p.query(p.restored(), all); got != want {
				t.Error("what is read is not what is restored")
			}
		})
	}
}

func TestReading_QueriesAreThoseOfTheRestoredFile(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	restored := p.restored()
	s := p.reading("cache_size=1MB")
	for _, sql := range []string{
		"SELECT count(*), sum(v), sum(length(b)) FROM t",
		"SELECT group_concat(id) FROM (SELECT id FROM t WHERE v BETWEEN 100 AND 200 ORDER BY v)",
		"SELECT max(hex(b)) FROM t WHERE id % 17 = 3",
		"SELECT sum(a.id * b.id) FROM t a JOIN t b ON a.v = b.v + 1",
		"SELECT hex(b) FROM t ORDER BY b DESC LIMIT 1",
		"SELECT group_concat(sql) FROM sqlite_schema",
		"PRAGMA integrity_check", "PRAGMA page_count", "PRAGMA page_size", "PRAGMA schema_version", "PRAGMA user_version", "PRAGMA freelist_count",
	} {
		want, _, _ := strings.Cut(p.query(restored, sql), "|")
		if got := s.get(sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	s.end()
}

// A sort of a million rows does not fit into memory, and goes to a file of the platform's.
func TestReading_ASortOfAMillionRowsUsesTemporaryFiles(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	tmp := tempDir(t)
	p = p.with("SQLITE_TMPDIR="+tmp, "TMPDIR="+tmp)
	lines := []string{"PRAGMA temp_store=FILE;", "PRAGMA cache_size=100;",
		"SELECT 'sum ' || sum(n * x % 1000003) FROM (SELECT row_number() OVER (ORDER BY a.v * b.v % 9973, a.id, b.id) n, a.id + b.id x " +
			"FROM t a JOIN t b ON b.id <= 350);",
		"CREATE TEMP TABLE x AS SELECT * FROM main.t;", "SELECT 'copied ' || count(*) || ' ' || sum(v) FROM temp.x;"}
	want := p.plain(append([]string{".open '" + p.restored() + "'"}, lines...)...).ok(t).stdout
	s := start(t, p.dir, p.env, sqlite3Shell(t), "-batch")
	for _, line := range append([]string{".load " + strings.TrimSuffix(extension(t), ".so"), ".open '" + p.replicaURI("") + "'"}, lines...) {
		s.send(line)
	}
	eventually(t, "a temporary file is in use", func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.cmd.Process.Pid))
		return slices.ContainsFunc(fds, func(fd string) bool {
			name, _ := os.Readlink(fd)
			return strings.HasPrefix(name, tmp+"/etilqs_")
		})
	})
	if got := "sum " + s.expect("sum") + "\ncopied " + s.expect("copied") + "\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.finish()
	if left, _ := os.ReadDir(tmp); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestReading_WritesFailAndReadsGoOn(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	s := p.reading()
	before := s.get("SELECT count(*) || '|' || sum(v) FROM t")
	for _, sql := range []string{
		"INSERT INTO t(v) VALUES(1)", "UPDATE t SET v = 0", "DELETE FROM t", "CREATE TABLE u(x)", "DROP TABLE t", "CREATE INDEX j ON t(b)",
		"REINDEX", "ANALYZE", "VACUUM", "PRAGMA user_version=7", "PRAGMA application_id=7", "ALTER TABLE t ADD COLUMN z",
		"WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100) INSERT INTO t(v) SELECT i FROM n",
	} {
		s.fails("exec "+sql, "readonly")
		if got := s.get("SELECT count(*) || '|' || sum(v) FROM t"); got != before {
			t.Errorf("after %s: %s, before %s", sql, got, before)
		}
	}
	for _, mode := range []string{"WAL", "MEMORY", "TRUNCATE", "OFF", "DELETE"} {
		_, _ = s.try("exec PRAGMA journal_mode=" + mode)
		if got := s.get("SELECT count(*) || '|' || sum(v) FROM t"); got != before {
			t.Errorf("with journal_mode=%s: %s, before %s", mode, got, before)
		}
	}
	s.fails("exec INSERT INTO t(v) VALUES(1)", "readonly")
	s.exec("CREATE TEMP TABLE mine AS SELECT id FROM t") // which is no write to the replica
	if got := s.get("SELECT count(*) FROM mine"); got != "3000" {
		t.Errorf("%s rows in a temporary table", got)
	}
	s.fails("get SELECT walferry_token()", "nobody commits")
	s.fails("get SELECT walferry_mark('x')", "nobody commits")
	s.end()
}

// SQLite takes no lock with these, and so would not see that another state was chosen.
func TestReading_WithoutLocksIsOneTransaction(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	for _, param := range []string{"immutable=1", "nolock=1", "immutable=on"} {
		s := p.reading(param)
		txid := s.get("SELECT walferry_txid()")
		if got := s.get("SELECT count(*) FROM t"); got != "3000" {
			t.Errorf("%s: %s rows", param, got)
		}
		s.fails("exec PRAGMA walferry_txid='2'", "transaction is open")
		s.fails("exec PRAGMA walferry_at='latest'", "transaction is open")
		w := p.client()
		w.exec("UPDATE t SET v = 12345")
		w.exec("PRAGMA walferry_sync")
		w.end()
		if got := s.get("PRAGMA integrity_check"); got != "ok" || s.get("SELECT walferry_txid()") != txid || s.get("SELECT count(*) FROM t WHERE v = 12345") == "3000" {
			t.Errorf("%s: the state has changed: %s", param, got)
		}
		s.end()
		w = p.client()
		w.exec("UPDATE t SET v = id")
		w.end()
	}
}

// The name of the file that would hold such a transaction together comes from the main database.
func TestReading_ATransactionOverTwoDatabasesNeedsOneOfThemAsMain(t *testing.T) {
	t.Parallel()
	p := filled(t, nil, "")
	for _, name := range []string{"a", "b"} {
		p.plain(".open "+name+".db", "PRAGMA journal_mode=DELETE;", "CREATE TABLE x(v);").ok(t)
	}
	r := p.shell(".open '"+p.replicaURI("")+"'", "ATTACH 'file:a.db?vfs=unix' AS a;", "ATTACH 'file:b.db?vfs=unix' AS b;",
		"BEGIN;", "INSERT INTO a.x SELECT v FROM t;", "INSERT INTO b.x SELECT v FROM t;", "COMMIT;",
		"SELECT count(*) FROM a.x;", "SELECT count(*) FROM b.x;", "INSERT INTO a.x SELECT v FROM t;", "SELECT count(*) FROM a.x;")
	if lines := r.errors(); len(lines) != 1 || !strings.Contains(lines[0], "attach the replica to that") || r.stdout != "0\n0\n3000\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	r = p.shell(".open 'file:a.db?vfs=unix'", "ATTACH 'file:b.db?vfs=unix' AS b;", "ATTACH '"+p.replicaURI("")+"' AS r;",
		"BEGIN IMMEDIATE;", "INSERT INTO main.x SELECT v FROM r.t;", "INSERT INTO b.x SELECT v FROM r.t;", "COMMIT;",
		"SELECT count(*) FROM main.x;", "SELECT count(*) FROM b.x;").ok(t)
	if r.stdout != "6000\n3000\n" || len(r.errors()) != 0 {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "*-mj*")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestReading_TwoMomentsInOneQuery attaches the same replica at several, and lets one move.
func TestReading_TwoMomentsInOneQuery(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	w := p.client("interval=1h")
	w.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	w.exec("INSERT INTO t VALUES(1,'a'),(2,'b'),(3,'c')")
	first := w.get("PRAGMA walferry_sync")
	w.get("SELECT walferry_mark('before')")
	then := time.Now().UTC().Format(time.RFC3339Nano)
	time.Sleep(2 * time.Millisecond) // the history's times are whole milliseconds
	w.exec("UPDATE t SET v = 'x' WHERE id = 2")
	w.exec("PRAGMA walferry_sync")
	s := p.reading()
	for name, param := range map[string]string{"by_txid": "txid=" + first, "by_time": "at=" + then, "by_mark": "mark=before"} {
		s.exec("ATTACH '" + p.replicaURI("&"+param) + "' AS " + name)
		diff := "SELECT group_concat(id || v) FROM (SELECT * FROM main.t EXCEPT SELECT * FROM " + name + ".t)"
		if got := s.get(diff); got != "2x" {
			t.Errorf("%s: %s differ, want 2x", name, got)
		}
	}
	w.exec("INSERT INTO t VALUES(4,'d')")
	w.exec("PRAGMA walferry_sync")
	if got := s.get("SELECT group_concat(id || v) FROM (SELECT * FROM main.t EXCEPT SELECT * FROM by_mark.t)"); got != "2x,4d" {
		t.Errorf("after another commit: %s", got)
	}
	if got := s.get("SELECT walferry_txid('by_mark')"); got != first {
		t.Errorf("the attached one reads %s", got)
	}
	s.exec("PRAGMA by_mark.walferry_at='latest'")
	if got := s.get("SELECT count(*) FROM (SELECT * FROM main.t EXCEPT SELECT * FROM by_mark.t)"); got != "0" {
		t.Errorf("%s rows differ where both are the newest", got)
	}
	s.exec("BEGIN")
	if got := s.get("SELECT count(*) FROM by_time.t"); got != "3" {
		t.Errorf("%s rows", got)
	}
	s.fails("exec PRAGMA by_time.walferry_txid='1'", "transaction is open")
	s.exec("PRAGMA main.walferry_txid='" + first + "'") // of which nothing is read yet
	if got := s.get("SELECT count(*) FROM main.t"); got != "3" {
		t.Errorf("%s rows", got)
	}
	s.exec("COMMIT")
	s.exec("DETACH by_time")
	s.end()
	w.end()
}

// TestReading_WhatAWriterHasCommittedIsRead carries tokens from one process to others, whose poll is long.
func TestReading_WhatAWriterHasCommittedIsRead(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, store := range []string{"file", "s3"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			if store == "s3" {
				p.onS3(server, "bucket", "app")
			}
			w := p.client("interval=20ms", "l0_retention=1s", "snapshot_interval=1s", "retention=1s")
			w.exec("CREATE TABLE t(v)")
			w.confirm()
			readers := []client{p.reading("poll=1h"), p.reading("poll=1s")}
			for i := range 30 {
				w.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
				token := w.get("SELECT walferry_token()")
				for n, r := range readers {
					if got := r.get("SELECT walferry_wait('" + token + "', 30000)"); got != "1" {
						t.Fatalf("reader %d: the wait for row %d is %s", n, i, got)
					}
					if got := r.get("SELECT max(v) FROM t"); got != fmt.Sprint(i) {
						t.Fatalf("reader %d: the newest row is %s, not %d", n, got, i)
					}
				}
			}
			r := readers[0]
			token := w.get("SELECT walferry_token()")
			epoch, number, _ := strings.Cut(token, "-")
			if got := r.get("SELECT walferry_wait('" + epoch + "-9" + number + "', 100)"); got != "0" {
				t.Errorf("of a window that is to come: %s", got)
			}
			r.fails("get SELECT walferry_wait('0000deadbeef-1', 100)", "epoch")
			r.fails("get SELECT walferry_wait('nonsense', 100)", "not a token")
			r.exec("PRAGMA walferry_txid='" + r.get("SELECT walferry_txid()") + "'")
			r.fails("get SELECT walferry_wait('"+token+"', 100)", "state of the past")
			for _, c := range append(readers, w) {
				c.end()
			}
		})
	}
}
