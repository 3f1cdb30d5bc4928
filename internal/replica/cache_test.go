package replica

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestACacheHoldsNoMoreThanItsSize(t *testing.T) {
	c := newCache(1 << 20)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range uint32(5000) {
		c.put(pageKey{1, i + 1}, make([]byte, 512<<rnd.IntN(8)))
		sum := int64(0)
		for e := c.order.Front(); e != nil && i%100 == 0; e = e.Next() {
			sum += int64(len(e.Value.(*cached).data))
		}
		if used, size := c.bytes(); used > size || i%100 == 0 && used != sum || len(c.pages) != c.order.Len() {
			t.Fatalf("%d bytes of %d, in truth %d, of %d pages in a list of %d", used, size, sum, len(c.pages), c.order.Len())
		}
	}
	c = newCache(1000)
	if c.put(pageKey{1, 1}, make([]byte, 1024)); c.has(pageKey{1, 1}) {
		t.Error("a page that is larger than the cache is in it")
	}
	if used, _ := c.bytes(); used != 0 {
		t.Errorf("it holds %d bytes", used)
	}
}

func TestACacheDropsWhatWasNotUsedForLongest(t *testing.T) {
	c, b := newCache(4*512), make([]byte, 512)
	for p := range uint32(4) {
		c.put(pageKey{1, p + 1}, b)
	}
	if !c.get(pageKey{1, 1}, 0, b) {
		t.Fatal("page 1 is not there")
	}
	c.put(pageKey{1, 5}, b)
	for p, want := range map[uint32]bool{1: true, 2: false, 3: true, 4: true, 5: true} {
		if got := c.has(pageKey{1, p}); got != want {
			t.Errorf("page %d is there: %v", p, got)
		}
	}
}

func TestACacheGrowsToTheLargestThatIsAskedFor(t *testing.T) {
	c := newCache(0)
	for _, n := range []int64{5, 100, 7} {
		c.grow(n)
	}
	if _, size := c.bytes(); size != 100 {
		t.Errorf("%d bytes", size)
	}
	c.put(pageKey{1, 1}, make([]byte, 50))
	c.forget()
	if used, size := c.bytes(); used != 0 || size != 0 || c.has(pageKey{1, 1}) {
		t.Errorf("after all was forgotten: %d bytes of %d", used, size)
	}
}

func TestACachesPagesAreCopies(t *testing.T) {
	c := newCache(8 * 512)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for range 3000 {
				k := pageKey{rnd.Uint32N(3), rnd.Uint32N(10)}
				page := bytes.Repeat([]byte{byte(k.file*16 + k.pgno)}, 512)
				c.put(k, page)
				clear(page)
				got := make([]byte, 512)
				if off := rnd.IntN(512); c.get(k, off, got[off:]) {
					for _, x := range got[off:] {
						if x != byte(k.file*16+k.pgno) {
							t.Error("a page is another")
							return
						}
					}
				}
			}
		})
	}
	wg.Wait()
}
