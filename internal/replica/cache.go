package replica

import (
	"container/list"
	"sync"
)

// pageKey names the content of a page: what one file holds of it.
type pageKey struct {
	file uint32 // an id, of which this process gives each once
	pgno uint32
}

// cache keeps pages, those that were used last, for all databases of this process. It holds no
// more bytes than its size, the pages' own alone: what it needs beside them is some 150
// bytes a page. Methods may be called from any goroutine.
type cache struct {
	mu    sync.Mutex // protects all fields
	size  int64
	used  int64
	pages map[pageKey]*list.Element
	order *list.List // of *cached, the page that was used last first
	spare []byte     // of the page that was dropped last
}

type cached struct {
	key  pageKey
	data []byte
}

func newCache(size int64) *cache {
	return &cache{size: size, pages: map[pageKey]*list.Element{}, order: list.New()}
}

// pages is the process's cache. Its size is the largest that any connection has asked for.
var pages = newCache(0)

// grow makes the cache at least so large.
func (c *cache) grow(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = max(c.size, size)
}

// get copies a page, from an offset on, to b.
func (c *cache) get(k pageKey, off int, b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.pages[k]
	if e == nil {
		return false
	}
	c.order.MoveToFront(e)
	copy(b, e.Value.(*cached).data[off:])
	return true
}

func (c *cache) has(k pageKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pages[k] != nil
}

// put keeps a copy of a page.
func (c *cache) put(k pageKey, page []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pages[k] != nil || int64(len(page)) > c.size {
		return
	}
	c.shrink(c.size - int64(len(page)))
	var data []byte
	if len(c.spare) == len(page) {
		data, c.spare = c.spare, nil
	} else {
		data = make([]byte, len(page))
	}
	copy(data, page)
	c.pages[k] = c.order.PushFront(&cached{k, data})
	c.used += int64(len(page))
}

// shrink drops pages until no more than size bytes are used. What one held
// serves the next, so that a scan leaves nothing to collect.
func (c *cache) shrink(size int64) {
	for c.used > size {
		old := c.order.Remove(c.order.Back()).(*cached)
		delete(c.pages, old.key)
		c.used -= int64(len(old.data))
		c.spare = old.data
	}
}

// bytes is how many the cache holds and how many it may.
func (c *cache) bytes() (used, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.size
}

// forget drops all pages, for when nobody uses any.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size, c.used = 0, 0
	c.pages, c.order, c.spare = map[pageKey]*list.Element{}, list.New(), nil
}
