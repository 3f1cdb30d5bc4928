package vfs

import (
	"errors"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/shipper"
)

// source gives the shipper a database's committed states, by path.
type source string

func (s source) Pin(scan bool) (shipper.Snapshot, error) {
	r, err := cext.OpenReader(string(s), scan)
	if err != nil {
		return nil, shipperError(err)
	}
	return snapshot{r}, nil
}

type snapshot struct{ *cext.Reader }

// Words of the wal-index's header; see cext/wf.h.
const hdrMxFrame, hdrSalt = 4, 8

func (s snapshot) Position() (p shipper.Position) {
	p.Header = s.Header()
	p.Frame = p.Header[hdrMxFrame]
	copy(p.Salt[:], p.Header[hdrSalt:])
	return p
}

func (s snapshot) Tail(base *shipper.Position) ([]uint32, uint32, bool) {
	if base == nil {
		return s.Reader.Tail(nil)
	}
	return s.Reader.Tail(&base.Header)
}

func (s snapshot) Read(pages []uint32, buf []byte) error {
	return shipperError(s.Reader.Read(pages, buf))
}

// shipperError is the one place that knows both packages' errors.
func shipperError(err error) error {
	switch {
	case errors.Is(err, cext.ErrBusy):
		return shipper.ErrBusy
	case errors.Is(err, cext.ErrNotWAL):
		return known{err, shipper.ErrNotWAL}
	case errors.Is(err, cext.ErrMalformed):
		return known{err, shipper.ErrMalformed}
	}
	return err
}

// known is the shim's error, which knows why, in the shipper's words.
type known struct {
	error
	as error
}

func (k known) Is(target error) bool { return target == k.as }
