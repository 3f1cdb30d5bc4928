package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ltxfile"
)

// ReadHeader reads an object's LTX header, decoded and as the bytes it came
// from. A file that is too short, is no LTX file or holds other transactions than
// its name tells is an error that wraps ltx.ErrInvalidFile.
func ReadHeader(ctx context.Context, s Store, o Object) (ltx.Header, [ltx.HeaderSize]byte, error) {
	var raw [ltx.HeaderSize]byte
	rc, err := s.Open(ctx, o, 0, ltx.HeaderSize)
	if errors.Is(err, ErrRange) {
		err = fmt.Errorf("%w: %w", ltx.ErrInvalidFile, err)
	}
	if err != nil {
		return ltx.Header{}, raw, fmt.Errorf("read header of %v: %w", o, err)
	}
	defer rc.Close()
	switch n, err := io.ReadFull(rc, raw[:]); err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		return ltx.Header{}, raw, fmt.Errorf("read header of %v: %w: it ends after %d of %d bytes", o, ltx.ErrInvalidFile, n, ltx.HeaderSize)
	default:
		return ltx.Header{}, raw, fmt.Errorf("read header of %v: %w", o, err)
	}
	h, err := ParseHeader(o, raw[:])
	return h, raw, err
}

// ParseHeader decodes the first ltx.HeaderSize bytes of an object. One that is no LTX file's, or that of a
// file with other transactions than the object's name tells, is an error that wraps ltx.ErrInvalidFile.
func ParseHeader(o Object, raw []byte) (ltx.Header, error) {
	var h ltx.Header
	if err := h.UnmarshalBinary(raw[:ltx.HeaderSize]); err != nil {
		return ltx.Header{}, fmt.Errorf("decode header of %v: %w", o, err)
	}
	if err := h.Validate(); err != nil {
		return ltx.Header{}, fmt.Errorf("decode header of %v: %w: %w", o, ltx.ErrInvalidFile, err)
	}
	if !ltxfile.ValidTime(h.Timestamp) {
		return ltx.Header{}, fmt.Errorf("decode header of %v: %w: its time is %d", o, ltx.ErrInvalidFile, h.Timestamp)
	}
	if h.MinTXID != o.Min || h.MaxTXID != o.Max {
		return ltx.Header{}, fmt.Errorf("decode header of %v: %w: it holds %s to %s", o, ltx.ErrInvalidFile, h.MinTXID, h.MaxTXID)
	}
	return h, nil
}
