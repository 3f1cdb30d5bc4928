package systest

import (
	"strings"
	"syscall"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// stops are the moments at which somebody may have enough of a store that does not answer. The timeout
// of these tests is an hour, so that nothing but an interrupt ends a wait.
var stops = []struct {
	name  string
	kind  string // of the requests that hang
	warm  string // what the connection has done before
	query string
}{
	{"in a query", "GET", "SELECT count(*) FROM sqlite_schema", "SELECT sum(length(b)) FROM t"},
	{"at its begin", "GET list-type", "SELECT count(*) FROM sqlite_schema", "SELECT sum(length(b)) FROM t"},
	{"with the first statement", "*", "", "SELECT sum(length(b)) FROM t"},
	{"in a wait for a token", "GET list-type", "SELECT count(*) FROM sqlite_schema", "SELECT walferry_wait('00000000abcd-1', 3600000)"},
	{"while a state is looked for", "GET list-type", "SELECT count(*) FROM sqlite_schema", "PRAGMA walferry_at='1 second ago'"},
}

const stopParams = "&timeout=1h&poll=0s&cache_size=1MB"

// held is a replica in a store that can be stopped.
func held(t *testing.T) (p *place, f *flawed) {
	t.Helper()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p = filled(t, server, "app")
	f = newFlawed(t, server)
	return p.with("AWS_ENDPOINT_URL_S3=" + f.URL), f
}

// hang waits until a request hangs.
func (f *flawed) hang(t *testing.T) {
	t.Helper()
	eventually(t, "a request is under way", func() bool { return f.hits() > 0 })
}

// TestReading_ControlCEndsAQueryThatWaits is that of the shell, which ends with it where its input is a file.
func TestReading_ControlCEndsAQueryThatWaits(t *testing.T) {
	t.Parallel()
	p, f := held(t)
	for _, c := range stops {
		s := start(t, p.dir, p.env, sqlite3Shell(t), "-batch")
		s.send(".load " + strings.TrimSuffix(extension(t), ".so"))
		s.send(".open '" + p.replicaURI(stopParams) + "'")
		s.send(".print open")
		s.expect("open")
		if c.warm != "" {
			s.send(c.warm + ";")
			s.expect("2")
		}
		f.begin(c.kind, ways["black hole"])
		s.send(c.query + ";")
		f.hang(t)
		if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		s.send(".print with this line it sees that it was interrupted")
		s.wait()
		f.end()
		if text := s.err.String(); !strings.Contains(text, "interrupted") {
			t.Errorf("%s: stderr %q", c.name, text)
		}
	}
}

// TestReading_SQLiteInterruptEndsAQueryThatWaits is called by another thread of a C program, whose connection
// goes on afterwards.
func TestReading_SQLiteInterruptEndsAQueryThatWaits(t *testing.T) {
	t.Parallel()
	p, f := held(t)
	program := compile(t, "interrupt.c", "-lsqlite3", "-lpthread")
	for _, c := range stops {
		s := start(t, p.dir, p.env, program, extension(t), p.replicaURI(stopParams))
		if got := s.expect("opened"); got != "0" {
			t.Fatalf("%s: the open returned %s: %s", c.name, got, s.err.String())
		}
		if c.warm != "" {
			s.send("query " + c.warm)
			s.expect("answer 0")
		}
		f.begin(c.kind, ways["black hole"])
		s.send("query " + c.query)
		f.hang(t)
		s.send("interrupt")
		s.expect("interrupted")
		if got := s.expect("answer"); got != "9 interrupted" {
			t.Errorf("%s: %s", c.name, got)
		}
		f.end()
		s.send("query SELECT sum(length(b)) FROM t")
		if got := s.expect("answer"); got != "0 not an error 2700000" {
			t.Errorf("%s: afterwards %s", c.name, got)
		}
		s.finish()
	}
}
