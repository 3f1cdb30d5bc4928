// Package ltxfile is about the bytes of LTX files, format version 3, which
// github.com/superfly/ltx specifies.
package ltxfile

import "errors"

// ErrCorrupt is wrapped when a file is not the LTX file that was written: cut
// short, changed, or not one at all.
var ErrCorrupt = errors.New("corrupt LTX file")

// SourceError is what a reader returns where the store failed to give the bytes. A
// Decoder passes it on as it is; of other errors it says what they mean for the file.
type SourceError struct{ Err error }

// Error is part of error.
func (e *SourceError) Error() string { return "download: " + e.Err.Error() }

// Unwrap gives the store's error.
func (e *SourceError) Unwrap() error { return e.Err }
