package systest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// place is a database and its replica.
type place struct {
	t       testing.TB
	dir     string
	db      string
	replica string   // URL
	objects string   // the directory where they lie
	env     []string // of every program
}

// tempDir is a directory whose name needs no escapes in a URI, as that of
// t.TempDir can.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "systest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// newPlace has a directory as its replica.
func newPlace(t testing.TB) *place {
	t.Helper()
	dir := tempDir(t)
	p := &place{t: t, dir: dir, db: filepath.Join(dir, "app.db"), objects: filepath.Join(dir, "replica")}
	p.replica = "file://" + p.objects
	p.env = environment(dir, "WF_SO="+extension(t), "WF_DB="+p.db, "WF_REPLICA="+p.replica, "PYTHONPATH="+script(""))
	return p
}

// onS3 moves the replica of a place to a bucket; the last of two equal variables
// counts.
func (p *place) onS3(s *s3test.Server, bucket, prefix string) *place {
	p.replica = "s3://" + bucket + "/" + prefix
	p.objects = filepath.Join(s.Dir, bucket, prefix)
	p.env = append(p.env, "WF_REPLICA="+p.replica, "AWS_ACCESS_KEY_ID="+s.Access, "AWS_SECRET_ACCESS_KEY="+s.Secret,
		"AWS_ENDPOINT_URL_S3="+s.Endpoint, "AWS_REGION=us-east-1", "LITESTREAM_ACCESS_KEY_ID="+s.Access, "LITESTREAM_SECRET_ACCESS_KEY="+s.Secret)
	return p
}

// with is the same place with further variables in the environment.
func (p *place) with(env ...string) *place {
	q := *p
	q.env = append(p.env[:len(p.env):len(p.env)], env...)
	return &q
}

// uri opens the database with walferry, and a short window unless params have
// another; they begin with '&' or are empty.
func (p *place) uri(params string) string {
	if !strings.Contains(params, "&interval=") {
		params += "&interval=50ms"
	}
	return fmt.Sprintf("file:%s?vfs=walferry&replica=%s%s", p.db, p.replica, params)
}

// shell runs lines in the sqlite3 shell after the extension was loaded.
func (p *place) shell(lines ...string) result {
	p.t.Helper()
	load := ".load " + strings.TrimSuffix(extension(p.t), ".so")
	return p.plain(append([]string{load}, lines...)...)
}

// plain runs lines in a shell that knows nothing of walferry.
func (p *place) plain(lines ...string) result {
	p.t.Helper()
	return run(p.t, p.dir, p.env, strings.Join(lines, "\n")+"\n", sqlite3Shell(p.t), "-batch")
}

// python runs a program that has wf.py's names. It must succeed.
func (p *place) python(program string, args ...string) result {
	p.t.Helper()
	return run(p.t, p.dir, p.env, "", python(p.t), append([]string{"-c", "from wf import *\n" + program}, args...)...).ok(p.t)
}

// start starts a program of testdata.
func (p *place) start(name string, args ...string) *proc {
	p.t.Helper()
	return start(p.t, p.dir, p.env, python(p.t), append([]string{script(name)}, args...)...)
}

// walferry runs the command line.
func (p *place) walferry(args ...string) result {
	p.t.Helper()
	return run(p.t, p.dir, p.env, "", artefact(p.t, "walferry"), args...)
}

// status is what the command line reads from the ledger.
func (p *place) status() status {
	p.t.Helper()
	return parseStatus(p.t, p.walferry("status", "-json", p.db).ok(p.t).stdout)
}

// status is the JSON of a database's replication.
type status map[string]any

func parseStatus(t testing.TB, text string) status {
	t.Helper()
	s := status{}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("status %q: %v", text, err)
	}
	return s
}

// restored is the replica, restored by walferry.
func (p *place) restored() string {
	p.t.Helper()
	out := filepath.Join(tempDir(p.t), "restored.db")
	r := p.walferry("restore", "-q", "-o", out, p.replica).ok(p.t) // without the progress, which a slow one tells
	if r.stderr != "" {
		p.t.Errorf("restore wrote to stderr: %s", r.stderr)
	}
	return out
}

// byLitestream is the replica, restored by litestream; flags go before the URL.
func (p *place) byLitestream(flags ...string) string {
	p.t.Helper()
	out := filepath.Join(tempDir(p.t), "litestream.db")
	args := append([]string{"restore", "-o", out}, flags...)
	run(p.t, p.dir, p.env, "", litestream(p.t), append(args, p.replica)...).ok(p.t)
	return out
}

// image is a copy of the database as its last commit left it, without a WAL.
func (p *place) image() string {
	p.t.Helper()
	copied := filepath.Join(tempDir(p.t), "image.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(p.db + suffix)
		if os.IsNotExist(err) && suffix != "" {
			continue
		} else if err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	r := run(p.t, p.dir, p.env, "", sqlite3Shell(p.t), copied, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check").ok(p.t)
	if !strings.HasSuffix(r.stdout, "ok\n") {
		p.t.Fatalf("the database is not well: %s", r.stdout)
	}
	return copied
}

// comesBack fails the test unless both restores are the database, byte for byte.
func (p *place) comesBack() {
	p.t.Helper()
	image := p.image()
	mustEqual(p.t, "walferry restore", p.restored(), image)
	mustEqual(p.t, "litestream restore", p.byLitestream(), image)
}

func mustEqual(t testing.TB, what, got, want string) {
	t.Helper()
	a, errA := os.ReadFile(got)
	b, errB := os.ReadFile(want)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if !bytes.Equal(a, b) {
		t.Fatalf("%s: %d bytes, not the %d bytes of the database; the first difference is at %d", what, len(a), len(b), firstDifference(a, b))
	}
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// query asks a database file with plain SQLite.
func (p *place) query(file, sql string) string {
	p.t.Helper()
	return strings.TrimSpace(run(p.t, p.dir, p.env, "", sqlite3Shell(p.t), "file:"+file+"?mode=ro", sql).ok(p.t).stdout)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
