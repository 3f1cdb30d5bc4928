package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"
)

// probeName is no LTX file's name, and Litestream passes it over.
const probeName = "walferry.probe"

// probes is how often a trial is made before its bad result is believed: another machine
// that tries at the same time may take the probe away between two of our requests.
const probes = 4

// Conditional is part of Store. It also tries, for a URL without a prefix, whether
// what is written can be listed, and fails with ErrRefused where it cannot.
func (s *s3Store) Conditional(ctx context.Context) (bool, error) {
	key := s.prefix + "/" + probeName
	for range probes {
		err := s.put(ctx, key, "probe", strings.NewReader("walferry"), Meta{})
		switch {
		case errors.Is(err, ErrExist):
			err := s.listable(ctx, key)
			return err == nil, errors.Join(err, s.remove(ctx, key, "probe"))
		case errors.Is(err, errUnsupported):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	return false, s.remove(ctx, key, "probe")
}

// listable finds servers that keep files and clean their names: they store "./0000/x" and
// "/0000/x" as "0000/x", and list neither, so that a replica looks empty for ever.
func (s *s3Store) listable(ctx context.Context, key string) error {
	if s.prefix != "." && s.prefix != "" {
		return nil
	}
	ctx, cancel := deadline(ctx, shortRequest, s.host)
	defer cancel()
	for range probes {
		for info := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: key, Recursive: true}) {
			if info.Err != nil {
				return s.fail(ctx, "list", "probe", info.Err)
			}
			if info.Key == key {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return s.fail(ctx, "list", "probe", err)
		}
		if err := s.put(ctx, key, "probe", strings.NewReader("walferry"), Meta{}); err != nil && !errors.Is(err, ErrExist) {
			return err
		}
	}
	return fmt.Errorf("list probe: %w: %s does not list the names that Litestream gives to a replica without a prefix: use s3://%s/prefix", ErrRefused, s.host, s.bucket)
}
