package systest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/s3test"
)

func TestS3_ADatabaseShipsAndComesBack(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	for _, prefix := range []string{"app", "deep/er/app", "with space/é"} {
		p := newPlace(t).onS3(server, "bucket", prefix)
		p.replica = strings.ReplaceAll(p.replica, " ", "%20")
		r := p.shell(".open '"+p.uri("&require=1")+"'", "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);",
			"SELECT walferry_wait(walferry_token(), 30000);", "INSERT INTO t VALUES(randomblob(100000));").ok(t)
		if r.stdout != "1\n" || len(r.errors()) != 0 {
			t.Errorf("%s: stdout %q, stderr %q", prefix, r.stdout, r.stderr)
		}
		p.comesBack()
	}
}

// TestS3_TheStoreIsWrongOrAway opens with a store that does not work in one way or
// another. The open and the commits go on, the status names the cause, and the
// shipping begins by itself once the cause is gone. With require=1 the open fails.
func TestS3_TheStoreIsWrongOrAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		state string
		says  []string
		env   []string
		mend  func(t *testing.T, s *s3test.Server) // nil: cannot be mended from outside
	}{
		{"bucket missing", "refused", []string{"bucket"}, nil, func(t *testing.T, s *s3test.Server) { s.Bucket(t, "bucket") }},
		{"wrong secret", "refused", nil, []string{"AWS_SECRET_ACCESS_KEY=not-the-secret-at-all", "LITESTREAM_SECRET_ACCESS_KEY="}, nil},
		{"no credentials", "refused", []string{"AWS_ACCESS_KEY_ID"}, []string{"AWS_SECRET_ACCESS_KEY=", "AWS_ACCESS_KEY_ID=", "LITESTREAM_ACCESS_KEY_ID=", "LITESTREAM_SECRET_ACCESS_KEY="}, nil},
		{"endpoint dead", "unreachable", nil, nil, func(t *testing.T, s *s3test.Server) { s.Start(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := s3test.Start(t)
			if c.name != "bucket missing" {
				server.Bucket(t, "bucket")
			}
			if c.name == "endpoint dead" {
				server.Stop()
			}
			p := newPlace(t).onS3(server, "bucket", "app").with(c.env...)

			s := p.client("close_timeout=1s")
			begin := time.Now()
			s.exec("CREATE TABLE t(v)")
			for i := range 200 {
				s.exec(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("200 commits took %v with the store away", d)
			}
			eventually(t, "the status says "+c.state, func() bool { return s.status("state") == c.state })
			cause := s.status("cause")
			s.fails("exec PRAGMA walferry_sync", append(c.says, "walferry_sync")...)
			for _, text := range c.says {
				if !strings.Contains(cause, text) {
					t.Errorf("the cause %q does not say %q", cause, text)
				}
			}
			if cause == "" || s.status("last_error") == "None" || s.status("error_since") == "None" {
				t.Errorf("cause %q, last error %q, since %q", cause, s.status("last_error"), s.status("error_since"))
			}
			if lines := walferryLines(s.err.String()); len(lines) == 0 || len(lines) > 2 || !strings.Contains(lines[0], c.state) {
				t.Errorf("the log says: %q", lines)
			}
			p.keepsSecrets(server, s.err.String()+s.get("PRAGMA walferry_status"))

			r := p.with("WF_DB=" + p.db + "2").shell(".open " + strings.Replace(p.uri("&require=1"), p.db, p.db+"2", 1))
			if lines := r.errors(); len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "require=1") {
				t.Errorf("require=1: stderr %q", r.stderr)
			}
			if !strings.Contains(r.stderr, "unable to open database") {
				t.Error("require=1: the open succeeded")
			}
			if c.mend == nil {
				s.end()
				return
			}
			c.mend(t, server)
			eventually(t, "shipping resumes by itself", func() bool { return s.status("state") == "shipping" })
			s.confirm()
			if got := s.status("last_error"); got != "" {
				t.Errorf("last error %q although all is well", got)
			}
			s.end()
			p.comesBack()
		})
	}
}

// keepsSecrets fails the test where a secret stands in what was logged or beside the
// database.
func (p *place) keepsSecrets(server *s3test.Server, stderr string) {
	p.t.Helper()
	texts := map[string][]byte{"stderr": []byte(stderr)}
	files, err := filepath.Glob(p.db + "*")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil && !os.IsNotExist(err) {
			p.t.Fatal(err)
		}
		texts[f] = b
	}
	for _, secret := range []string{server.Secret, server.Access, "not-the-secret-at-all"} {
		for name, text := range texts {
			if bytes.Contains(text, []byte(secret)) {
				p.t.Errorf("%s holds %q", name, secret)
			}
		}
	}
}

// TestS3_TheServerIsAwayDuringWrites stops it twice, and once over a restart of the
// program.
func TestS3_TheServerIsAwayDuringWrites(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := newPlace(t).onS3(server, "bucket", "app")
	s := p.client("close_timeout=100ms")
	s.exec("CREATE TABLE t(v)")
	s.confirm()
	for round := range 3 {
		server.Stop()
		for i := range 100 {
			s.exec(fmt.Sprintf("INSERT INTO t VALUES('%d-%d')", round, i))
		}
		eventually(t, "the status says unreachable", func() bool { return s.status("state") == "unreachable" })
		if round == 2 {
			s.end()
			s = p.client()
			s.exec("INSERT INTO t VALUES('new process')")
		}
		server.Start(t)
		s.confirm()
		mustEqual(t, "restore after an outage", p.restored(), p.image())
	}
	p.keepsSecrets(server, s.err.String())
	s.end()
	p.comesBack()
	if got := p.query(p.restored(), "SELECT count(*) FROM t"); got != "301" {
		t.Errorf("%s of 301 rows came back", got)
	}
}
