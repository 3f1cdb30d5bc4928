package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"
)

// maxKey is S3's own bound, in bytes.
const maxKey = 1024

func (s *s3Store) marks() string { return s.prefix + "/marks/" }

// Marks is part of Store. It takes one request per 1000 marks.
func (s *s3Store) Marks(ctx context.Context) ([]Mark, error) {
	ctx, dog := watch(ctx, s.host)
	defer dog.end()
	no := false
	var marks []Mark
	for info := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.marks(), Recursive: true, FetchOwner: &no}) {
		if info.Err != nil {
			return nil, s.fail(ctx, "list", "marks", info.Err)
		}
		dog.reset()
		if m, ok := parseMark(strings.TrimPrefix(info.Key, s.marks())); ok {
			marks = append(marks, m)
		}
	}
	// As in List.
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "list", "marks", err)
	}
	sortMarks(marks)
	return marks, nil
}

// PutMark is part of Store.
func (s *s3Store) PutMark(ctx context.Context, m Mark) error {
	if err := m.Validate(); err != nil {
		return err
	}
	key := s.marks() + m.Key()
	if len(key) > maxKey {
		return fmt.Errorf("create %v: %w: its key has %d bytes, and S3 takes %d: choose a shorter name", m, ErrRefused, len(key), maxKey)
	}
	err := s.put(ctx, key, m, m.body(), Meta{})
	if errors.Is(err, ErrExist) {
		return nil
	}
	return err
}

// RemoveMark is part of Store.
func (s *s3Store) RemoveMark(ctx context.Context, m Mark) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("remove %v: %w", m, err)
	}
	err := s.remove(ctx, s.marks()+m.Key(), m)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}
