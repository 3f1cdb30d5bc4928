package objstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func (s *fileStore) marks() string { return filepath.Join(s.dir, "marks") }

// Marks is part of Store.
func (s *fileStore) Marks(ctx context.Context) ([]Mark, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list marks: %w", err)
	}
	s.tell(0)
	entries, err := os.ReadDir(s.marks())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.fail("list", "marks", err)
	}
	var marks []Mark
	for _, e := range entries {
		if m, ok := parseMark(e.Name()); ok && e.Type().IsRegular() {
			marks = append(marks, m)
		}
	}
	sortMarks(marks)
	return marks, nil
}

// PutMark is part of Store.
func (s *fileStore) PutMark(ctx context.Context, m Mark) error {
	if err := m.Validate(); err != nil {
		return err
	}
	body := m.body()
	s.tell(body.Size())
	err := s.create(ctx, s.marks(), m.Key(), body, Meta{Timestamp: m.Time})
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return s.fail("create", m, err)
}

// RemoveMark is part of Store.
func (s *fileStore) RemoveMark(ctx context.Context, m Mark) error {
	if err := errors.Join(ctx.Err(), m.Validate()); err != nil {
		return fmt.Errorf("remove %v: %w", m, err)
	}
	s.tell(0)
	return s.remove(s.marks(), m.Key(), m)
}
