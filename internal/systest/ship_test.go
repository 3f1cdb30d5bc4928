package systest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// says fails the test unless a program has ended with a code and said all of the texts on
// stderr, or with code 0 on stdout.
func (r result) says(t testing.TB, code int, texts ...string) {
	t.Helper()
	said := r.stderr
	if code == 0 {
		said = r.stdout
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("it does not say %q: %s", text, said)
		}
	}
	if r.code != code {
		t.Fatalf("exit status %d, not %d\nstdout:\n%s\nstderr:\n%s", r.code, code, r.stdout, r.stderr)
	}
}

// ship runs `walferry ship` once.
func (p *place) ship(flags ...string) result {
	p.t.Helper()
	return p.walferry(append(append([]string{"ship"}, flags...), p.db, p.replica)...)
}

// sidecar starts `walferry ship -watch` and waits until it is at work.
func (p *place) sidecar(flags ...string) *proc {
	p.t.Helper()
	args := append([]string{"ship", "-watch", "-interval", "30ms"}, flags...)
	s := start(p.t, p.dir, p.env, artefact(p.t, "walferry"), append(args, p.db, p.replica)...)
	s.expect("watching")
	return s
}

// end asks a sidecar to end, which it does successfully.
func (p *proc) end() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("%v\nstderr:\n%s", p.cmd.ProcessState, p.err.String())
	}
}

// arrives waits until the replica is the database, byte for byte.
func (p *place) arrives(what string) {
	p.t.Helper()
	want, err := os.ReadFile(p.image())
	if err != nil {
		p.t.Fatal(err)
	}
	was, first := "", true
	eventually(p.t, what, func() bool {
		now := fmt.Sprint(p.names())
		if now == was && !first {
			return false
		}
		was, first = now, false
		r := p.walferry("restore", "-force", "-o", filepath.Join(p.dir, "arrived.db"), p.replica)
		got, err := os.ReadFile(filepath.Join(p.dir, "arrived.db"))
		return r.code == 0 && err == nil && string(got) == string(want)
	})
}

// names are the replica's files.
func (p *place) names() []string {
	found, _ := filepath.Glob(filepath.Join(p.objects, "ltx", "*", "*.ltx"))
	return found
}

// app is a program with plain SQLite: the sqlite3 shell.
type app struct{ *proc }

func (p *place) app() app {
	p.t.Helper()
	a := app{start(p.t, p.dir, p.env, sqlite3Shell(p.t), "-batch", p.db)}
	a.do(".timeout 20000")
	return a
}

// do runs lines to their end.
func (a app) do(lines ...string) {
	a.t.Helper()
	for _, line := range lines {
		a.send(line)
	}
	a.send(".print done")
	a.expect("done")
	if said := a.err.String(); said != "" {
		a.t.Fatalf("the application met: %s", said)
	}
}

// newPlainDatabase is in WAL mode, with a table, and nobody has it open.
func newPlainDatabase(t *testing.T) *place {
	t.Helper()
	p := newPlace(t)
	p.plain(".open "+p.db, "PRAGMA journal_mode=WAL;", "CREATE TABLE t(id INTEGER PRIMARY KEY, v);", "INSERT INTO t(v) VALUES('first');").ok(t)
	return p
}

func TestShip_OnceShipsWhatIsCommitted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.ship().says(t, 1, "there is no database "+p.db)
	if left, _ := filepath.Glob(filepath.Join(p.dir, "*")); len(left) != 0 {
		t.Fatalf("a command that failed has made %v", left)
	}
	p.walferry("ship", p.db).says(t, 2, "no URL", "walferry help ship")
	p.walferry("ship", p.db, "ftp://x").says(t, 2, "file:///dir")
	p.walferry("ship", "-interval", "1ms", p.db, p.replica).says(t, 2, "10ms to 1h")

	if err := os.WriteFile(p.db, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.ship("-wal", "auto").says(t, 1, "is empty")
	p.plain(".open "+p.db, "CREATE TABLE t(v);").ok(t)
	p.ship().says(t, 1, "not in WAL mode", "-wal auto")
	p.ship("-wal", "auto").says(t, 0, "shipped", "TXID 0000000000000002", "2 objects")
	p.comesBack()
	p.ship().says(t, 0, "nothing to ship", "TXID 0000000000000002")
	p.plain(".open "+p.db, "INSERT INTO t VALUES(1);").ok(t)
	p.ship("-json").says(t, 0, `"shipped": true`, `"txid": "0000000000000003"`, `"objects": 1`)
	if behind := p.status()["lag_ms"]; behind != 0.0 {
		t.Errorf("all is shipped, and the status says that it is %v ms behind", behind)
	}
	p.comesBack()

	// A walferry application that was killed has left what its last window held.
	s := p.client("interval=1h")
	s.exec("INSERT INTO t VALUES('left behind')")
	s.kill()
	p.ship().says(t, 0, "shipped", "TXID 0000000000000004")
	p.comesBack()
}

func TestShip_AsksTheProcessThatShips(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s := p.client("interval=1h")
	s.exec("CREATE TABLE t(v)")
	s.exec("PRAGMA walferry_sync")
	was := p.newest()
	s.exec("INSERT INTO t VALUES(1)")
	p.ship().says(t, 0, fmt.Sprintf("process %d ships", s.cmd.Process.Pid))
	if p.newest() != was+1 {
		t.Fatalf("the newest object is %s, was %s", p.newest(), was)
	}
	p.walferry("ship", p.db, "file://"+p.dir+"/elsewhere").says(t, 1, "stop that process", p.replica)
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	p.ship("-timeout", "300ms").says(t, 1, "has not answered", fmt.Sprintf("process %d", s.cmd.Process.Pid))
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	s.end()
	p.comesBack()
}

func TestShip_SaysWhyNothingShips(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	p.ship().ok(t)
	q := p.stranger("")
	q.ship().says(t, 1, "-takeover", "walferry adopt", "restore")
	q.ship("-takeover").says(t, 0, "shipped")
	p.plain(".open "+p.db, "INSERT INTO t(v) VALUES('too late');").ok(t)
	p.ship().says(t, 1, "another writer", "-takeover")

	down := newPlainDatabase(t)
	down.replica = "s3://bucket/app"
	down = down.with("AWS_ENDPOINT_URL_S3=http://127.0.0.1:1", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b")
	down.ship().says(t, 1, "connection refused")
	down.ship("-timeout", "1500ms").says(t, 1, "not shipped in 1.5s", "connection refused")
}

// TestShip_ASidecarShipsWhatAPlainProgramDoes lets the sqlite3 shell work while a
// sidecar is killed and started again. WALFERRY_TEST_ROUNDS is how often.
func TestShip_ASidecarShipsWhatAPlainProgramDoes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p := newPlainDatabase(t)
	sidecar, a := p.sidecar(), p.app()
	acts := []string{
		"INSERT INTO t(v) VALUES(randomblob(abs(random() % 9000)));",
		"INSERT INTO t(v) SELECT randomblob(2000) FROM t LIMIT 30;",
		"UPDATE t SET v = randomblob(300) WHERE id % 7 = abs(random() % 7);",
		"DELETE FROM t WHERE id % 5 = abs(random() % 5);",
		"PRAGMA wal_checkpoint(PASSIVE);",
		"PRAGMA wal_checkpoint(TRUNCATE);",
		"PRAGMA wal_checkpoint(RESTART);",
		"VACUUM;",
	}
	for round := range rounds(t, 6) {
		for range 3 + r.IntN(10) {
			a.do(acts[r.IntN(len(acts))])
			switch r.IntN(12) {
			case 0:
				a.finish() // the WAL goes
				a = p.app()
			case 1:
				sidecar.kill()
				a.do(acts[0])
				sidecar = p.sidecar()
			case 2:
				a.kill()
				a = p.app()
			}
		}
		if round%2 == 0 {
			a.finish()
		}
		p.arrives(fmt.Sprintf("seed %d, round %d: what the application did is in the replica", seed, round))
		if round%2 == 0 {
			a = p.app()
		}
	}
	a.finish()
	sidecar.end()
	p.comesBack()
	if said := walferryLines(sidecar.err.String()); len(said) > 1 || len(said) == 1 && !strings.Contains(said[0], "shipping to") {
		t.Errorf("the sidecar's log: %q", said)
	}
}

// TestShip_OneOfTwoSidecarsShips lets the first be stopped, then end, and the second
// take over.
func TestShip_OneOfTwoSidecarsShips(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	first := p.sidecar()
	p.arrives("the first ships")
	second := start(t, p.dir, p.env, artefact(t, "walferry"), "ship", "-watch", "-interval", "30ms", p.db, p.replica)
	second.expect(fmt.Sprintf("watching %s; process %d ships it", p.db, first.cmd.Process.Pid))
	a := p.app()
	a.do("INSERT INTO t(v) VALUES('two watch');")
	p.arrives("one of two ships")

	_ = first.cmd.Process.Signal(syscall.SIGSTOP)
	a.do("INSERT INTO t(v) VALUES('while it is stopped');", "PRAGMA wal_checkpoint(PASSIVE);", "UPDATE t SET v = v || '!';")
	_ = first.cmd.Process.Signal(syscall.SIGCONT)
	p.arrives("the first goes on")

	first.kill()
	a.do("INSERT INTO t(v) VALUES('the first is dead');")
	p.arrives("the second has taken over")
	a.finish()
	second.end()
	p.comesBack()
}

// TestShip_WhoWaitsTakesOver kills the one that ships, and nothing else happens.
func TestShip_WhoWaitsTakesOver(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	leads := p.sidecar()
	for range rounds(t, 8) {
		waits := p.sidecar()
		leads.kill()
		eventually(t, "who waited has taken over", func() bool { return p.status()["shipper_pid"] == float64(waits.cmd.Process.Pid) })
		leads = waits
	}
	leads.end()
	p.comesBack()
}

// TestShip_NothingHappensWithoutCommits waits for a sidecar to fall silent, while an
// application has the database open.
func TestShip_NothingHappensWithoutCommits(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	a, s := p.app(), p.sidecar()
	a.do("INSERT INTO t(v) VALUES(1);")
	p.arrives("the application's commit")
	eventually(t, "no batch was read for a second", func() bool {
		heartbeat, _ := p.status()["heartbeat_ms"].(float64)
		return time.Since(time.UnixMilli(int64(heartbeat))) > time.Second
	})
	a.finish()
	s.end()
}

// TestShip_TheLastBatchGoesAtTheEnd ends a sidecar that would not look again for an hour.
func TestShip_TheLastBatchGoesAtTheEnd(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	s := p.sidecar("-interval", "1h")
	p.arrives("the first look")
	p.plain(".open "+p.db, "INSERT INTO t(v) VALUES('the last');").ok(t)
	s.end()
	p.comesBack()
}

func TestShip_ASidecarFollowsADatabaseThatIsReplaced(t *testing.T) {
	t.Parallel()
	p := newPlainDatabase(t)
	s := p.sidecar()
	p.arrives("the first database")
	next := filepath.Join(p.dir, "next.db")
	p.plain(".open "+next, "PRAGMA journal_mode=WAL;", "CREATE TABLE other(v);", "INSERT INTO other VALUES(randomblob(20000));").ok(t)
	if err := os.Remove(p.db); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, p.db); err != nil {
		t.Fatal(err)
	}
	p.arrives("the second database")
	p.plain(".open "+p.db, "INSERT INTO other VALUES('more');").ok(t)
	p.arrives("more of the second database")
	s.end()
}

// TestShip_ASidecarIsNotInTheWay sees that between batches the last close of the application
// leaves nothing, and that a sidecar for a database that is not in WAL mode waits.
func TestShip_ASidecarIsNotInTheWay(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.plain(".open "+p.db, "CREATE TABLE t(v);").ok(t)
	s := p.sidecar()
	eventually(t, "the sidecar says why it waits", func() bool { return strings.Contains(s.err.String(), "not in WAL mode") })
	p.plain(".open "+p.db, ".timeout 20000", "PRAGMA journal_mode=WAL;", "INSERT INTO t VALUES(1);").ok(t)
	p.arrives("the database that was switched")
	eventually(t, "nothing is left beside the database", func() bool { return !exists(p.db+"-wal") && !exists(p.db+"-shm") })
	s.end()
	p.comesBack()
}

// TestShip_WithoutInotify has a user whose inotify instances, or watches, are all taken: a
// sidecar says so once, looks from time to time instead, also for the role of another, and
// a program with walferry does so too.
func TestShip_WithoutInotify(t *testing.T) {
	for call, says := range map[string]string{"inotify_init1:error=EMFILE": "max_user_instances", "inotify_add_watch:error=ENOSPC": "max_user_watches"} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			strace, err := exec.LookPath("strace")
			if err != nil {
				missing(t, "strace", "apt-get install strace")
			}
			p := newPlainDatabase(t)
			without := func(name string, args ...string) *proc {
				flags := []string{"-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=inotify_init1,inotify_add_watch", "-e", "inject=" + call, name}
				return start(t, p.dir, p.env, strace, append(flags, args...)...)
			}
			sidecar := func() *proc {
				s := without(artefact(t, "walferry"), "ship", "-watch", "-interval", "30ms", p.db, p.replica)
				s.expect("watching")
				return s
			}
			first := sidecar()
			p.arrives("the first ships")
			a := p.app()
			a.do("INSERT INTO t(v) VALUES('by a program without walferry');")
			p.arrives("what wakes nobody")
			c := client{without(python(t), script("client.py"))}
			c.do("open")
			c.exec("INSERT INTO t(v) VALUES('by one with it')")
			c.confirm()
			p.arrives("what wakes who cannot watch")
			second := sidecar()
			first.kill()
			eventually(t, "another has taken over", func() bool {
				by := p.status()["shipper_pid"]
				return by == float64(second.cmd.Process.Pid) || by == float64(c.cmd.Process.Pid)
			})
			c.exec("INSERT INTO t(v) VALUES('the first is dead')")
			c.confirm()
			p.arrives("the next ships")
			c.end()
			a.finish()
			second.end()
			p.comesBack()
			for who, said := range map[string]string{"the sidecar": first.err.String(), "the program": c.err.String()} {
				if n := strings.Count(said, says); n != 1 || !strings.Contains(said, "looking every 1s instead") {
					t.Errorf("%s says it %d times: %s", who, n, said)
				}
			}
		})
	}
}
