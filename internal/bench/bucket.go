package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/walferry/walferry/internal/s3test"
)

// bucket is a bucket of the S3 server of this run, and in it the replica that a measurement works
// with. The zero value is none.
type bucket struct {
	URL  string // of the replica
	Home string // where the server keeps the bucket
}

// bucketPrefix is the name of the replica within its bucket.
const bucketPrefix = "app"

// bucket makes an empty bucket, and starts the server when the first is asked for. The caller
// removes the bucket, so that a long run needs no more disk than a short one.
func (b *bench) bucket() (bucket, error) {
	if b.s3 == nil {
		program, err := filepath.Abs(b.Versitygw)
		if err == nil {
			_, err = os.Stat(program)
		}
		if err != nil {
			return bucket{}, fmt.Errorf("%w: run make tools first", err)
		}
		home, err := b.fresh()
		if err != nil {
			return bucket{}, err
		}
		// It keeps no connections: litestream would hold one for every object of a long history, and
		// with the proxy's two for each that is more than a process may have open.
		if b.s3, err = s3test.Launch(b.ctx, program, home); err != nil {
			b.s3 = nil
			return bucket{}, err
		}
	}
	b.next++
	name := fmt.Sprintf("bench-%04d", b.next)
	if err := b.s3.MakeBucket(b.ctx, name); err != nil {
		return bucket{}, err
	}
	k := bucket{Home: filepath.Join(b.s3.Dir, name)}
	return k.through(b.s3.Endpoint), nil
}

// through is the same bucket reached at another endpoint, that of a proxy.
func (k bucket) through(endpoint string) bucket {
	q := url.Values{"endpoint": {endpoint}, "region": {"us-east-1"}, "forcePathStyle": {"true"}}
	u := url.URL{Scheme: "s3", Host: filepath.Base(k.Home), Path: bucketPrefix, RawQuery: q.Encode()}
	k.URL = u.String()
	return k
}

func (k bucket) remove() error { return os.RemoveAll(k.Home) }

// url is where the target is replicated to.
func (t target) url() string {
	if t.S3.URL != "" {
		return t.S3.URL
	}
	return fileURL(t.Replica)
}

// level is the directory of a level's objects.
func (t target) level(n int) string {
	if t.S3.Home != "" {
		return filepath.Join(t.S3.Home, bucketPrefix, fmt.Sprintf("%04x", n))
	}
	return filepath.Join(t.Replica, "ltx", fmt.Sprint(n))
}

// allLevels are those that hold objects.
var allLevels = []int{0, 1, 2, 3, 9}

// stored returns the bytes of the objects on some levels of the target's replica.
func (t target) stored(levels ...int) (int64, error) {
	names, err := t.objects(levels...)
	if err != nil {
		return 0, err
	}
	return fileSize(names...)
}

// plant copies an object of one replica to another behind the back of its store.
func plant(from string, to target, level int) error {
	dir := to.level(level)
	return errors.Join(os.MkdirAll(dir, 0o755), copyFile(from, filepath.Join(dir, filepath.Base(from))))
}
