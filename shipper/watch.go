package shipper

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watchFile calls wake whenever somebody writes to a file, or ends with it open
// for writing: so a marker in any process wakes the shipper with one write, and
// the end of a shipper, however it came, wakes those who may follow it. Nothing
// runs while nothing happens. The returned function ends the watch.
//
// One inotify instance serves the process: a user may have few.
func watchFile(path string, wake func()) (stop func(), err error) {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	if watches.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("watch ledger: %w", err)
		}
		watches.file = os.NewFile(uintptr(fd), "inotify")
		watches.wakes = map[int32]map[int]func(){}
		go watches.read(watches.file)
	}
	conn, err := watches.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("watch ledger: %w", err)
	}
	var wd int
	if ctl := conn.Control(func(fd uintptr) {
		wd, err = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_DELETE_SELF|unix.IN_ATTRIB)
	}); ctl != nil {
		err = ctl
	}
	if err != nil {
		return nil, fmt.Errorf("watch ledger %s: %w", path, err)
	}
	id := watches.next
	watches.next++
	if watches.wakes[int32(wd)] == nil {
		watches.wakes[int32(wd)] = map[int]func(){}
	}
	watches.wakes[int32(wd)][id] = wake
	return func() { watches.remove(int32(wd), id) }, nil
}

// watches is the process's inotify instance. It ends when its last watch does.
var watches watcher

type watcher struct {
	mu    sync.Mutex // protects all fields
	file  *os.File
	wakes map[int32]map[int]func() // by watch descriptor and caller
	next  int
}

func (w *watcher) remove(wd int32, id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wakes[wd], id)
	if len(w.wakes[wd]) > 0 || w.file == nil {
		return
	}
	delete(w.wakes, wd)
	if len(w.wakes) == 0 {
		w.file.Close() // ends read
		w.file = nil
		return
	}
	if conn, err := w.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

// read is the goroutine of one instance; it ends when the instance is closed.
func (w *watcher) read(file *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := file.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
			for of, wakes := range w.wakes {
				if of != wd && mask&unix.IN_Q_OVERFLOW == 0 {
					continue
				}
				for _, wake := range wakes {
					wake()
				}
			}
		}
		w.mu.Unlock()
	}
}
