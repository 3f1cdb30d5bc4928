package systest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestDown_AnOutageUnderLoadIsBounded has the store go away under many commits: memory, WAL
// and ledger stay as they are, and once it is back the attempt that was stuck and one
// batch are all that is put.
func TestDown_AnOutageUnderLoadIsBounded(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	p := newPlace(t).onS3(server, "bucket", "app")
	s := p.client("interval=100ms", "snapshot_interval=0")
	s.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	s.exec("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<2000) INSERT INTO t SELECT i, randomblob(1000) FROM n")
	s.shipNow()
	server.Stop()
	load := func(commits int) {
		for i := range commits {
			s.exec(fmt.Sprintf("UPDATE t SET v = randomblob(1000) WHERE id %% 100 = %d", i%100))
		}
	}
	load(400) // which the memory and the files get used to
	eventually(t, "the status says unreachable", func() bool { return s.status("state") == "unreachable" })
	rss, wal, ledger := p.footprint(s)
	load(rounds(t, 1200))
	rss2, wal2, ledger2 := p.footprint(s)
	t.Logf("resident %d -> %d KiB, WAL %d -> %d KiB, ledger %d -> %d KiB", rss>>10, rss2>>10, wal>>10, wal2>>10, ledger>>10, ledger2>>10)
	if rss2 > rss+16<<20 || wal2 > wal+2<<20 || wal2 > 8<<20 || ledger2 != ledger {
		t.Errorf("resident %d -> %d KiB, WAL %d -> %d KiB, ledger %d -> %d KiB", rss>>10, rss2>>10, wal>>10, wal2>>10, ledger>>10, ledger2>>10)
	}
	if lag, err := strconv.Atoi(s.status("lag_ms")); err != nil || lag < 1000 {
		t.Errorf("lag %d ms, %v", lag, err)
	}
	before := p.newest()
	server.Start(t)
	s.shipNow()
	if n := p.newest() - before; n > 2 {
		t.Errorf("%d objects after the outage", n)
	}
	mustEqual(t, "restore", p.restored(), p.image())
	s.end()
	p.comesBack()
}

// footprint is what a process and its database's files take, in bytes.
func (p *place) footprint(s client) (rss, wal, ledger int64) {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	size := func(suffix string) int64 {
		fi, err := os.Stat(p.db + suffix)
		if err != nil {
			p.t.Fatal(err)
		}
		return fi.Size()
	}
	return pages * int64(os.Getpagesize()), size("-wal"), size("-ledger")
}
