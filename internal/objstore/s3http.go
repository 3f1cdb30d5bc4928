package objstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Deadlines. A PUT that is believed must have ended within half of the time for
// which level-0 objects are kept (Litestream's is five minutes), hence the two minutes.
const (
	shortRequest  = 60 * time.Second  // a request with a small body, to its end
	partRequest   = 120 * time.Second // one with up to minPart bytes; more in proportion
	joinRequest   = 10 * time.Minute  // the end of an upload, which a store may take to copy
	abortRequest  = 10 * time.Second  // cleaning up on the way out
	silentRequest = 60 * time.Second  // without a byte, where the whole takes as long as it takes
)

// idleConns is how many connections wait for the next request: as many as a restore
// of many small objects uses at once, so that it does not make a new one for each.
const idleConns = 192

// errSlow is the cause of what our own deadlines end.
var errSlow = errors.New("check the network and endpoint=")

func slow(host string, d time.Duration) error {
	return fmt.Errorf("no answer from %s within %s: %w", host, d, errSlow)
}

func deadline(ctx context.Context, d time.Duration, host string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, slow(host, d))
}

// newTransport makes connections that neither hang nor pile up.
func newTransport(onRequest func(int64)) *transport {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: partRequest,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   idleConns,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // an object must arrive as it was stored
	}
	return &transport{t, onRequest}
}

// transport tells of every request before it goes out, if somebody wants to know, and
// sees to it that an answer to a list is one.
type transport struct {
	*http.Transport
	tell func(int64)
}

// RoundTrip is part of http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.tell != nil {
		t.tell(max(r.ContentLength, 0))
	}
	resp, err := t.Transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusOK && r.URL.Query().Has("list-type") {
		err = isList(resp)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// isList looks at the begin of an answer. The library takes any XML, so that a page which
// asks somebody to log in to a network would be a replica that holds nothing.
func isList(resp *http.Response) error {
	body := bufio.NewReader(resp.Body)
	if head, _ := body.Peek(1 << 10); !bytes.Contains(head, []byte("ListBucketResult")) {
		resp.Body.Close()
		return errors.New("what answers is no store: it sent no list; check the network and endpoint=")
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return nil
}

// watchdog cancels a context when reset was not called for silentRequest. It
// is for what may take long as a whole but not between two steps.
type watchdog struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func watch(ctx context.Context, host string) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{cancel, time.AfterFunc(silentRequest, func() { cancel(slow(host, silentRequest)) })}
}

func (w *watchdog) reset() { w.timer.Reset(silentRequest) }
func (w *watchdog) stop()  { w.timer.Stop() }
func (w *watchdog) end()   { w.timer.Stop(); w.cancel(nil) }

// s3Reader reads a response. The dog sleeps while its user works on what it read.
type s3Reader struct {
	body io.ReadCloser
	ctx  context.Context
	dog  *watchdog
	fail func(error) error
}

// Read is part of io.Reader.
func (r *s3Reader) Read(p []byte) (int, error) {
	r.dog.reset()
	n, err := r.body.Read(p)
	r.dog.stop()
	if err != nil && err != io.EOF {
		err = r.fail(err)
	}
	return n, err
}

// Close is part of io.Closer.
func (r *s3Reader) Close() error {
	r.dog.end()
	return r.body.Close()
}
