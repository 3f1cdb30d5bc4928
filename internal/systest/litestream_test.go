package systest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/s3test"
)

// replicate runs litestream on the place's database.
func (p *place) replicate() *proc {
	p.t.Helper()
	config := filepath.Join(tempDir(p.t), "litestream.yml")
	text := fmt.Sprintf("dbs:\n  - path: %s\n    monitor-interval: 50ms\n    replica:\n      url: %s\n      sync-interval: 50ms\n", p.db, p.replica)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return start(p.t, p.dir, p.env, litestream(p.t), "replicate", "-config", config)
}

// awaitRow waits until litestream restores a newest row.
func (p *place) awaitRow(value string) {
	p.t.Helper()
	var was ltx.TXID
	eventually(p.t, "litestream has replicated "+value, func() bool {
		now := p.newest() // a restore is slow: only of what is new
		if now == was {
			return false
		}
		was = now
		return p.query(p.byLitestream(), "SELECT v FROM t ORDER BY rowid DESC LIMIT 1") == value
	})
}

func TestLitestream_ItsReplicaIsRestored(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, store := range []string{"file", "s3"} {
		t.Run(store, func(t *testing.T) {
			p := newPlace(t)
			if store == "s3" {
				p.onS3(server, "bucket", "app")
			}
			s := p.client("vfs=plain")
			s.exec("PRAGMA journal_mode=WAL")
			s.exec("CREATE TABLE t(v, b)")
			l := p.replicate()
			for i := range 5 {
				s.exec(fmt.Sprintf("INSERT INTO t VALUES('row %d', randomblob(200000))", i))
				s.exec("DELETE FROM t WHERE rowid % 3 = 0")
				p.awaitRow(s.get("SELECT v FROM t ORDER BY rowid DESC LIMIT 1"))
				r := p.shell(".open "+p.replicaURI(""), "SELECT count(*) || '|' || sum(length(b)) FROM t;", "PRAGMA integrity_check;").ok(t)
				if want := s.get("SELECT count(*) || '|' || sum(length(b)) FROM t") + "\nok\n"; r.stdout != want || len(r.errors()) > 0 {
					t.Errorf("read where it lies: %q %q, want %q", r.stdout, r.stderr, want)
				}
			}
			l.kill()
			mustEqual(t, "walferry restore", p.restored(), p.byLitestream())
			if a, b := p.query(p.restored(), "SELECT count(*), sum(length(b)) FROM t"), s.get("SELECT count(*) || '|' || sum(length(b)) FROM t"); a != b {
				t.Errorf("restored %s, the database has %s", a, b)
			}
			s.do("close")
		})
	}
}

// TestLitestream_GoesOnWithADatabaseOfOurs replicates to our prefix with litestream
// once walferry has closed, with one object there or several, and with a row that
// neither has seen.
func TestLitestream_GoesOnWithADatabaseOfOurs(t *testing.T) {
	for _, objects := range []ltx.TXID{1, 2, 5} {
		t.Run(objects.String(), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			s := p.client("interval=1h")
			s.exec("CREATE TABLE t(v, b)")
			s.exec("INSERT INTO t VALUES('ours', randomblob(100000))")
			s.exec("PRAGMA walferry_sync")
			for p.newest() < objects {
				s.exec("UPDATE t SET b = randomblob(100000)")
				s.exec("PRAGMA walferry_sync")
			}
			s.end()

			s = p.client("vfs=plain")
			s.exec("INSERT INTO t VALUES('between', randomblob(50000))")
			l := p.replicate()
			p.awaitRow("between")
			s.exec("INSERT INTO t VALUES('theirs', randomblob(100))")
			p.awaitRow("theirs")
			l.kill()
			if got := p.query(p.restored(), "PRAGMA integrity_check; SELECT group_concat(v) FROM t"); got != "ok\nours,between,theirs" {
				t.Errorf("restored %s", got)
			}
			mustEqual(t, "walferry restore", p.restored(), p.byLitestream())
			s.do("close")
		})
	}
}

// TestInvariant17_LitestreamRestoresAtEveryTXID grows, shrinks, vacuums, and compares
// each state with what SQLite had at that moment.
func TestInvariant17_LitestreamRestoresAtEveryTXID(t *testing.T) {
	for _, size := range []int{512, 1024, 4096, 16384, 65536} {
		for autoVacuum := range 3 {
			t.Run(fmt.Sprintf("page size %d, auto_vacuum %d", size, autoVacuum), func(t *testing.T) {
				t.Parallel()
				everyTXID(t, size, autoVacuum)
			})
		}
	}
}

func everyTXID(t *testing.T, size, autoVacuum int) {
	p := newPlace(t)
	s := p.client("interval=1h")
	s.exec(fmt.Sprintf("PRAGMA page_size=%d", size))
	s.exec(fmt.Sprintf("PRAGMA auto_vacuum=%d", autoVacuum))
	states := map[ltx.TXID]string{}
	for i, sql := range []string{
		"CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
		"INSERT INTO t(v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT randomblob(900) FROM n",
		"UPDATE t SET v = randomblob(1000) WHERE id % 7 = 0",
		"DELETE FROM t WHERE id > 20",
		"VACUUM",
		"INSERT INTO t(v) SELECT randomblob(40000) FROM t",
		"DELETE FROM t WHERE id > 10",
		"PRAGMA incremental_vacuum",
		"PRAGMA wal_checkpoint(TRUNCATE)",
		"INSERT INTO t(v) VALUES('after')",
		"DROP TABLE t",
		"VACUUM",
	} {
		s.exec(sql)
		s.exec("PRAGMA walferry_sync")
		txid := p.newest()
		image := p.image()
		if was, ok := states[txid]; ok {
			mustEqual(t, "no object came of "+sql, image, was)
			continue
		}
		states[txid] = image
		if i == 5 {
			mustEqual(t, "walferry restore after "+sql, p.restored(), image)
		}
	}
	s.end()
	for txid, want := range states {
		mustEqual(t, "litestream restore at "+txid.String(), p.byLitestream("-txid", txid.String()), want)
	}
	if len(states) < 9 {
		t.Errorf("only %d objects came of the workload", len(states))
	}
	p.comesBack()
}

// TestLitestream_ItsReplicaIsReadWhileItCompacts has Litestream merge, make snapshots and remove every second
// or so, while connections read its replica in long transactions.
func TestLitestream_ItsReplicaIsReadWhileItCompacts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.plain(".open "+p.db, "PRAGMA journal_mode=WAL;").ok(t)
	w := p.start("writing.py", "vfs=unix")
	w.expect("ready")
	config := filepath.Join(tempDir(t), "litestream.yml")
	text := fmt.Sprintf("dbs:\n  - path: %s\n    monitor-interval: 50ms\n    replica:\n      url: %s\n      sync-interval: 50ms\n"+
		"snapshot:\n  interval: 1s\n  retention: 2s\nlevels:\n  - interval: 1s\n  - interval: 2s\nl0-retention: 1s\nl0-retention-check-interval: 500ms\n", p.db, p.replica)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, p.dir, p.env, litestream(t), "replicate", "-config", config)
	levels := func() string {
		found, _ := filepath.Glob(filepath.Join(p.objects, "ltx", "*", "*.ltx"))
		seen := map[string]bool{}
		for _, f := range found {
			seen[filepath.Base(filepath.Dir(f))] = true
		}
		return fmt.Sprint(slices.Sorted(maps.Keys(seen)))
	}
	eventually(t, "litestream has merged", func() bool { return levels() == "[0 1 2 9]" })
	r := p.start("readers.py", "4", fmt.Sprint(rounds(t, 40)), "cache_size=1MB")
	done := r.expect("done")
	for _, line := range r.seen {
		t.Error(line)
	}
	if strings.HasPrefix(done, "0 ") {
		t.Error("no transaction went well")
	}
	t.Logf("%s transactions read, and gone", done)
	w.finish()
	eventually(t, "litestream has replicated the last row", func() bool {
		c := p.shell(".open "+p.replicaURI(""), "SELECT n FROM head;")
		return c.code == 0 && strings.TrimSpace(c.stdout) == p.query(p.db, "SELECT n FROM head")
	})
	l.kill()
	if got := p.shell(".open "+p.replicaURI(""), "PRAGMA integrity_check;").ok(t).stdout; got != "ok\n" {
		t.Error(got)
	}
}
