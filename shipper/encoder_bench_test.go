package shipper

import (
	"testing"
	"time"

	"github.com/walferry/walferry/internal/spool"
)

// BenchmarkEncode is the cost of an object's bytes per page, LZ4 and checksum.
func BenchmarkEncode(b *testing.B) {
	const size = 4096
	page := make([]byte, size)
	r := newRand(1)
	for i := range page {
		page[i] = "walferry ships pages "[r.IntN(21)] // what compresses to half, as most pages do
	}
	free := newChunks()
	b.SetBytes(size)
	for n := 0; n < b.N; n += 1000 {
		out := spool.Spool{Dir: b.TempDir()}
		e := newEncoder(&out, &object{txid: 2, nonce: 1, time: time.UnixMilli(1000), pageSize: size, commit: 2000}, out.Dir+"/app.db", free)
		for p := uint32(1); p <= 1000; {
			c := e.chunk()
			for ; p <= 1000 && len(c.pages) < cap(c.pages); p++ {
				copy(c.data[len(c.pages)*size:], page)
				c.pages = append(c.pages, p)
			}
			e.put(c)
		}
		if err := e.close(); err != nil {
			b.Fatal(err)
		}
		out.Reset()
	}
}
