package replica

import (
	"errors"
	"strconv"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/objstore"
)

// Status is what PRAGMA walferry_status says of a replica that is read. Times are RFC 3339.
type Status struct {
	// State is "reading", or after a failure "unreachable", "refused" or "corrupt".
	State   string `json:"state"`
	Cause   string `json:"cause"` // of the failure
	Replica string `json:"replica"`
	TXID    string `json:"txid"` // the state that is read; 16 hexadecimal digits
	Time    string `json:"time"` // when it was shipped
	// Pinned: it was chosen, and what comes later is not followed.
	Pinned   bool   `json:"pinned"`
	LagMs    *int64 `json:"lag_ms"` // since the store had nothing newer; null where pinned
	Pages    uint32 `json:"pages"`
	PageSize uint32 `json:"page_size"`

	// Of this connection, in pages.
	CacheHits   int64 `json:"cache_hits"`
	CacheMisses int64 `json:"cache_misses"`
	// Of this process, in bytes.
	CacheBytes int64 `json:"cache_bytes"`
	CacheSize  int64 `json:"cache_size"`
	// Of this process's connections to the replica: how often the store was asked, and what it gave.
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`

	// Of the file that hydrate names: how many pages it has of the newest state, and what it failed at last.
	Hydrated     int64  `json:"hydrated_pages,omitempty"`
	HydrateError string `json:"hydrate_error,omitempty"`

	LastError string `json:"last_error"` // the last one, though it may have passed
	ErrorTime string `json:"error_time"`
}

// Status may be called at any time.
func (c *Conn) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{
		State: state(c.failed), Replica: c.s.store.String(),
		TXID: c.view.TXID.String(), Time: c.view.Time.Format(time.RFC3339Nano), Pinned: c.pin != nil, LagMs: c.lag(),
		Pages: c.view.Pages, PageSize: c.view.PageSize,
		CacheHits: c.hits.Load(), CacheMisses: c.misses.Load(), Requests: c.s.requests.Load(), Bytes: c.s.bytes.Load(),
	}
	if h := c.s.hydrate; h != nil {
		s.Hydrated = h.filled.Load()
		if why := h.failed.Load(); why != nil {
			s.HydrateError = *why
		}
	}
	s.CacheBytes, s.CacheSize = pages.bytes()
	if c.failed != nil {
		s.Cause = c.failed.Error()
	}
	if c.said != nil {
		s.LastError, s.ErrorTime = c.said.Error(), c.saidAt.UTC().Format(time.RFC3339)
	}
	return s
}

func state(err error) string {
	switch {
	case err == nil:
		return "reading"
	case errors.Is(err, objstore.ErrRefused):
		return "refused"
	case errors.Is(err, ltxfile.ErrCorrupt):
		return "corrupt"
	}
	return "unreachable"
}

// lag is how long ago the store was asked and had nothing newer than what is read, in milliseconds; nil
// where a state of the past was chosen. The caller holds mu.
func (c *Conn) lag() *int64 {
	if c.pin != nil || c.asOf.IsZero() {
		return nil
	}
	ms := max(0, c.now().Sub(c.asOf).Milliseconds())
	return &ms
}

// Lag is what PRAGMA walferry_lag says: milliseconds, or nothing where a state was chosen.
func (c *Conn) Lag() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ms := c.lag(); ms != nil {
		return strconv.FormatInt(*ms, 10)
	}
	return ""
}

// TXID is that of the state which is read: of the transaction that is open, else of the last one.
func (c *Conn) TXID() ltx.TXID { return c.current().TXID }

// At is what PRAGMA walferry_at says: the time of the state that was chosen, or "latest".
func (c *Conn) At() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pin == nil {
		return latest
	}
	return c.pin.Time.Format(time.RFC3339Nano)
}
