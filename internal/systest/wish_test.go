package systest

import (
	"sync/atomic"
	"testing"

	"github.com/walferry/walferry/internal/s3test"
)

// TestDown_ASyncIsNotToldOfAnAttemptThatBeganBeforeIt asks while the last request of an outage is
// still under way: it fails when the store is back already, and the sync does not.
func TestDown_ASyncIsNotToldOfAnAttemptThatBeganBeforeIt(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	server.Bucket(t, "bucket")
	f := newFlawed(t, server)
	p := newPlace(t).onS3(server, "bucket", "app").with("AWS_ENDPOINT_URL_S3=" + f.URL)
	s := p.client("snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	s.shipNow()
	wishes := func() uint64 { return atomic.LoadUint64(&p.header().Wishes) }
	before := wishes()

	f.begin("PUT", ways["black hole"])
	s.exec("INSERT INTO t VALUES(1)")
	eventually(t, "the commit is being put", func() bool { return f.hits() > 0 })
	s.send("exec PRAGMA walferry_sync")
	eventually(t, "the sync has begun", func() bool { return wishes() > before })
	if hits := f.end(); hits != 1 {
		t.Errorf("%d requests have met the outage", hits)
	}
	if answer := s.expect(""); answer != "ok None" && answer != "ok" {
		t.Errorf("the store is back, and the sync says %s", answer)
	}
	if state := s.status("state"); state != "shipping" {
		t.Errorf("state %s", state)
	}
	mustEqual(t, "restore", p.restored(), p.image())
	s.end()
}
