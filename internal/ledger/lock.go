package ledger

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned when another process, or another Lock of this one,
// is the shipper.
var ErrLocked = errors.New("another shipper holds the ledger")

// Descriptors opens and closes the descriptor of a lock. A process that forks
// must close its child's copies, or the lock would outlive its owner there; who
// forks without exec gives functions that see to it.
type Descriptors struct {
	Open  func(path string) (int, error)
	Close func(fd int)
}

// Lock is the shipper's role. It ends with Unlock or with the process.
type Lock struct {
	fd    int
	close func(int)
}

// TryLock takes the shipper's role, without waiting: an OFD lock on a descriptor
// of its own, which no other close in the process drops.
func (l *Ledger) TryLock(d Descriptors) (*Lock, error) {
	if d.Open == nil {
		d.Open = func(path string) (int, error) { return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0) }
		d.Close = func(fd int) { _ = unix.Close(fd) }
	}
	fd, err := d.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("open ledger to lock it: %w", err)
	}
	flock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: LockOffset, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &flock); err != nil {
		d.Close(fd)
		if err == unix.EAGAIN {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock ledger: %w", err)
	}
	return &Lock{fd: fd, close: d.Close}, nil
}

// Unlock gives the role up.
func (k *Lock) Unlock() { k.close(k.fd) }

// Locked reports whether some process is the shipper. Where that cannot be asked,
// TryLock can tell why.
func (l *Ledger) Locked() bool {
	flock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: LockOffset, Len: 1}
	if unix.FcntlFlock(l.file.Fd(), unix.F_OFD_GETLK, &flock) != nil {
		return false
	}
	return flock.Type != unix.F_UNLCK
}

// Elect begins a shipper's term and returns its number.
func (l *Ledger) Elect(pid int) uint64 {
	h := l.header
	atomic.StoreUint64(&h.ShipperPID, uint64(pid))
	atomic.StoreUint32(&h.Reader, 0)
	atomic.StoreUint32(&h.Yield, 0)
	atomic.StoreUint32(&h.Poked, 0)
	return atomic.AddUint64(&h.ShipperEpoch, 1)
}
