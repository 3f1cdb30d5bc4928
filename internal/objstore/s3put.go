package objstore

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/walferry/walferry/internal/group"
)

// Sizes of uploads, in bytes.
const (
	maxPut   = 32 << 20 // more goes up in parts
	minPart  = 16 << 20
	maxParts = 10000 // S3's own bound
)

// uploadLanes are parts under way at once: one connection seldom fills a line
// with some latency, and more would take it from the application.
const uploadLanes = 3

const (
	headerCRC32C = "x-amz-checksum-crc32c"
	headerAlgo   = "x-amz-checksum-algorithm"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Create is part of Store. An upload in parts costs a request more, to see that the
// name is free before the bytes are sent; the decision is still made at its end.
func (s *s3Store) Create(ctx context.Context, o Object, body Body, m Meta, started func(string)) error {
	if body.Size() <= maxPut {
		return s.put(ctx, s.key(o), o, body, m)
	}
	_, err := s.Meta(ctx, o)
	switch {
	case err == nil:
		return fmt.Errorf("create %v: %w", o, ErrExist)
	case !errors.Is(err, ErrNotExist):
		return err
	}
	return s.upload(ctx, o, body, m, started)
}

// put creates a key with one request. The library's PutObject drops the
// condition where it decides to send parts; the one of its core never does.
func (s *s3Store) put(ctx context.Context, key string, noun any, body Body, m Meta) error {
	// A request's body is read once for its checksums, and then sent.
	crc, sha, err := s.digest(io.NewSectionReader(body, 0, body.Size()))
	if err != nil {
		return fmt.Errorf("create %v: read its bytes: %w", noun, err)
	}
	opts := s.options(m)
	opts.UserMetadata[headerCRC32C] = crc
	opts.DisableContentSha256 = true // it is here already; the streamed one is less widely understood
	opts.DisableMultipart = true
	opts.SetMatchETagExcept("*")
	ctx, cancel := deadline(ctx, min(timeFor(body.Size()), partRequest), s.host)
	defer cancel()
	from := &sending{ReaderAt: body}
	r := io.NewSectionReader(from, 0, body.Size())
	info, err := s.core.PutObject(ctx, s.bucket, key, r, body.Size(), "", sha, opts)
	from.check()
	if err == nil {
		err = s.genuine(info.ETag)
	}
	if err != nil {
		return s.fail(ctx, "create", noun, err)
	}
	return nil
}

// genuine refuses to believe that bytes were stored where the answer has not the one thing
// that every store adds: it may be a network's own page, which asks somebody to log in.
func (s *s3Store) genuine(etag string) error {
	if etag == "" {
		return fmt.Errorf("what answers at %s is no store: it has no ETag for what was sent; check the network and endpoint=", s.host)
	}
	return nil
}

// options carries the metadata.
func (s *s3Store) options(m Meta) minio.PutObjectOptions {
	meta := map[string]string{}
	if !m.Timestamp.IsZero() {
		meta[metaTimestamp] = m.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	if m.Checksum != 0 {
		meta[metaChecksum] = fmt.Sprintf("%016x", m.Checksum)
	}
	if m.Window != (Window{}) {
		meta[metaWindow] = m.Window.String()
	}
	return minio.PutObjectOptions{UserMetadata: meta}
}

// digest returns the checksums that a request carries: CRC32C in base64, which
// the store compares and keeps, and, where no TLS guards the bytes, the SHA-256 in
// hexadecimal that the signature covers.
func (s *s3Store) digest(r io.Reader) (crc, sha string, err error) {
	c, h := crc32.New(castagnoli), sha256.New()
	w := io.Writer(c)
	if !s.secure {
		w = io.MultiWriter(c, h)
	}
	if _, err := io.Copy(w, r); err != nil {
		return "", "", err
	}
	if !s.secure {
		sha = hex.EncodeToString(h.Sum(nil))
	}
	return base64.StdEncoding.EncodeToString(c.Sum(nil)), sha, nil
}

// timeFor is how long a request with n bytes may take.
func timeFor(n int64) time.Duration {
	if n <= 1<<20 {
		return shortRequest
	}
	return partRequest * time.Duration((n+minPart-1)/minPart)
}

// partSize is the smallest that keeps an object of n bytes within maxParts.
func partSize(n int64) int64 {
	const unit = 1 << 20
	need := (n + maxParts - 1) / maxParts
	return max(minPart, (need+unit-1)/unit*unit)
}

// upload creates an object in parts. The metadata goes with its begin and the
// condition with its end. What the store has refused is aborted; after an end
// whose outcome is unknown the upload is left to the caller, who was told its id,
// because aborting could race with the store's own work on it.
func (s *s3Store) upload(ctx context.Context, o Object, body Body, m Meta, started func(string)) error {
	opts := s.options(m)
	opts.UserMetadata[headerAlgo] = "CRC32C"
	short, cancel := deadline(ctx, shortRequest, s.host)
	id, err := s.core.NewMultipartUpload(short, s.bucket, s.key(o), opts)
	if err != nil {
		defer cancel()
		return s.fail(short, "begin upload of", o, err)
	}
	cancel()
	if started != nil {
		started(id)
	}
	parts, err := s.sendParts(ctx, o, id, body)
	if err != nil {
		s.abandon(ctx, o, id)
		return err
	}
	var cond minio.PutObjectOptions
	cond.SetMatchETagExcept("*")
	long, cancel := deadline(ctx, joinRequest, s.host)
	defer cancel()
	if _, err = s.core.CompleteMultipartUpload(long, s.bucket, s.key(o), id, parts, cond); err == nil {
		return nil
	}
	err = s.fail(long, "end upload of", o, err)
	if errors.Is(err, ErrExist) || errors.Is(err, ErrRefused) {
		s.abandon(ctx, o, id)
	}
	return err
}

// abandon aborts as well as it can, even where ctx has ended. What it misses the
// caller aborts later.
func (s *s3Store) abandon(ctx context.Context, o Object, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortRequest)
	defer cancel()
	_ = s.AbortUpload(ctx, o, id)
}

// sendParts sends all parts, some at once, each read from where it lies in the
// body. The first failure ends the others.
func (s *s3Store) sendParts(ctx context.Context, o Object, id string, body Body) ([]minio.CompletePart, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	size, step := body.Size(), partSize(body.Size())
	parts := make([]minio.CompletePart, (size+step-1)/step)
	var (
		once  sync.Once
		first error
	)
	g := group.New()
	lanes := make(chan struct{}, uploadLanes)
	for i := range parts {
		select {
		case lanes <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			once.Do(func() { first = s.fail(ctx, "upload", o, ctx.Err()) })
			break
		}
		off := int64(i) * step
		part := io.NewSectionReader(body, off, min(step, size-off))
		g.Go(func() (err error) {
			defer func() { <-lanes }()
			if parts[i], err = s.sendPart(ctx, o, id, i+1, part); err != nil {
				once.Do(func() { first = err; cancel() })
			}
			return err
		})
	}
	_ = g.Wait() // first is that error, or of the context
	return slices.Clip(parts), first
}

func (s *s3Store) sendPart(ctx context.Context, o Object, id string, n int, r *io.SectionReader) (minio.CompletePart, error) {
	noun := fmt.Sprintf("part %d of %v", n, o)
	crc, sha, err := s.digest(r)
	if err != nil {
		return minio.CompletePart{}, fmt.Errorf("upload %s: read its bytes: %w", noun, err)
	}
	ctx, cancel := deadline(ctx, timeFor(r.Size()), s.host)
	defer cancel()
	from := &sending{ReaderAt: r}
	p, err := s.core.PutObjectPart(ctx, s.bucket, s.key(o), id, n, io.NewSectionReader(from, 0, r.Size()), r.Size(), minio.PutObjectPartOptions{
		Sha256Hex:            sha,
		DisableContentSha256: true,
		CustomHeader:         http.Header{http.CanonicalHeaderKey(headerCRC32C): {crc}},
	})
	from.check()
	if err == nil {
		err = s.genuine(p.ETag)
	}
	if err != nil {
		return minio.CompletePart{}, s.fail(ctx, "upload", noun, err)
	}
	return minio.CompletePart{PartNumber: n, ETag: p.ETag, ChecksumCRC32C: crc}, nil
}
