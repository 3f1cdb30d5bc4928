package restore

import (
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/s3test"
)

// badProxy stands before a real server and spoils answers, as networks and servers do.
type badProxy struct {
	*httptest.Server
	gets, spoiled atomic.Int64
}

func newBadProxy(t *testing.T, server *s3test.Server) *badProxy {
	to, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &badProxy{}
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}, ErrorLog: log.New(io.Discard, "", 0)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		n := p.gets.Add(1)
		if n%5 != 0 {
			next.ServeHTTP(w, r)
			return
		}
		p.spoiled.Add(1)
		switch n / 5 % 4 {
		case 0:
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
		case 1: // reset before an answer
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				c.Close()
			}
		case 2: // cut in the middle of an answer
			next.ServeHTTP(&shortWriter{ResponseWriter: w, left: rand.Int64N(200_000)}, r)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// shortWriter ends its connection after so many bytes.
type shortWriter struct {
	http.ResponseWriter
	left int64
}

func (w *shortWriter) Write(b []byte) (int, error) {
	if w.left -= int64(len(b)); w.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(b)
}

func TestABadNetworkIsSurvived(t *testing.T) {
	server := s3test.Start(t)
	server.Env(t)
	server.Bucket(t, "bucket")
	direct, err := objstore.New("s3://bucket/app", objstore.Options{Endpoint: server.Endpoint})
	if err != nil {
		t.Fatal(err)
	}
	h := longStory(t, 4096)
	h.next(900)
	for i := range uint32(24) {
		h.next(900+i, 1, 2+i, 30*i+99)
	}
	for k, b := range h.store.objects {
		o := objstore.Object{Level: k.level, Min: k.min, Max: k.max, Size: int64(len(b))}
		if err := direct.Create(t.Context(), o, bytes.NewReader(b), objstore.Meta{Checksum: h.store.sums[k]}, nil); err != nil {
			t.Fatal(err)
		}
	}
	p := newBadProxy(t, server)
	store, err := objstore.New("s3://bucket/app", objstore.Options{Endpoint: p.URL})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.db")
	r, err := Restore(t.Context(), store, out, Options{Target: history.Target{TXID: 20}})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(out); !bytes.Equal(got, h.was[20]) || !r.Compared || !r.Past {
		t.Fatalf("the database differs; %+v", r)
	}
	if _, err := Restore(t.Context(), store, out, Options{Force: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := Restore(t.Context(), store, out, Options{Delta: true}); err != nil || !r.Delta {
		t.Fatalf("%+v, %v", r, err)
	}
	if got, _ := os.ReadFile(out); !bytes.Equal(got, h.was[h.txid]) {
		t.Fatal("the database differs")
	}
	if p.spoiled.Load() < 16 {
		t.Errorf("only %d of %d answers were spoiled", p.spoiled.Load(), p.gets.Load())
	}
}

// A server that cuts every answer short at the same byte has nothing more to say.
func TestAnObjectThatIsShorterThanListedIsCorrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := threeSteps(t)
		k := key{0, 3, 3}
		whole := h.store.objects[k]
		h.store.sizes = map[key]int64{k: int64(len(whole))}
		h.store.objects[k] = whole[:len(whole)-40]
		fails(t, h, ErrCorrupt, "it ends at byte")
	})
}

func TestAStoreThatStallsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := threeSteps(t)
		h.store.stall = func(nth int) bool { return nth%2 == 1 }
		began := time.Now()
		restored(t, h)
		if took := time.Since(began); took < stall || took > 10*stall {
			t.Errorf("it took %s", took)
		}
	})
}

func TestMoreSmallObjectsThanTheWindowHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStory(t, 1024)
		h.next(100)
		for i := range uint32(400) {
			h.next(100, 1, 2+i%90)
		}
		h.store.wait = 20 * time.Millisecond
		began := time.Now()
		restored(t, h)
		// 401 objects, 64 at a time.
		if rounds := time.Since(began) / h.store.wait; rounds > 20 {
			t.Errorf("it took %d round trips", rounds)
		}
		if most := h.store.most.Load(); most > windowParts {
			t.Errorf("%d requests at a time", most)
		}
	})
}

func TestTheWindowIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newStory(t, 65536)
		h.next(700) // 23 MB, compressed
		h.store.wait = 20 * time.Millisecond
		restored(t, h)
		if most := h.store.most.Load(); most > windowBytes/partSize || most < 4 {
			t.Errorf("%d requests at a time", most)
		}
	})
}
