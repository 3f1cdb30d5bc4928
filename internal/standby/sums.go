package standby

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/walferry/walferry/internal/ledger"
)

// sums is what a whole database comes to, as a Point has it.
type sums struct {
	pages uint32
	rest  uint64
	one   uint64
	own   uint64
}

// ownSum is the sum of page 1 without what SQLite changes by itself.
func ownSum(page []byte) uint64 {
	b := append([]byte(nil), page...)
	clear(b[18:20])
	clear(b[24:32])
	clear(b[92:100])
	return ledger.PageSum(1, b)
}

// fit makes of the source's page 1 the standby's.
func fit(page []byte, pages uint32) {
	page[18], page[19] = 2, 2
	binary.BigEndian.PutUint32(page[28:], pages)
}

func (s *sums) add(pgno uint32, page []byte) {
	sum := ledger.PageSum(pgno, page)
	switch pgno {
	case 1:
		s.one, s.own = sum, ownSum(page)
	case ledger.LockPage(uint32(len(page))):
	default:
		s.rest ^= sum
	}
}

// sumFile sums the pages of a database file that nobody has open.
func sumFile(r io.Reader, pageSize, pages uint32) (s sums, err error) {
	s.pages = pages
	b := make([]byte, pageSize)
	for p := uint32(1); p <= pages; p++ {
		if _, err := io.ReadFull(r, b); err != nil {
			return s, fmt.Errorf("read database: %w", err)
		}
		s.add(p, b)
	}
	return s, nil
}

// sumPages sums the pages as a connection sees them.
func sumPages(ctx context.Context, c *conn) (s sums, err error) {
	defer c.shrink()
	st, err := c.prepare("SELECT pgno, data FROM sqlite_dbpage")
	if err != nil {
		return s, fmt.Errorf("read database: %w", err)
	}
	defer st.finalize()
	for {
		row, err := st.step()
		if err != nil {
			return s, fmt.Errorf("read database: %w", err)
		}
		if !row {
			return s, nil
		}
		if s.pages++; s.pages%1024 == 0 && ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		s.add(uint32(st.int64(0)), st.blob(1))
	}
}
