package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// verb is a kind of request, as stores price them.
type verb int

const (
	verbPut verb = iota // and POST: the steps of a multipart upload
	verbList
	verbGet // and HEAD
	verbDelete
	verbs // how many there are
)

var verbNames = [verbs]string{"PUT", "LIST", "GET", "DELETE"}

// classify says what a request to an S3 server is, its path being /bucket/key.
func classify(r *http.Request) verb {
	q := r.URL.Query()
	switch r.Method {
	case http.MethodPut:
		return verbPut
	case http.MethodDelete:
		return verbDelete
	case http.MethodPost:
		if q.Has("delete") { // of many objects in one request
			return verbDelete
		}
		return verbPut
	case http.MethodGet:
		if q.Has("list-type") || q.Has("prefix") || q.Has("uploads") {
			return verbList
		}
	}
	return verbGet
}

// requests is a number of requests of each kind.
type requests [verbs]int64

func (r requests) sum() (n int64) {
	for _, v := range r {
		n += v
	}
	return n
}

// counter is a proxy that counts the requests to an S3 server as the server sees them, those that
// fail and those that a client repeats among them, and the bytes of its clients' connections.
type counter struct {
	Endpoint string
	server   *http.Server
	served   chan error
	counts   [verbs]atomic.Int64
	bytes    atomic.Int64 // both ways, headers and all
}

// count starts a counter in front of an endpoint.
func (b *bench) count(endpoint string) (*counter, error) {
	to, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// The Host header is part of what a client signs, and passes as it came.
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway) // whose client was ended, or will say so
		},
	}
	c := &counter{Endpoint: "http://" + l.Addr().String(), served: make(chan error, 1)}
	c.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.counts[classify(r)].Add(1)
			proxy.ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context { return b.ctx },
	}
	go func() { c.served <- c.server.Serve(weighed{l, &c.bytes}) }()
	return c, nil
}

// now returns the counts since the start.
func (c *counter) now() (r requests) {
	for v := range r {
		r[v] = c.counts[v].Load()
	}
	return r
}

// since returns the counts since an earlier now.
func (c *counter) since(before requests) (r requests) {
	for v, n := range c.now() {
		r[v] = n - before[v]
	}
	return r
}

// traffic is a number of requests of all kinds, and of bytes.
type traffic struct{ requests, bytes int64 }

// traffic returns the counts since the start.
func (c *counter) traffic() traffic { return traffic{c.now().sum(), c.bytes.Load()} }

// close ends the proxy and the requests that are under way.
func (c *counter) close() error {
	err := c.server.Close()
	if served := <-c.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// weighed is a listener that adds up what passes through its connections.
type weighed struct {
	net.Listener
	bytes *atomic.Int64
}

// Accept is part of net.Listener.
func (w weighed) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return weighedConn{c, w.bytes}, nil
}

type weighedConn struct {
	net.Conn
	bytes *atomic.Int64
}

// Read is part of net.Conn.
func (w weighedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.bytes.Add(int64(n))
	return n, err
}

// Write is part of net.Conn.
func (w weighedConn) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.bytes.Add(int64(n))
	return n, err
}
