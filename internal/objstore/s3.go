package objstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/superfly/ltx"
)

// What travels with an object. The first name is Litestream's.
const (
	metaTimestamp = "litestream-timestamp" // RFC 3339 with nanoseconds, UTC
	metaChecksum  = "walferry-checksum"    // 16 hexadecimal digits
	metaWindow    = "walferry-window"      // as Window.String has it
)

// s3Store keeps a replica in a bucket. minio-go was chosen for its size: half
// of what the other S3 clients add to a library that other programs load.
type s3Store struct {
	s3Config
	core  *minio.Core
	creds *credentials.Credentials
	chain *chain
	host  string // the endpoint as errors show it

	transport *transport
}

func newS3Store(c s3Config) (*s3Store, error) {
	s := &s3Store{s3Config: c, chain: newChain(), host: c.endpoint, transport: newTransport(c.onRequest)}
	s.creds = credentials.New(s.chain)
	host, lookup := c.endpoint, minio.BucketLookupAuto
	if host == "" {
		host = "s3.amazonaws.com"
		s.host = "AWS in " + c.region
	} else if !c.secure {
		s.host = "http://" + host
	}
	if c.pathStyle != nil {
		lookup = minio.BucketLookupDNS
		if *c.pathStyle {
			lookup = minio.BucketLookupPath
		}
	}
	var err error
	s.core, err = minio.NewCore(host, &minio.Options{
		Creds:        s.creds,
		Secure:       c.secure,
		Transport:    s.transport,
		Region:       c.region, // given, so that no request looks it up
		BucketLookup: lookup,
		MaxRetries:   1, // trying again is the caller's, who knows what a lost reply means
	})
	if err != nil {
		return nil, fmt.Errorf("%w: endpoint %q: %w", ErrURL, c.endpoint, err)
	}
	return s, nil
}

// CloseIdleConnections is for CloseIdle.
func (s *s3Store) CloseIdleConnections() { s.transport.CloseIdleConnections() }

// String is part of Store.
func (s *s3Store) String() string { return s.url() }

// dir is what the keys of a level begin with.
func (s *s3Store) dir(level int) string { return fmt.Sprintf("%s/%04x/", s.prefix, level) }

func (s *s3Store) key(o Object) string { return s.dir(o.Level) + o.Name() }

// List is part of Store. It takes one request per 1000 names.
func (s *s3Store) List(ctx context.Context, level int, from ltx.TXID) ([]Object, error) {
	ctx, dog := watch(ctx, s.host)
	defer dog.end()
	dir, no := s.dir(level), false
	opts := minio.ListObjectsOptions{Prefix: dir, Recursive: true, FetchOwner: &no}
	if from > 1 {
		// A tilde sorts behind every digit, and so behind each name with that Min.
		opts.StartAfter = dir + (from - 1).String() + "-~"
	}
	var objs []Object
	for info := range s.core.ListObjectsIter(ctx, s.bucket, opts) {
		if info.Err != nil {
			return nil, s.fail(ctx, "list", fmt.Sprintf("level %d", level), info.Err)
		}
		dog.reset()
		if o, ok := parseName(level, strings.TrimPrefix(info.Key, dir)); ok && o.Min >= from {
			o.Size, o.ModTime, o.Tag = info.Size, info.LastModified, tag(info.ETag)
			objs = append(objs, o)
		}
	}
	// The iterator ends without an error where its context does between two pages.
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "list", fmt.Sprintf("level %d", level), err)
	}
	sortObjects(objs)
	return objs, nil
}

// listPage is how many names an answer holds; S3 gives no more.
const listPage = 1000

// ListAll is part of Lister. Under the prefix may lie what is no replica's, even other replicas, so
// it ends with the first answer.
func (s *s3Store) ListAll(ctx context.Context) (objs []Object, marks []Mark, ok bool, err error) {
	ctx, cancel := deadline(ctx, shortRequest, s.host)
	defer cancel()
	no, n := false, 0
	opts := minio.ListObjectsOptions{Prefix: s.prefix + "/", Recursive: true, FetchOwner: &no, MaxKeys: listPage}
	for info := range s.core.ListObjectsIter(ctx, s.bucket, opts) {
		if info.Err != nil {
			return nil, nil, false, s.fail(ctx, "list", "all levels", info.Err)
		}
		if n++; n == listPage {
			return nil, nil, false, nil
		}
		dir, name := path.Split(info.Key)
		if dir == s.marks() {
			if m, ok := parseMark(name); ok {
				marks = append(marks, m)
			}
			continue
		}
		for level := range SnapshotLevel + 1 {
			if dir != s.dir(level) {
				continue
			}
			if o, ok := parseName(level, name); ok {
				o.Size, o.ModTime, o.Tag = info.Size, info.LastModified, tag(info.ETag)
				objs = append(objs, o)
			}
		}
	}
	if err := ctx.Err(); err != nil { // as in List
		return nil, nil, false, s.fail(ctx, "list", "all levels", err)
	}
	slices.SortFunc(objs, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	sortMarks(marks)
	return objs, marks, true, nil
}

// parseName takes the names of LTX files and no others.
func parseName(level int, name string) (Object, bool) {
	from, to, err := ltx.ParseFilename(name)
	if err != nil || from == 0 || from > to {
		return Object{}, false
	}
	return Object{Level: level, Min: from, Max: to}, true
}

func sortObjects(objs []Object) {
	slices.SortFunc(objs, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
}

// Open is part of Store. The reader fails when nothing comes for a minute.
func (s *s3Store) Open(ctx context.Context, o Object, off, n int64) (io.ReadCloser, error) {
	if n == 0 { // which no range header can say
		if _, err := s.Meta(ctx, o); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	ctx, dog := watch(ctx, s.host)
	rc, _, err := s.get(ctx, o, off, n)
	if err != nil {
		defer dog.end()
		return nil, s.fail(ctx, "open", o, err)
	}
	dog.stop()
	return &s3Reader{body: rc, ctx: ctx, dog: dog, fail: func(err error) error { return s.fail(ctx, "read", o, err) }}, nil
}

// get asks for a range and checks that a range is what came.
func (s *s3Store) get(ctx context.Context, o Object, off, n int64) (io.ReadCloser, minio.ObjectInfo, error) {
	var opts minio.GetObjectOptions
	switch {
	case n > 0:
		opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	case off > 0:
		opts.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	rc, info, h, err := s.core.GetObject(ctx, s.bucket, s.key(o), opts)
	if err != nil {
		return nil, info, err
	}
	if (n > 0 || off > 0) && h.Get("Content-Range") == "" {
		rc.Close()
		return nil, info, errors.New("the store sent a whole object where a part was asked for")
	}
	if err := is(o, tag(info.ETag)); err != nil {
		rc.Close()
		return nil, info, err
	}
	return rc, info, nil
}

// tag is an ETag without what a proxy adds that compresses.
func tag(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// Meta is part of Store. It reads a byte rather than asking for the head, whose
// errors have no body and so do not tell a missing bucket from a missing object.
func (s *s3Store) Meta(ctx context.Context, o Object) (Meta, error) {
	ctx, cancel := deadline(ctx, shortRequest, s.host)
	defer cancel()
	rc, info, err := s.get(ctx, o, 0, 1)
	if err != nil {
		return Meta{}, s.fail(ctx, "read metadata of", o, err)
	}
	rc.Close()
	m := Meta{Timestamp: info.LastModified}
	for k, v := range info.UserMetadata {
		switch strings.ToLower(k) {
		case metaTimestamp:
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				m.Timestamp = t
			}
		case metaChecksum:
			m.Checksum, _ = strconv.ParseUint(v, 16, 64)
		case metaWindow:
			m.Window = parseWindow(v)
		}
	}
	m.Timestamp = m.Timestamp.UTC()
	return m, nil
}

// Remove is part of Store.
func (s *s3Store) Remove(ctx context.Context, o Object) error {
	err := s.remove(ctx, s.key(o), o)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

func (s *s3Store) remove(ctx context.Context, key string, noun any) error {
	ctx, cancel := deadline(ctx, shortRequest, s.host)
	defer cancel()
	if err := s.core.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return s.fail(ctx, "remove", noun, err)
	}
	return nil
}

// AbortUpload is part of Store.
func (s *s3Store) AbortUpload(ctx context.Context, o Object, uploadID string) error {
	ctx, cancel := deadline(ctx, shortRequest, s.host)
	defer cancel()
	err := s.core.AbortMultipartUpload(ctx, s.bucket, s.key(o), uploadID)
	if r := (minio.ErrorResponse{}); errors.As(err, &r) && (r.Code == "NoSuchUpload" || r.Code == "NoSuchKey") {
		return nil
	}
	if err != nil {
		return s.fail(ctx, "abort upload of", o, err)
	}
	return nil
}
