package systest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrong_AnOptionFailsTheOpenInOneLine holds the texts of everything that a URI
// can have wrong. The open leaves nothing behind.
func TestWrong_AnOptionFailsTheOpenInOneLine(t *testing.T) {
	const file, s3 = "replica=file:///nowhere/replica", "replica=s3://bucket/app"
	const schemes = "allowed are file:///dir and s3://bucket/prefix"
	for i, c := range []struct{ params, text string }{
		{"", "no replica given: add replica=file:///dir or replica=s3://bucket/prefix to the URI, or set WALFERRY_REPLICA"},
		{"replica=", "no replica given: add replica=file:///dir or replica=s3://bucket/prefix to the URI, or set WALFERRY_REPLICA"},
		{"replica=gs://bucket/app", `not a replica URL: "gs://bucket/app": ` + schemes},
		{"replica=/var/backups/app", `not a replica URL: "/var/backups/app": ` + schemes},
		{"replica=s3:///app", `not a replica URL: "s3:///app" names no bucket: s3://bucket/prefix`},
		{"replica=s3://key:secret@bucket/app", "not a replica URL: it carries a user or password before '@': give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		{file + "&interval=1ns", `option interval="1ns": allowed is a duration from 10ms to 1h, such as 1s`},
		{file + "&interval=2h", `option interval="2h": allowed is a duration from 10ms to 1h, such as 1s`},
		{file + "&interval=soon", `option interval="soon": allowed is a duration from 10ms to 1h, such as 1s`},
		{file + "&interval=", `option interval="": allowed is a duration from 10ms to 1h, such as 1s`},
		{file + "&close_timeout=-1s", `option close_timeout="-1s": allowed is a duration such as 10s, or 0 for none`},
		{file + "&wal=off", `option wal="off": allowed is auto, keep`},
		{file + "&takeover=2", `option takeover="2": allowed is 0 or 1`},
		{file + "&require=please", `option require="please": allowed is 0 or 1`},
		{file + "&default=x", `option default="x": allowed is 0 or 1`},
		{file + "&snapshot_interval=daily", `option snapshot_interval="daily": allowed is a duration such as 24h or 7d, or 0 to merge and remove nothing`},
		{file + "&l0_retention=1ms", `option l0_retention="1ms": allowed is a duration from 1s, such as 5m`},
		{file + "&mark_retention=ever", `option mark_retention="ever": allowed is a duration such as 168h or 7d`},
		{file + "&retention=much", `option retention: not a retention: "much": it is not understood: allowed are a time ("72h", "7d", "2w"), a size ("500MB", "50GiB"), ` +
			`a multiple of the database's size ("20x") and a number of restore points ("100p"), each at most once, with commas between them`},
		{file + "&log=loud", `option log="loud": allowed is off, error, info, debug`},
		{s3 + "&path_style=2", `option path_style="2": allowed is 0 or 1`},
		{s3 + "&endpoint=ftp://host", `not a replica URL: endpoint "ftp://host": allowed are host:port, http://host:port and https://host:port`},
		{s3 + "&region=a%20b", `not a replica URL: region "a b": allowed is a region's name, such as us-east-1`},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			r := p.shell(".open 'file:" + p.db + "?vfs=walferry&" + c.params + "'")
			if want := "cannot open " + p.db + ": " + c.text; len(r.errors()) != 1 || r.errors()[0] != want {
				t.Errorf("%s: stderr %q, want %q", c.params, r.errors(), want)
			}
			if !strings.Contains(r.stderr, "unable to open database") {
				t.Errorf("%s: the open succeeded", c.params)
			}
			if left, _ := filepath.Glob(p.db + "*"); len(left) != 0 {
				t.Errorf("%s: the open that failed left %q", c.params, left)
			}
		})
	}
}

func TestWrong_OptionsOfOthersPassThrough(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	r := p.shell(".open "+p.uri("&_journal_mode=WAL&cache=private&psow=1&mode=rwc&_txlock=immediate"), "CREATE TABLE t(v);").ok(t)
	if len(r.errors()) != 0 {
		t.Errorf("stderr %q", r.stderr)
	}
	p.comesBack()
}

// TestWrong_TwoReplicasOfOneDatabase is refused within a process.
func TestWrong_TwoReplicasOfOneDatabase(t *testing.T) {
	t.Parallel()
	newPlace(t).python(`
c = connect()
c.execute("CREATE TABLE t(v)")
try:
    connect(replica=REPLICA + "2")
    raise SystemExit("opened")
except sqlite3.OperationalError as e:
    assert "unable to open database" in str(e), e
c.execute("INSERT INTO t VALUES(1)")
confirm(c)
c.close()
`)
}

// TestInvariant15_ALedgerThatCannotBeTrusted is removed, cut, garbled, of another
// version or another database: the open succeeds, and the history of the prefix is
// not touched without a takeover.
func TestInvariant15_ALedgerThatCannotBeTrusted(t *testing.T) {
	other := newPlace(t)
	other.shell(".open "+other.uri(""), "CREATE TABLE other(v);").ok(t)
	foreign, err := os.ReadFile(other.db + "-ledger")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"empty":           func(b []byte) []byte { return nil },
		"cut":             func(b []byte) []byte { return b[:100000] },
		"cut in header":   func(b []byte) []byte { return b[:1000] },
		"garbage":         func(b []byte) []byte { return []byte(strings.Repeat("garbage!", len(b)/8)) },
		"zeros":           func(b []byte) []byte { return make([]byte, len(b)) },
		"another version": func(b []byte) []byte { b[8]++; return b },
		"other magic":     func(b []byte) []byte { b[0]++; return b },
		"foreign":         func(b []byte) []byte { return foreign },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.shell(".open "+p.uri(""), "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);").ok(t)
			before := len(p.list())
			b, err := os.ReadFile(p.db + "-ledger")
			if err == nil {
				err = os.WriteFile(p.db+"-ledger", change(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			r := p.walferry("status", p.db)
			if r.code != 1 || !strings.Contains(r.stderr, p.db+"-ledger") || strings.Contains(r.stderr, "panic") {
				t.Errorf("status: code %d, %q", r.code, r.stderr)
			}
			s := p.client()
			s.exec("INSERT INTO t VALUES(2)")
			eventually(t, "the database is unclaimed", func() bool { return s.status("state") == "unclaimed" })
			s.fails("exec PRAGMA walferry_sync", "takeover=1")
			s.end()
			if n := len(p.list()); n != before {
				t.Fatalf("%d objects were put under a prefix that is not proven", n-before)
			}
			s = p.client("takeover=1")
			s.exec("INSERT INTO t VALUES(3)")
			s.exec("PRAGMA walferry_sync")
			s.end()
			p.comesBack()
		})
	}
}

// TestInvariant15_ALedgerThatGoesAwayInUse is noticed by the process that has it
// open, and proves nothing any more.
func TestInvariant15_ALedgerThatGoesAwayInUse(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"renamed": func(path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			s := p.client()
			s.exec("CREATE TABLE t(v)")
			s.exec("PRAGMA walferry_sync")
			before := p.newest()
			if err := change(p.db + "-ledger"); err != nil {
				t.Fatal(err)
			}
			s.exec("INSERT INTO t VALUES(1)")
			eventually(t, "the database is unclaimed", func() bool { return s.status("state") == "unclaimed" })
			s.exec("INSERT INTO t VALUES(2)")
			s.fails("exec PRAGMA walferry_sync", "takeover=1")
			s.end()
			if got := p.newest(); got != before {
				t.Errorf("TXID %s was put without a proof", got)
			}
			s = p.client("takeover=1")
			s.exec("PRAGMA walferry_sync")
			s.end()
			p.comesBack()
		})
	}
}

// TestWrong_AReadOnlyDirectory is opened by a user who may not write there: SQLite
// reads the database, and walferry says why nothing ships.
func TestWrong_AReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.plain(".open "+p.db, "CREATE TABLE t(v);", "INSERT INTO t VALUES(7);").ok(t)
	shell, args := sqlite3Shell(t), []string(nil)
	if os.Geteuid() == 0 {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			missing(t, "setpriv", "apt-get install util-linux")
		}
		shell, args = setpriv, []string{"--reuid=65534", "--regid=65534", "--clear-groups", shell}
	}
	so := filepath.Join(p.dir, "walferry.so") // of a directory that everybody may enter
	b, err := os.ReadFile(extension(t))
	if err == nil {
		err = os.WriteFile(so, b, 0o755)
	}
	for dir := p.dir; err == nil && dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755)
	}
	for file, mode := range map[string]fs.FileMode{p.db: 0o644, p.dir: 0o555} {
		if err == nil {
			err = os.Chmod(file, mode)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(p.dir, 0o755) }()
	lines := fmt.Sprintf(".load %s\n.open %s\nSELECT v FROM t;\nPRAGMA walferry_status;\n", strings.TrimSuffix(so, ".so"), p.uri(""))
	r := run(t, p.dir, p.env, lines, shell, args...)
	out := strings.Split(r.stdout, "\n")
	if out[0] != "7" {
		t.Fatalf("the database cannot be read: stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if s := parseStatus(t, out[1]); s["state"] != "off" || s["cause"] == "" {
		t.Errorf("status %v", s)
	}
}
