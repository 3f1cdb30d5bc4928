package replica

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

// Options of a connection.
type Options struct {
	URL   string // of the replica
	Store objstore.Options

	// Poll is how old what is known of the newest state may be when a read transaction
	// begins; Timeout how long the store is asked for one thing before that is an error.
	Poll, Timeout time.Duration

	// CacheSize is how many bytes of pages this process keeps; the largest of its
	// connections' counts.
	CacheSize int64

	// CacheDir, if it is set, keeps pages in a directory too, at most CacheDirSize bytes, for
	// this process and others.
	CacheDir     string
	CacheDirSize int64

	// Hydrate, if it is set, is a file that takes all of the newest state in the background.
	Hydrate string

	// At, TXID and Mark name a state of the past. At most one is set; with none the
	// newest is read.
	At   string
	TXID string
	Mark string
}

// target is the state that the options name; the zero Target is the newest.
func (o Options) target(now time.Time) (t history.Target, err error) {
	named := 0
	for _, s := range []string{o.At, o.TXID, o.Mark} {
		if s != "" {
			named++
		}
	}
	if named > 1 {
		return t, errors.New("more than one of at, txid and mark is given: choose one")
	}
	switch t.Mark = o.Mark; {
	case o.At != "" && o.At != latest:
		t.Time, err = history.ParseTime(o.At, now)
	case o.TXID != "":
		t.TXID, err = ParseTXID(o.TXID)
	}
	return t, err
}

// latest is the time of the newest state, whatever comes.
const latest = "latest"

// ParseTXID reads a TXID as objects' names have it, with or without leading zeros.
func ParseTXID(s string) (ltx.TXID, error) {
	txid, err := strconv.ParseUint(s, 16, 64)
	if err != nil || txid == 0 {
		return 0, fmt.Errorf("%q is no TXID: up to 16 hexadecimal digits, not zero", s)
	}
	return ltx.TXID(txid), nil
}
