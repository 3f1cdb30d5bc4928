package objstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/minio/minio-go/v7"
)

const (
	// removeBatch is how many objects S3 deletes with one request.
	removeBatch = 1000

	// maxLeftovers is after how many objects that cannot be deleted RemoveAll
	// gives up: the store will hardly let the others go.
	maxLeftovers = 3
)

// leftovers are the errors of objects that could not be removed.
type leftovers struct{ errs []error }

// add reports that it is time to give up.
func (l *leftovers) add(err error) bool {
	l.errs = append(l.errs, err)
	return len(l.errs) >= maxLeftovers
}

func (l *leftovers) err() error { return errors.Join(l.errs...) }

// RemoveAll is part of Store. What a request for many has not deleted, or all where
// the store knows no such request, is deleted one by one, whose answers say more.
func (s *s3Store) RemoveAll(ctx context.Context, objs []Object) error {
	left := new(leftovers)
	for batch := range slices.Chunk(objs, removeBatch) {
		rest, err := s.removeMany(ctx, batch)
		if err != nil {
			left.add(err)
			return left.err()
		}
		for _, o := range rest {
			if err := s.Remove(ctx, o); err != nil && (left.add(err) || ctx.Err() != nil) {
				return left.err()
			}
		}
	}
	return left.err()
}

// removeMany makes one request, and returns the objects of which the store does not
// say that it has deleted them. The error is one that a request for each would
// only repeat.
func (s *s3Store) removeMany(ctx context.Context, objs []Object) (rest []Object, err error) {
	if len(objs) < 2 {
		return objs, nil
	}
	ctx, cancel := deadline(ctx, partRequest, s.host)
	defer cancel()
	results, err := s.core.RemoveObjectsWithIter(ctx, s.bucket, func(yield func(minio.ObjectInfo) bool) {
		for _, o := range objs {
			if !yield(minio.ObjectInfo{Key: s.key(o)}) {
				return
			}
		}
	}, minio.RemoveObjectsOptions{})
	if err != nil {
		return objs, nil
	}
	deleted := map[string]bool{}
	for r := range results {
		var answer minio.ErrorResponse
		switch {
		case r.Err == nil, errors.As(r.Err, &answer) && answer.Code == "NoSuchKey":
			deleted[r.ObjectName] = true
		case answer.Code == "" || answer.StatusCode >= 500 && answer.StatusCode != 501:
			return nil, s.fail(ctx, "remove", fmt.Sprintf("%d objects from %v", len(objs), objs[0]), r.Err)
		}
	}
	if ctx.Err() != nil {
		return nil, s.fail(ctx, "remove", fmt.Sprintf("%d objects from %v", len(objs), objs[0]), ctx.Err())
	}
	return slices.DeleteFunc(slices.Clone(objs), func(o Object) bool { return deleted[s.key(o)] }), nil
}
