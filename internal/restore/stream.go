package restore

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/walferry/walferry/internal/ledger"
)

// stream is a place that is no file. The database is built in one that has no name, or
// none for long, since nothing may go out before all of it is known to be right.
type stream struct {
	ctx   context.Context
	w     io.Writer
	named bool // until commit: somebody wants to open it

	db     *os.File
	ledger *ledger.Ledger
}

func (s *stream) create() (b *builder, err error) {
	if s.db, err = os.CreateTemp("", ".walferry-restore-*"); err != nil {
		return nil, fmt.Errorf("create database (TMPDIR tells where): %w", err)
	}
	if s.ledger, err = ledger.Open(s.db.Name()); err != nil {
		return nil, err
	}
	if err := s.ledger.Reset(s.db.Name()); err != nil {
		return nil, err
	}
	if !s.named {
		s.unlink()
	}
	return &builder{db: s.db, ledger: s.ledger}, nil
}

func (s *stream) unlink() {
	os.Remove(s.db.Name())
	os.Remove(s.db.Name() + ledger.Suffix)
}

func (s *stream) commit(bool) error {
	if s.named {
		s.unlink()
	}
	fi, err := s.db.Stat()
	if err != nil {
		return fmt.Errorf("read database: %w", err)
	}
	buf := make([]byte, 256<<10)
	for r := io.NewSectionReader(s.db, 0, fi.Size()); ; {
		n, err := r.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			_, err = s.w.Write(buf[:n])
		}
		if err == nil {
			err = s.ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("write database, of which a part is written: %w", err)
		}
	}
}

func (s *stream) discard() {
	if s.ledger != nil {
		s.ledger.Close()
	}
	if s.db != nil {
		if s.named {
			s.unlink()
		}
		s.db.Close()
	}
	s.db, s.ledger = nil, nil
}
