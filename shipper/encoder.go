package shipper

import (
	"fmt"
	"path/filepath"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/group"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/ltxfile"
	"github.com/walferry/walferry/internal/spool"
)

// chunkPages is how many pages move from reading to compressing at a time, and
// chunks how many of them there are: 1 MiB at the usual page size, 16 at the
// largest.
const (
	chunkPages = 64
	chunks     = 4
)

// chunk is a run of candidate pages and their content.
type chunk struct {
	pages []uint32
	data  []byte
}

func (c *chunk) page(i int, size uint32) []byte {
	return c.data[i*int(size) : (i+1)*int(size)]
}

// encoder writes an LTX file from chunks, in a goroutine that starts with the
// first chunk that holds a page and ends with close. The file is as Litestream's
// level 0 wants it: no checksums of the database in it, and a WAL position of 32
// with size 0, from which its replication can go on.
type encoder struct {
	out     *spool.Spool
	o       *object
	spill   string
	free    chan *chunk // the Shipper's, from batch to batch
	full    chan *chunk
	result  chan encoded
	headSum uint64
}

// newChunks makes the chunks that encoders use one after the other.
func newChunks() chan *chunk {
	free := make(chan *chunk, chunks)
	for range chunks {
		free <- new(chunk)
	}
	return free
}

func newEncoder(out *spool.Spool, o *object, database string, free chan *chunk) *encoder {
	return &encoder{out: out, o: o, spill: filepath.Dir(database), free: free}
}

// chunk returns an empty chunk, which put takes back.
func (e *encoder) chunk() *chunk {
	c := <-e.free
	if need := chunkPages * int(e.o.pageSize); len(c.data) < need {
		c.pages, c.data = make([]uint32, 0, chunkPages), make([]byte, need)
	}
	return c
}

// put hands a chunk over.
func (e *encoder) put(c *chunk) {
	if len(c.pages) == 0 { // nothing differed
		e.free <- c
		return
	}
	if e.full == nil {
		e.full = make(chan *chunk, chunks)
		e.result = make(chan encoded, 1)
		go e.run()
	}
	e.full <- c
}

// encoded is how an encoder's goroutine ended.
type encoded struct {
	err   error
	panic *group.Panic
}

// close ends the file and returns what went wrong.
func (e *encoder) close() error {
	if e.full == nil {
		return nil
	}
	close(e.full)
	r := <-e.result
	if r.panic != nil {
		panic(r.panic)
	}
	return r.err
}

func (e *encoder) run() {
	var r encoded
	r.panic = group.Catch(func() { r.err = e.encode() })
	for c := range e.full { // after a panic: who reads must not wait for ever
		e.free <- c
	}
	e.result <- r
}

func (e *encoder) encode() (err error) {
	w := ltxfile.NewWriter(e.out, e.spill)
	defer w.Discard()
	var compressor lz4.Compressor
	block := make([]byte, lz4.CompressBlockBound(int(e.o.pageSize)))
	header := ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum,
		PageSize: e.o.pageSize, Commit: e.o.commit,
		MinTXID: e.o.txid, MaxTXID: max(e.o.txid, e.o.last),
		Timestamp: e.o.time.UnixMilli(),
		WALOffset: 32, NodeID: e.o.nonce,
	}
	if err = w.WriteHeader(header); err == nil {
		b, _ := header.MarshalBinary()
		e.headSum = ledger.HeadSum(b)
	}
	for c := range e.full {
		for i, p := range c.pages {
			if err != nil {
				break
			}
			page, n := c.page(i, e.o.pageSize), 0
			if n, err = compressor.CompressBlock(page, block); err == nil {
				err = w.WriteFrame(p, block[:n], page)
			}
			if err != nil {
				err = fmt.Errorf("encode page %d: %w", p, err)
			}
		}
		c.pages = c.pages[:0]
		e.free <- c
	}
	if err == nil {
		err = w.Close()
	}
	return err
}
