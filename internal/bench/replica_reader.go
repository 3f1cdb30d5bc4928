package main

import (
	_ "embed"
	"net/url"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed replica.py
var readerScript string

// readerSpec tells a reader what to open, and which rows its point reads are of.
type readerSpec struct {
	Extension string // "": the local file is read
	URI       string
	IDs       []int64
}

// readerStep is one thing to do; replica.py says what there is.
type readerStep struct {
	Do       string
	Seconds  float64
	From, To int64
}

// readerAnswer is what one step came to, as the reader saw it.
type readerAnswer struct {
	Elapsed time.Duration
	Grown   int64 // resident bytes
	Reads   int64
	Check   int64 // of what was read: the same on all sides
}

// phase is one step, as the reader and the server saw it.
type phase struct {
	readerAnswer
	Requests int64
	Bytes    int64 // of HTTP, both ways
}

// reader is a running replica.py.
type reader struct {
	*child
	proxy *counter // nil: no server is read from
}

// startReader starts a reader of one side; from is where the replica is. It is an interpreter of its
// own: nothing of a side is in its memory before it is asked to open.
func (b *bench) startReader(s side, dir string, from replica, ids []int64) (*reader, error) {
	spec := readerSpec{URI: from.local.dsn(), IDs: ids}
	cmd := exec.CommandContext(b.ctx, b.Python, "-c", readerScript)
	cmd.Env = b.environ()
	r := &reader{}
	switch s {
	case walferry:
		spec.Extension, spec.URI, r.proxy = b.Extension, "file:app?"+url.Values{"vfs": {"walferry-replica"}, "replica": {from.url}}.Encode(), from.proxy
	case litestream:
		spec.Extension, spec.URI, r.proxy = b.LitestreamVFS, "file:app?vfs=litestream", from.proxy
		cmd.Env = append(cmd.Env, "LITESTREAM_REPLICA_URL="+from.url, "LITESTREAM_LOG_FILE="+filepath.Join(dir, "litestream.log"))
	}
	if spec.Extension != "" {
		var err error
		if spec.Extension, err = filepath.Abs(spec.Extension); err != nil {
			return nil, err
		}
	}
	var err error
	r.child, err = b.converse("reader of "+string(s), cmd, spec)
	return r, err
}

// do runs one step.
func (r *reader) do(step readerStep) (p phase, err error) {
	var before traffic
	if r.proxy != nil {
		before = r.proxy.traffic()
	}
	if err := r.send(step); err != nil {
		return p, err
	}
	if err := r.receive(&p.readerAnswer); err != nil {
		return p, err
	}
	if r.proxy != nil {
		now := r.proxy.traffic()
		p.Requests, p.Bytes = now.requests-before.requests, now.bytes-before.bytes
	}
	return p, nil
}
