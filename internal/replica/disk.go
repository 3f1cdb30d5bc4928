package replica

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/walferry/walferry/internal/objstore"
)

// A disk keeps pages in a file that processes share, for replicas of any number. There is no lock, and
// nothing to recover: what a slot holds is right if its sum is, so a write that was cut off,
// or met another, is a slot that holds nothing. All numbers are little-endian.
//
//	0     "walferry pages 1"    16
//	16    slots                 8
//	4096  entries, 32 bytes each: key 16, sum of the key and the slot's content 8, zeros 8
//	      content, 4096 bytes for each slot
//
// A key names 4 KB of one page of one object: pages that are larger take several slots, and
// smaller ones a slot each. It may lie in any of the four slots of a set.
type disk struct {
	f     *os.File
	slots uint64
	dead  atomic.Bool // it cannot be read or written any more

	taking sync.Mutex // held while a slot is chosen
}

const (
	diskName  = "walferry-pages"
	diskMagic = "walferry pages 1"
	diskHead  = 4096
	slotBytes = 4096
	entrySize = 32
	ways      = 4
)

// openDisk opens a directory's cache, and makes it where there is none or one of another size. Processes
// that have the old one open go on with that, until they end.
func openDisk(dir string, size int64) (*disk, error) {
	slots := uint64(size) / (slotBytes + entrySize) / ways * ways
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache_dir: %w", err)
	}
	path := filepath.Join(dir, diskName)
	d := &disk{slots: slots}
	var head [24]byte
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		if _, err := f.ReadAt(head[:], 0); err == nil && head == d.head() {
			d.f = f
			return d, nil
		}
		f.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cache_dir: %w", err)
	}
	// Made whole beside, and then named, so that no process finds half of one.
	if d.f, err = os.CreateTemp(dir, diskName+"-*"); err != nil {
		return nil, fmt.Errorf("cache_dir: %w", err)
	}
	head = d.head()
	_, err = d.f.WriteAt(head[:], 0)
	if err == nil {
		err = d.f.Truncate(d.content(slots))
	}
	if err == nil {
		err = os.Rename(d.f.Name(), path)
	}
	if err != nil {
		os.Remove(d.f.Name())
		d.f.Close()
		return nil, fmt.Errorf("cache_dir: %w", err)
	}
	return d, nil
}

func (d *disk) head() (b [24]byte) {
	copy(b[:], diskMagic)
	binary.LittleEndian.PutUint64(b[16:], d.slots)
	return b
}

func (d *disk) close() { d.f.Close() }

// content is where a slot's begins.
func (d *disk) content(slot uint64) int64 {
	return int64(diskHead + d.slots*entrySize + slot*slotBytes)
}

// diskKey names a part of a page of an object.
func diskKey(store string, o objstore.Object, pgno uint32, part int) [16]byte {
	return xxh3.HashString128(fmt.Sprintf("%s\x00%d\x00%d\x00%d\x00%d\x00%d\x00%d\x00%d\x00%s", store, o.Level, o.Min, o.Max, o.Size, o.ModTime.UnixNano(), pgno, part, o.Tag)).Bytes()
}

func diskSum(key [16]byte, b []byte) uint64 {
	h := xxh3.New()
	_, _ = h.Write(key[:])
	_, _ = h.Write(b)
	return h.Sum64()
}

// get fills a page, if all its parts are there.
func (d *disk) get(store string, o objstore.Object, pgno uint32, page []byte) bool {
	for part := 0; len(page) > 0; part++ {
		n := min(len(page), slotBytes)
		if !d.getPart(diskKey(store, o, pgno, part), page[:n]) {
			return false
		}
		page = page[n:]
	}
	return true
}

func (d *disk) getPart(key [16]byte, b []byte) bool {
	var set [ways * entrySize]byte
	first := d.set(key)
	if d.dead.Load() || d.read(set[:], int64(diskHead+first*entrySize)) != nil {
		return false
	}
	for i := range uint64(ways) {
		e := set[i*entrySize:][:entrySize]
		if [16]byte(e) != key || d.read(b, d.content(first+i)) != nil {
			continue
		}
		if diskSum(key, b) == binary.LittleEndian.Uint64(e[16:]) {
			return true
		}
	}
	return false
}

// set is the first slot of those that may hold a key.
func (d *disk) set(key [16]byte) uint64 {
	return binary.LittleEndian.Uint64(key[:]) % (d.slots / ways) * ways
}

// put keeps a page, in place of others.
func (d *disk) put(store string, o objstore.Object, pgno uint32, page []byte) {
	for part := 0; len(page) > 0; part++ {
		n := min(len(page), slotBytes)
		d.putPart(diskKey(store, o, pgno, part), page[:n])
		page = page[n:]
	}
}

func (d *disk) putPart(key [16]byte, b []byte) {
	if way, ok := d.take(key, diskSum(key, b)); ok {
		_ = d.write(b, d.content(way))
	}
}

// take gives a slot to a key: one that it has, or that is free, or any. Two of this process do not take the
// same.
func (d *disk) take(key [16]byte, sum uint64) (slot uint64, ok bool) {
	d.taking.Lock()
	defer d.taking.Unlock()
	var set [ways * entrySize]byte
	first := d.set(key)
	if d.dead.Load() || d.read(set[:], int64(diskHead+first*entrySize)) != nil {
		return 0, false
	}
	var chance [1]byte
	_, _ = rand.Read(chance[:])
	way := uint64(chance[0]) % ways
	for i := range uint64(ways) {
		switch is := [16]byte(set[i*entrySize:][:16]); is {
		case key, [16]byte{}:
			way = i
		}
		if [16]byte(set[i*entrySize:][:16]) == key {
			break
		}
	}
	var e [entrySize]byte
	copy(e[:], key[:])
	binary.LittleEndian.PutUint64(e[16:], sum)
	return first + way, d.write(e[:], int64(diskHead+(first+way)*entrySize)) == nil
}

// read and write give the disk up at the first error: it is a help, and the store has it all.
func (d *disk) read(b []byte, off int64) error {
	_, err := d.f.ReadAt(b, off)
	if err != nil {
		d.dead.Store(true)
	}
	return err
}

func (d *disk) write(b []byte, off int64) error {
	_, err := d.f.WriteAt(b, off)
	if err != nil {
		d.dead.Store(true)
	}
	return err
}
