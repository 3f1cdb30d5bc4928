package vfs_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/walferry/walferry/internal/s3test"
	"github.com/walferry/walferry/vfs"
)

// reading is a pool of connections to the place's replica.
func (p *place) reading(params string) *sql.DB {
	p.t.Helper()
	db, err := sql.Open("sqlite3", fmt.Sprintf("file:app?vfs=%s&replica=file://%s%s", vfs.ReplicaName, p.replica, params))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { db.Close() })
	return db
}

// TestReplica_ManyConnectionsReadWhileOneWrites uses pools of connections from many goroutines, at the newest state and at
// others, while the same process writes. The writer keeps the sum of a table at zero, and a number that
// rises with each commit.
func TestReplica_ManyConnectionsReadWhileOneWrites(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "&interval=10ms&snapshot_interval=1s&l0_retention=1s&retention=1s")
	w := p.open()
	w.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v INT)")
	w.exec("CREATE TABLE head(n INT)")
	w.exec("INSERT INTO head VALUES(0)")
	w.exec("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t SELECT i, 0 FROM n")
	w.sync()
	pools := []*sql.DB{p.reading("&poll=0s&cache_size=1MB"), p.reading("&poll=20ms"), p.reading("&poll=0s&hydrate=" + p.path + "-local")}
	stop := make(chan struct{})
	var writing, readers sync.WaitGroup
	writing.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			w.exec("BEGIN; UPDATE t SET v = v + 1 WHERE id = abs(random()) % 500 + 1; UPDATE t SET v = v - 1 WHERE id = abs(random()) % 500 + 1; UPDATE head SET n = n + 1; COMMIT")
		}
	})
	var gone atomic.Int64
	for i := range 9 {
		readers.Go(func() {
			rnd, db := rand.New(rand.NewPCG(uint64(i), 1)), pools[i%len(pools)]
			for range 30 {
				if err := readOnce(t.Context(), db, rnd); err != nil && strings.Contains(err.Error(), "disk I/O error") {
					gone.Add(1) // the state that it read was not kept
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writing.Wait()
	if n := gone.Load(); n > 135 {
		t.Errorf("%d of 270 transactions had an I/O error", n)
	}
	want := w.text("SELECT n FROM head")
	w.sync()
	for _, db := range pools[:1] {
		var got string
		if err := db.QueryRow("SELECT n FROM head").Scan(&got); err != nil || got != want {
			t.Errorf("the newest is %s, %v, want %s", got, err, want)
		}
	}
}

func readOnce(ctx context.Context, db *sql.DB, rnd *rand.Rand) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if rnd.IntN(4) == 0 {
		if _, err := c.ExecContext(ctx, "PRAGMA walferry_at='1 second ago'"); err != nil && !strings.Contains(err.Error(), "walferry_at") {
			return err
		}
	} else if _, err := c.ExecContext(ctx, "PRAGMA walferry_at='latest'"); err != nil {
		return err
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	first := -1
	for range 1 + rnd.IntN(5) {
		var n, sum, rows int
		if err := tx.QueryRowContext(ctx, "SELECT n, (SELECT sum(v) FROM t), (SELECT count(*) FROM t) FROM head").Scan(&n, &sum, &rows); err != nil {
			return err
		}
		if first < 0 {
			first = n
		}
		if sum != 0 || rows != 500 || n != first {
			return fmt.Errorf("sum %d of %d rows at %d, and before %d", sum, rows, n, first)
		}
	}
	return nil
}

// TestReplica_AContextEndsAQueryThatWaits is cancelled while the store does not answer, in the middle of a query and at
// its begin. The connection goes on.
func TestReplica_AContextEndsAQueryThatWaits(t *testing.T) {
	server := s3test.Start(t)
	server.Env(t)
	server.Bucket(t, "bucket")
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	var held atomic.Value // a kind of request: "list", "page", or none
	held.Store("")
	reached := make(chan struct{}, 100)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "page"
		if r.URL.Query().Has("list-type") {
			kind = "list"
		}
		if held.Load() == kind {
			reached <- struct{}{}
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()

	p := newPlace(t, "")
	w := p.openURI(fmt.Sprintf("file:%s?vfs=walferry&replica=s3://bucket/app&endpoint=%s", p.path, server.Endpoint))
	w.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
	w.exec("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t SELECT i, randomblob(900) FROM n")
	w.sync()
	w.close()
	db, err := sql.Open("sqlite3", fmt.Sprintf("file:app?vfs=%s&replica=s3://bucket/app&endpoint=%s&timeout=1h&poll=0s&cache_size=1MB", vfs.ReplicaName, front.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	sum := func(ctx context.Context) (n int, err error) {
		err = db.QueryRowContext(ctx, "SELECT sum(length(b)) FROM t").Scan(&n)
		return n, err
	}
	for _, kind := range []string{"page", "list"} {
		var rows int
		if err := db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&rows); err != nil || rows != 1 {
			t.Fatal(rows, err)
		}
		held.Store(kind)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-reached
			cancel()
		}()
		if _, err := sum(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("held %s: %v", kind, err)
		}
		held.Store("")
		front.CloseClientConnections()
		if n, err := sum(t.Context()); n != 2700000 || err != nil {
			t.Errorf("held %s, and then: %d, %v", kind, n, err)
		}
	}
	for len(reached) > 0 {
		<-reached
	}
	held.Store("list") // and with a deadline, of an open whose search hangs
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := sum(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	held.Store("")
	front.CloseClientConnections()
}

// What fails is SQLITE_IOERR, with the cause in the status.
func TestReplica_AnErrorHasItsCodeAndItsCause(t *testing.T) {
	server := s3test.Start(t)
	server.Env(t)
	server.Bucket(t, "bucket")
	p := newPlace(t, "")
	w := p.openURI(fmt.Sprintf("file:%s?vfs=walferry&replica=s3://bucket/app&endpoint=%s", p.path, server.Endpoint))
	w.exec("CREATE TABLE t(v)")
	w.sync()
	w.close()
	c := p.openURI(fmt.Sprintf("file:app?vfs=%s&replica=s3://bucket/app&endpoint=%s&timeout=500ms&poll=0s", vfs.ReplicaName, server.Endpoint))
	if got := c.text("SELECT count(*) FROM t"); got != "0" {
		t.Error(got)
	}
	server.Stop()
	_, err := c.query("SELECT count(*) FROM t")
	var e sqlite3.Error
	if !errors.As(err, &e) || e.Code != sqlite3.ErrIoErr {
		t.Errorf("%v", err)
	}
	if s := c.text("PRAGMA walferry_status"); !strings.Contains(s, `"state":"unreachable"`) || !strings.Contains(s, "connection refused") {
		t.Errorf("status %s", s)
	}
	server.Start(t)
	if got := c.text("SELECT count(*) FROM t"); got != "0" {
		t.Error(got)
	}
	err = c.try("INSERT INTO t VALUES(1)")
	if !errors.As(err, &e) || e.Code != sqlite3.ErrReadonly {
		t.Errorf("%v", err)
	}
}
