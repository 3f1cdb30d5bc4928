package shipper

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/walferry/walferry/internal/group"
	"golang.org/x/sys/unix"
)

// watchFile calls wake whenever somebody writes to a file, or ends with it open
// for writing: so a marker in any process wakes the shipper with one write, and
// the end of a shipper, however it came, wakes those who may follow it. Nothing
// runs while nothing happens. The returned function ends the watch. A panic of the
// goroutine that reads the events is told to all who watch, and nobody is woken any more.
//
// One inotify instance serves the process: a user may have few.
func watchFile(path string, wake func(), panicked func(*group.Panic)) (stop func(), err error) {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	if watches.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, watchError(err)
		}
		watches.file = os.NewFile(uintptr(fd), "inotify")
		watches.watches = map[int32]map[int]watch{}
		go watches.read(watches.file)
	}
	defer watches.closeUnused()
	conn, err := watches.file.SyscallConn()
	if err != nil {
		return nil, watchError(err)
	}
	var wd int
	if ctl := conn.Control(func(fd uintptr) {
		wd, err = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_DELETE_SELF|unix.IN_ATTRIB)
	}); ctl != nil {
		err = ctl
	}
	if err != nil {
		return nil, watchError(err)
	}
	id := watches.next
	watches.next++
	if watches.watches[int32(wd)] == nil {
		watches.watches[int32(wd)] = map[int]watch{}
	}
	watches.watches[int32(wd)][id] = watch{wake, panicked}
	return func() { watches.remove(int32(wd), id) }, nil
}

// watchError says which of the system's limits has been met: the errors themselves speak of
// files and of space.
func watchError(err error) error {
	switch err {
	case unix.EMFILE:
		err = fmt.Errorf("%w, or inotify instances of this user (fs.inotify.max_user_instances)", err)
	case unix.ENOSPC:
		err = fmt.Errorf("all inotify watches of this user are taken (fs.inotify.max_user_watches): %w", err)
	}
	return fmt.Errorf("watch ledger: %w", err)
}

// watches is the process's inotify instance. It ends when its last watch does.
var watches watcher

type watcher struct {
	mu      sync.Mutex // protects all fields
	file    *os.File
	watches map[int32]map[int]watch // by watch descriptor and caller
	next    int
}

// watch is one caller's.
type watch struct {
	wake     func()
	panicked func(*group.Panic)
}

func (w *watcher) remove(wd int32, id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watches[wd], id)
	if len(w.watches[wd]) > 0 || w.file == nil {
		return
	}
	delete(w.watches, wd)
	if w.closeUnused(); w.file == nil {
		return
	}
	if conn, err := w.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

// closeUnused ends an instance without a watch, and with it read.
func (w *watcher) closeUnused() {
	if len(w.watches) == 0 {
		w.file.Close()
		w.file = nil
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
		if p := group.Catch(func() { w.wake(buf[:n]) }); p != nil {
			for _, of := range w.all() {
				of.panicked(p)
			}
			return
		}
	}
}

// wake wakes whom the events are for.
func (w *watcher) wake(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b := events; len(b) >= unix.SizeofInotifyEvent; {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		for of, watches := range w.watches {
			if of != wd && mask&unix.IN_Q_OVERFLOW == 0 {
				continue
			}
			for _, watch := range watches {
				watch.wake()
			}
		}
	}
}

// all are the watches of now.
func (w *watcher) all() (all []watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, watches := range w.watches {
		all = slices.AppendSeq(all, maps.Values(watches))
	}
	return all
}
