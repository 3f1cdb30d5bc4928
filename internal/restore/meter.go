package restore

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// meter counts what goes to and comes from a store.
type meter struct {
	objstore.Store
	requests, bytes atomic.Int64
}

// List is part of objstore.Store.
func (m *meter) List(ctx context.Context, level int, from ltx.TXID) ([]objstore.Object, error) {
	m.requests.Add(1)
	return m.Store.List(ctx, level, from)
}

// Meta is part of objstore.Store.
func (m *meter) Meta(ctx context.Context, o objstore.Object) (objstore.Meta, error) {
	m.requests.Add(1)
	return m.Store.Meta(ctx, o)
}

// Open is part of objstore.Store.
func (m *meter) Open(ctx context.Context, o objstore.Object, off, n int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	rc, err := m.Store.Open(ctx, o, off, n)
	if err != nil {
		return nil, err
	}
	return &meteredReader{rc, m}, nil
}

type meteredReader struct {
	io.ReadCloser
	m *meter
}

// Read is part of io.Reader.
func (r *meteredReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.m.bytes.Add(int64(n))
	return n, err
}
