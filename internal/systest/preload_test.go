package systest

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPreload_WorkersShipWhatTheyOpen is a server that loads an application, with
// walferry, and forks its workers (gunicorn --preload, puma's preload_app!): each
// worker has a Go of its own, and one of them ships.
func TestPreload_WorkersShipWhatTheyOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := p.python(`
assert len(os.listdir("/proc/self/task")) == 1, "Go runs where nothing is open yet"

def work(n):
    c = connect()
    c.execute("CREATE TABLE IF NOT EXISTS t(v)")
    for i in range(20):
        c.execute("INSERT INTO t VALUES(?)", (n,))
    confirm(c)
    if n % 2:
        os._exit(0) # with the connection open
    c.close()
    sys.exit(0)

def generation(first):
    pids = []
    for n in range(first, first + 4):
        pid = os.fork()
        if pid == 0:
            work(n)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

generation(0)
generation(4) # workers that take the place of those that ended
`)
	if r.stdout != "" || len(r.errors()) != 0 {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	p.comesBack()
	if got := p.query(p.restored(), "SELECT count(*), count(DISTINCT v) FROM t"); got != "160|8" {
		t.Errorf("restored %s rows and workers, want 160|8", got)
	}
}

// A program that sets its environment itself, from a file of settings for example,
// does so after it has begun.
func TestPreload_TheEnvironmentIsThatOfTheFirstOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.python(`
os.environ["WALFERRY_REPLICA"] = REPLICA
os.environ["WALFERRY_INTERVAL"] = "50ms"
c = sqlite3.connect(f"file:{DB}?vfs=walferry", uri=True)
c.execute("CREATE TABLE t(v)")
assert status(c)["interval_ms"] == 50, status(c)
c.close()
`)
	p.comesBack()
}

// The child of a process in which Go runs has none. What it opens first ships only if
// somebody else does it, and it says so.
func TestPreload_AChildOfAProcessWithGoIsTold(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := p.python(`
other = connect("other.db", replica="file://" + os.path.abspath("other"))
pid = os.fork()
if pid == 0:
    c = connect()
    c.execute("CREATE TABLE t(v)") # is a database all the same
    say(status(c)["state"], status(c)["cause"])
    os._exit(0)
os.waitpid(pid, 0)
`)
	for _, out := range []string{r.stdout, strings.Join(r.errors(), "\n")} {
		if !strings.Contains(out, "nothing ships") || !strings.Contains(out, "after the fork") {
			t.Errorf("the child is not told: %q", out)
		}
	}
	if !exists(p.db) || exists(filepath.Join(p.objects, "ltx")) {
		t.Error("the child made no database, or somebody has shipped it")
	}
}
