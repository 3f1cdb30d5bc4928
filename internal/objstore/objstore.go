// Package objstore keeps LTX files in a directory or in an S3 bucket, under
// the names that Litestream uses, so that either tool reads the other's.
//
// A store has no state of its own beyond a client: every method may be called
// from several goroutines, and every one but String talks to the store.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/superfly/ltx"
)

// SnapshotLevel is the level of files that hold a whole database; levels 0 to
// 3 hold changes. Litestream gave the numbers their meaning.
const SnapshotLevel = 9

// Object names one LTX file of a replica.
type Object struct {
	Level    int
	Min, Max ltx.TXID
	Size     int64     // bytes; 0 where the object is about to be created
	ModTime  time.Time // as the store tells it; zero where unknown

	// Tag is by what the store tells this object from another that takes its name later. A
	// listing gives it; where it is not empty, nothing but that object is read.
	Tag string
}

// Name is the object's last path element, `<min>-<max>.ltx`.
func (o Object) Name() string { return ltx.FormatFilename(o.Min, o.Max) }

func (o Object) String() string { return fmt.Sprintf("level %d %s", o.Level, o.Name()) }

// is returns ErrNotExist where what was found under an object's name is another one.
func is(o Object, tag string) error {
	if o.Tag != "" && tag != "" && o.Tag != tag {
		return fmt.Errorf("%w: another has its name", ErrNotExist)
	}
	return nil
}

// Meta travels with an object, beside its bytes.
type Meta struct {
	Timestamp time.Time // the LTX header's time, in whole milliseconds
	Checksum  uint64    // of the database after this object; 0 where it is not known

	// Window: every commit of the writer's windows up to this one is in the state that the
	// object leads to, as its tokens count them. The zero Window is not known.
	Window Window
}

// Window is one of a writer's, which it numbers from 1 in each of its epochs.
type Window struct{ Epoch, Number uint64 }

// String is how a window travels, and how tokens are written.
func (w Window) String() string { return fmt.Sprintf("%012x-%d", w.Epoch, w.Number) }

// parseWindow returns the zero Window for what String has not written.
func parseWindow(s string) (w Window) {
	if _, err := fmt.Sscanf(s, "%x-%d", &w.Epoch, &w.Number); err != nil || w.String() != s {
		return Window{}
	}
	return w
}

// Body is what an object holds. It is read more than once where a request is
// tried again.
type Body interface {
	io.ReaderAt
	Size() int64
}

// Store is one replica's place: a prefix of a bucket, or a directory.
type Store interface {
	// String is the URL, without any credential.
	String() string

	// List returns the objects of a level whose Min is at least from, in
	// the order of Min and then Max. Names that are no LTX file's are passed over;
	// a level that does not exist has none.
	List(ctx context.Context, level int, from ltx.TXID) ([]Object, error)

	// Open reads n bytes of an object from offset off; n < 0 reads to its
	// end. ErrNotExist where there is no such object, or by its tag another one.
	Open(ctx context.Context, o Object, off, n int64) (io.ReadCloser, error)

	// Create writes an object unless one of its name exists, which is
	// ErrExist: the decision is the store's own, so of two machines only one
	// succeeds. An object is visible whole or not at all. A body too large for one
	// request goes up in parts; started is then told the upload's id before
	// the first part, so that what is left behind can be aborted.
	//
	// Any error but ErrExist and those that Refused knows leaves it open
	// whether the object was written.
	Create(ctx context.Context, o Object, body Body, m Meta, started func(uploadID string)) error

	// Meta returns what travels with an object; ErrNotExist as from Open.
	Meta(ctx context.Context, o Object) (Meta, error)

	// Remove deletes an object; one that does not exist is no error.
	Remove(ctx context.Context, o Object) error

	// RemoveAll deletes objects in their order, with as few requests as the
	// store allows; those that do not exist are no error. It does what it
	// can: an error names the first ones that are left.
	RemoveAll(ctx context.Context, objs []Object) error

	// Marks returns all marks in the order of their TXIDs and then their
	// times. Names that are no mark's are passed over.
	Marks(ctx context.Context) ([]Mark, error)

	// PutMark stores a mark; one that is there already is no error. A mark
	// that is not valid is ErrMark.
	PutMark(ctx context.Context, m Mark) error

	// RemoveMark deletes a mark; one that does not exist is no error.
	RemoveMark(ctx context.Context, m Mark) error

	// AbortUpload ends an upload that Create began and did not end; one
	// that is not known any more is no error.
	AbortUpload(ctx context.Context, o Object, uploadID string) error

	// Conditional tells by trial whether the store honours the condition
	// of Create. A store that does not cannot tell two writers apart.
	Conditional(ctx context.Context) (bool, error)
}

// Lister is a Store that may tell of all levels and marks in one answer.
type Lister interface {
	// ListAll returns what List and Marks would, in their order, or not ok where that is more than
	// one answer holds.
	ListAll(ctx context.Context) (objs []Object, marks []Mark, ok bool, err error)
}

// Errors of all stores.
var (
	// ErrExist is returned by Create when an object of that name exists.
	ErrExist = errors.New("object exists")
	// ErrNotExist is returned where an object that is asked for is not there.
	ErrNotExist = errors.New("object does not exist")
	// ErrRange is returned by Open where the object has no byte at the offset.
	ErrRange = errors.New("offset is behind the object's end")
	// ErrRefused is wrapped where the store answered that it will not do
	// this until somebody changes something: no such bucket, wrong
	// credentials, no permission. Nothing was written.
	ErrRefused = errors.New("refused")
	// ErrURL is wrapped by New when a replica's URL or option is malformed.
	ErrURL = errors.New("not a replica URL")
)

// Options are what a URL does not say.
type Options struct {
	Endpoint  string // host or URL of an S3-compatible store; empty: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS
	Region    string // empty: AWS_REGION, AWS_DEFAULT_REGION, us-east-1
	PathStyle string // "1", "0" or empty: path style wherever an endpoint is given

	// OnRequest is called once per request that goes to the store, with the
	// bytes that its body carries. May be nil; called from any goroutine.
	OnRequest func(sent int64)
}

// CloseIdle closes the connections that a store keeps for its next request, of which each
// takes a descriptor. It is for who has no more requests for now; the store stays usable.
func CloseIdle(s Store) {
	if c, ok := s.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
