package cext

/*
#include <stdlib.h>
#include "wf.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Errors of a Reader.
var (
	// ErrBusy is returned where somebody else's lock, or a fork, is in the way.
	ErrBusy = errors.New("database is busy")
	// ErrNotWAL is returned when the database is not in WAL mode.
	ErrNotWAL = errors.New("the database is not in WAL mode, so nothing ships")
	// ErrMalformed is returned where SQLite cannot read the database for what is in it.
	ErrMalformed = errors.New("the database is malformed, so nothing ships")
)

// Reader is a connection of ours that pins one committed state; see reader.c.
// One goroutine uses it, and closes it soon.
type Reader struct{ r *C.struct_wf_reader }

// OpenReader pins the newest committed state of a database. A scan gives way
// only to who wants the database for himself.
func OpenReader(path string, scan bool) (*Reader, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var r *C.struct_wf_reader
	var text *C.char
	var long C.int
	if scan {
		long = 1
	}
	if err := readerError(C.wf_reader_open(name, long, &r, &text), text); err != nil {
		return nil, err
	}
	return &Reader{r}, nil
}

func readerError(rc C.int, text *C.char) error {
	switch rc {
	case C.WF_OK:
		return nil
	case C.WF_BUSY, C.WF_YIELD:
		return ErrBusy
	case C.WF_NOTWAL:
		return fmt.Errorf("%w: %s", ErrNotWAL, take(text, "nothing can be read from it"))
	case C.WF_MALFORMED:
		return fmt.Errorf("%w: %s", ErrMalformed, take(text, "cannot read the database"))
	}
	return errors.New(take(text, "cannot read the database"))
}

// PageSize is in bytes, 0 for an empty database.
func (r *Reader) PageSize() uint32 { return uint32(C.wf_reader_page_size(r.r)) }

// Pages is the size of the database.
func (r *Reader) Pages() uint32 { return uint32(C.wf_reader_pages(r.r)) }

// Header is that of the wal-index whose state is pinned.
func (r *Reader) Header() (h [C.HDR_WORDS]uint32) {
	C.wf_reader_header(r.r, (*C.uint32_t)(unsafe.Pointer(&h[0])))
	return h
}

// Tail lists pages that are in the state and were not marked yet; base is the
// Header of a state that is accounted for, or nil. See wf_reader_tail.
func (r *Reader) Tail(base *[C.HDR_WORDS]uint32) (pages []uint32, smallest uint32, ok bool) {
	var list *C.uint32_t
	var n C.int
	var min C.uint32_t
	ok = C.wf_reader_tail(r.r, (*C.uint32_t)(unsafe.Pointer(base)), &list, &n, &min) != 0
	if n > 0 {
		pages = append(pages, unsafe.Slice((*uint32)(unsafe.Pointer(list)), int(n))...)
	}
	C.free(unsafe.Pointer(list))
	return pages, uint32(min), ok
}

// Read reads pages, one behind the other, into buf. After ErrBusy the Reader is
// to be closed at once.
func (r *Reader) Read(pages []uint32, buf []byte) error {
	if len(pages) == 0 {
		return nil
	}
	if len(buf) < len(pages)*int(r.PageSize()) {
		return errors.New("buffer is too small for the pages")
	}
	var text *C.char
	rc := C.wf_reader_read(r.r, (*C.uint32_t)(unsafe.Pointer(&pages[0])), C.int(len(pages)), (*C.uchar)(unsafe.Pointer(&buf[0])), &text)
	return readerError(rc, text)
}

// Close ends the state.
func (r *Reader) Close() {
	C.wf_reader_close(r.r)
	r.r = nil
}
