package main

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// mood is what the store does with requests.
type mood int32

const (
	works mood = iota
	refuses
	losesReplies
	stalls
	moods
)

var moodText = [moods]string{"works", "refuses", "loses replies", "stalls"}

// proxy stands before a store and has moods.
type proxy struct {
	mood   atomic.Int32
	counts [moods]atomic.Int64 // requests that met each
	server *http.Server
	addr   string
}

func newProxy(target string) (*proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0) // a request that is given up is no news
	forward := &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // which the client has signed
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: "http://" + l.Addr().String()}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := mood(p.mood.Load())
		p.counts[m].Add(1)
		switch m {
		case works:
			forward.ServeHTTP(w, r)
		case refuses:
			http.Error(w, "SlowDown", http.StatusServiceUnavailable)
		case losesReplies:
			forward.ServeHTTP(blackHole{http.Header{}}, r)
			panic(http.ErrAbortHandler)
		case stalls:
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
			panic(http.ErrAbortHandler)
		}
	})}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

// blackHole takes a reply that nobody gets.
type blackHole struct{ header http.Header }

func (b blackHole) Header() http.Header         { return b.header }
func (b blackHole) Write(p []byte) (int, error) { return len(p), nil }
func (b blackHole) WriteHeader(int)             {}

// live changes the mood until ctx ends; half of the time the store works.
func (p *proxy) live(ctx context.Context, r *rand.Rand) {
	for {
		m := works
		if r.IntN(2) == 0 {
			m = mood(r.IntN(int(moods)))
		}
		p.mood.Store(int32(m))
		select {
		case <-ctx.Done():
			p.mood.Store(int32(works))
			return
		case <-time.After(time.Duration(500+r.IntN(4000)) * time.Millisecond):
		}
	}
}
