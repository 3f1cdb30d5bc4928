package objstore

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPrefix bounds a bucket's prefix in bytes. S3 keys hold 1024; the level
// and the longest name of ours take 44.
const maxPrefix = 900

// New opens a replica's URL, without talking to the store:
//
//	file:///var/backups/app
//	s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1&forcePathStyle=true
//
// What the query lacks is taken from o, then from the AWS environment
// variables. Every error wraps ErrURL, and none carries a credential.
func New(rawURL string, o Options) (Store, error) {
	u, q, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return newFileURL(u, q, o)
	}
	c, err := parseS3(u, q, o)
	if err != nil {
		return nil, err
	}
	return newS3Store(c)
}

var oneSlash = regexp.MustCompile(`^(?i:s3):/[^/]`)

// parseURL splits a URL and refuses what no scheme allows. An '@' may be the end
// of a password whose other characters hide where it begins, so a URL that has one
// and cannot be split is never repeated in an error.
//
// Tcl takes a URI for a path and leaves one slash where there were two: s3:/bucket is no other thing.
func parseURL(raw string) (*url.URL, url.Values, error) {
	if oneSlash.MatchString(raw) {
		raw = raw[:len("s3:/")] + raw[len("s3:"):]
	}
	_, rest, ok := strings.Cut(raw, "://")
	if host, _, _ := strings.Cut(rest, "/"); ok && strings.Contains(host, "@") {
		return nil, nil, fmt.Errorf("%w: it carries a user or password before '@': give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", ErrURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s cannot be parsed: allowed are file:///dir and s3://bucket/prefix", ErrURL, shown(raw))
	}
	if u.Scheme != "file" && u.Scheme != "s3" {
		return nil, nil, fmt.Errorf("%w: %s: allowed are file:///dir and s3://bucket/prefix", ErrURL, shown(raw))
	}
	if strings.Contains(u.Host, ":") {
		return nil, nil, fmt.Errorf("%w: %s has a port: a host goes into endpoint=", ErrURL, shown(raw))
	}
	if u.User != nil || u.Opaque != "" {
		return nil, nil, fmt.Errorf("%w: %s: write %s://, with two slashes", ErrURL, shown(raw), u.Scheme)
	}
	if strings.Contains(raw, "#") {
		return nil, nil, fmt.Errorf("%w: %s has a '#': write it as %%23", ErrURL, shown(raw))
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the query of %s cannot be parsed: allowed is key=value&key=value, with %%XX for special characters", ErrURL, shown(raw))
	}
	for k, v := range q {
		if len(v) > 1 {
			return nil, nil, fmt.Errorf("%w: %s has the parameter %q %d times: allowed is once", ErrURL, shown(raw), k, len(v))
		}
	}
	return u, q, nil
}

// shown is a URL as an error may show it: without its query, and not at all
// where a password could be in it.
func shown(raw string) string {
	if strings.Contains(raw, "@") {
		return "the URL (not shown, since it has an '@')"
	}
	raw, _, _ = strings.Cut(raw, "?")
	raw, _, _ = strings.Cut(raw, "#")
	return fmt.Sprintf("%q", raw)
}

// newFileURL takes an absolute directory. Unlike Litestream it decodes %XX,
// so that a name with a space can be written.
func newFileURL(u *url.URL, q url.Values, o Options) (Store, error) {
	if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
		return nil, fmt.Errorf("%w: %q: a directory must be absolute: file:///dir, with three slashes", ErrURL, "file://"+u.Host+u.Path)
	}
	for k := range q {
		return nil, fmt.Errorf("%w: unknown parameter %q: a file URL takes none", ErrURL, k)
	}
	dir := filepath.Clean(u.Path)
	if dir == "/" || strings.ContainsRune(dir, 0) {
		return nil, fmt.Errorf("%w: %q names no directory of its own: file:///dir", ErrURL, u.Path)
	}
	return newFileStore(dir, o.OnRequest), nil
}

// s3Config is an S3 URL together with what it does not say, checked.
type s3Config struct {
	bucket    string
	prefix    string // before the slash that precedes the level; see s3Prefix
	endpoint  string // host or host:port; empty: AWS
	secure    bool
	region    string
	pathStyle *bool // nil: as the endpoint's host tells
	onRequest func(int64)
}

// bucketName is what the S3 servers in use take as a bucket's name.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$`)

// regionName is wide enough for those that S3-compatible stores invent.
var regionName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func parseS3(u *url.URL, q url.Values, o Options) (s3Config, error) {
	c := s3Config{bucket: u.Host, prefix: s3Prefix(u.Path), onRequest: o.OnRequest}
	switch {
	case c.bucket == "":
		return c, fmt.Errorf("%w: %q names no bucket: s3://bucket/prefix", ErrURL, "s3://"+u.Path)
	case !bucketName.MatchString(c.bucket) || strings.Contains(c.bucket, ".."):
		return c, fmt.Errorf("%w: bucket %q: a bucket's name has 3 to 63 letters, digits, '.', '-' and '_'; a host goes into endpoint=", ErrURL, c.bucket)
	case strings.HasSuffix(c.bucket, ".amazonaws.com"):
		return c, fmt.Errorf("%w: %q is a host: write s3://bucket/prefix?region=", ErrURL, c.bucket)
	}
	if len(c.prefix) > maxPrefix || !utf8.ValidString(c.prefix) || strings.ContainsFunc(c.prefix, unicode.IsControl) {
		return c, fmt.Errorf("%w: prefix %q: a prefix has at most %d bytes of UTF-8 without control characters", ErrURL, c.prefix, maxPrefix)
	}
	err := cmp.Or(checkParams(q), c.setEndpoint(q, o), c.setRegion(q, o), c.setPathStyle(q, o))
	return c, err
}

// s3Prefix makes of a URL's path what Litestream makes of it: the cleaned path
// without its first slash. A URL without a path gives ".", so that its keys
// begin with "./0000/", and one that ends after the slash gives "", whose keys
// begin with "/0000/". Odd, but there is where its replicas are.
func s3Prefix(urlPath string) string {
	return strings.TrimPrefix(path.Clean(urlPath), "/")
}

// checkParams refuses what would be passed over. A value may be secret, as in
// Litestream's sseCustomerKey, so that only the name is shown.
func checkParams(q url.Values) error {
	for k := range q {
		switch k {
		case "endpoint", "region", "forcePathStyle", "force-path-style":
		default:
			return fmt.Errorf("%w: unknown parameter %q: allowed are endpoint, region and forcePathStyle", ErrURL, k)
		}
	}
	return nil
}

// url is the store's URL without the query.
func (c s3Config) url() string {
	u := url.URL{Scheme: "s3", Host: c.bucket}
	if c.prefix != "." {
		u.Path = "/" + c.prefix
	}
	return u.String()
}
