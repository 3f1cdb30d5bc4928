// Package ledger reads and writes a database's ledger, the file
// `<database>-ledger` that all processes map: which pages the store lacks, and
// the sum of each page as the store has it. The queue of walferry is this file.
//
// An entry is exact or unknown (0), never old: before an object is put, the
// entries of its pages become unknown and the file is synced; after it they
// become the new sums. So a crash at any moment costs pages that are sent
// again, and never one that is not sent.
//
// Who holds the shipper's lock (TryLock) may call everything; everyone else
// only reads the header. One goroutine uses a Ledger, save Header and Pending,
// which any may call until Close.
package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Suffix is what a ledger's name has beyond its database's.
const Suffix = "-ledger"

// Errors that Check returns: why a ledger cannot be trusted. Each is mended by
// Reset.
var (
	// ErrNew is returned when the ledger was never finished.
	ErrNew = errors.New("ledger is new")
	// ErrVersion is returned when another version of walferry wrote it.
	ErrVersion = errors.New("ledger is of another version")
	// ErrGarbled is returned when its header or length cannot be right.
	ErrGarbled = errors.New("ledger is garbled")
	// ErrCopied is returned when the file is a copy of the one that was written.
	ErrCopied = errors.New("ledger is a copy")
)

// Ledger is a mapped ledger file.
type Ledger struct {
	path     string
	file     *os.File
	header   *Header
	mapping  sync.Mutex // held by who adds to segments
	segments atomic.Pointer[[]*segment]

	mu       sync.RWMutex // held for writing by Close, for reading by Pending
	closed   bool
	readonly bool
}

// Open maps the ledger of a database, creating an empty file where there is
// none, with the owner and mode of the database. The ledger is usable once
// Check returns nil. A symbolic link is not followed, as SQLite follows none to its WAL:
// somebody could let the one who opens the database write to any file.
func Open(database string) (*Ledger, error) {
	path := database + Suffix
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = create(database, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{path: path, file: f}
	l.segments.Store(&[]*segment{})
	if err := l.mapHeader(unix.PROT_READ | unix.PROT_WRITE); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// OpenReadOnly maps the ledger of a database as it is. The file must exist and
// be whole.
func OpenReadOnly(database string) (*Ledger, error) {
	path := database + Suffix
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{path: path, file: f, readonly: true}
	l.segments.Store(&[]*segment{})
	fi, err := f.Stat()
	if err == nil && fi.Size() < HeaderSize {
		err = ErrNew
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read ledger %s: %w", path, err)
	}
	if err := l.mapHeader(unix.PROT_READ); err != nil {
		f.Close()
		return nil, err
	}
	return l, l.mapSegments(min(segmentsIn(fi.Size()), int(atomic.LoadUint32(&l.header.Segments))))
}

func create(database, path string) (*os.File, error) {
	mode := fs.FileMode(0o644) // as SQLite will make the database; the umask takes its part
	fi, statErr := os.Stat(database)
	if statErr == nil {
		mode = fi.Mode().Perm()
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, mode)
	if err != nil {
		return nil, err
	}
	if statErr == nil {
		// As SQLite does for a WAL: the umask must not keep out who may
		// open the database, and root hands the file to its owner.
		_ = f.Chmod(mode)
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			_ = f.Chown(int(st.Uid), int(st.Gid))
		}
	}
	return f, nil
}

// mapHeader maps the header even of a file that is still too short for it;
// Check and Reset look at the length before they touch a byte.
func (l *Ledger) mapHeader(prot int) error {
	mem, err := unix.Mmap(int(l.file.Fd()), 0, HeaderSize, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map ledger %s: %w", l.path, err)
	}
	l.header = (*Header)(unsafe.Pointer(&mem[0]))
	return nil
}

// segmentsIn is the number of whole segments in a file of that size.
func segmentsIn(size int64) int {
	return int(max(0, size-HeaderSize) / SegmentSize)
}

func (l *Ledger) mapSegments(n int) error {
	l.mapping.Lock()
	defer l.mapping.Unlock()
	prot := unix.PROT_READ
	if !l.readonly {
		prot |= unix.PROT_WRITE
	}
	have := *l.segments.Load()
	for i := len(have); i < n; i++ {
		mem, err := unix.Mmap(int(l.file.Fd()), HeaderSize+int64(i)*SegmentSize, SegmentSize, prot, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("map ledger %s: %w", l.path, err)
		}
		have = append(have[:i:i], (*segment)(unsafe.Pointer(&mem[0])))
	}
	l.segments.Store(&have)
	return nil
}

// Check tells whether the ledger can be trusted, and maps all of it if so. The
// error is ErrNew, ErrVersion, ErrGarbled or ErrCopied, or the system's.
func (l *Ledger) Check() error {
	fi, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	if fi.Size() == 0 {
		return ErrNew
	}
	if fi.Size() < HeaderSize+SegmentSize {
		return ErrGarbled
	}
	h := l.header
	if atomic.LoadUint32(&h.Ready) != ready {
		return ErrNew
	}
	if h.Magic != Magic {
		return ErrGarbled
	}
	if h.Version != Version {
		return ErrVersion
	}
	n := int(atomic.LoadUint32(&h.Segments))
	if n == 0 || n > segmentsIn(fi.Size()) || !plausible(h) {
		return ErrGarbled
	}
	ino, btime, err := identity(l.file)
	if err != nil {
		return err
	}
	if ino != h.OwnIno || btime != h.OwnBtimeNs {
		return ErrCopied
	}
	return l.mapSegments(n)
}

// plausible holds the numbers that are used without further looking to their
// bounds.
func plausible(h *Header) bool {
	size := h.PageSize
	return (size == 0 || size >= 512 && size <= 65536 && size&(size-1) == 0) &&
		atomic.LoadUint64(&h.Durable) < atomic.LoadUint64(&h.Window) &&
		h.ShippedNext < 1<<62 && h.Epoch != 0
}

// Ready reports that the header can be read: the ledger is whole, and nobody is
// making it new or has cut it off.
func (l *Ledger) Ready() bool {
	fi, err := l.file.Stat()
	return err == nil && fi.Size() >= HeaderSize && atomic.LoadUint32(&l.header.Ready) == ready
}

// Lost reports that the file is no longer the one at its path: somebody removed
// or replaced it, or cut it short.
func (l *Ledger) Lost() bool {
	mine, err := l.file.Stat()
	if err != nil {
		return false // which says nothing of the file
	}
	if n := int64(len(*l.segments.Load())); n > 0 && mine.Size() < HeaderSize+n*SegmentSize {
		return true
	}
	there, err := os.Stat(l.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !os.SameFile(mine, there)
}

// Abandon tells every process that maps this file to map the one that has
// taken its place.
func (l *Ledger) Abandon() {
	if fi, err := l.file.Stat(); err == nil && fi.Size() >= HeaderSize {
		atomic.StoreUint32(&l.header.Ready, gone)
	}
}

// Reset makes the ledger new, in place: nothing is known of the store, every
// page is a candidate, tokens of before are of another epoch. What others have
// mapped stays mapped, and those who mark in it meanwhile lose nothing, since
// everything is compared after it. Only under the shipper's lock.
func (l *Ledger) Reset(database string) error {
	fi, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("reset ledger: %w", err)
	}
	h := l.header
	next := &Header{Magic: Magic, Version: Version, Window: 1, All: 1}
	if l.Ready() && h.Magic == Magic && h.Version == Version && plausible(h) {
		// What others wait for goes on from where it is.
		next.Window = atomic.LoadUint64(&h.Window)
		next.SyncWanted = atomic.LoadUint64(&h.SyncWanted)
		next.Wishes = atomic.LoadUint64(&h.Wishes)
		next.ShipperEpoch = atomic.LoadUint64(&h.ShipperEpoch)
		next.Epoch = atomic.LoadUint64(&h.Epoch) // NewEpoch makes it another
		h.Attempts = [len(h.Attempts)]Attempt{}
		atomic.AddUint64(&h.All, 1)
	} else if fi.Size() >= HeaderSize {
		atomic.StoreUint32(&h.Ready, 0)
	}
	next.Durable = next.Window - 1
	next.CommitWindow = next.Window
	// Whole segments only; what is there is wiped rather than cut off, since
	// another process may have it mapped.
	n := max(1, int((fi.Size()-HeaderSize+SegmentSize-1)/SegmentSize))
	if most := max(mostSegments(database), len(*l.segments.Load())); n > most && l.empty(most, fi.Size()) {
		n = most
	}
	if err := allocate(l.file, HeaderSize+int64(n)*SegmentSize); err != nil {
		return fmt.Errorf("reset ledger: %w", err)
	}
	if err := l.mapSegments(n); err != nil {
		return err
	}
	for _, s := range *l.segments.Load() {
		*s = segment{}
	}
	next.OwnIno, next.OwnBtimeNs, err = identity(l.file)
	if err != nil {
		return err
	}
	next.Boot = BootID()
	next.DBDev, next.DBIno = Inode(database)
	next.Segments = uint32(n)
	next.MinPages, next.MinInflight, next.DBPages = None, None, None
	rand.Read(next.DatabaseID[:])
	next.newEpoch()
	if err := l.Sync(); err != nil {
		return err
	}
	// A marker that meets this moment waits for it to pass.
	atomic.StoreUint32(&h.Ready, 0)
	*h = *next
	atomic.StoreUint32(&h.Ready, ready)
	return l.Sync()
}

// mostSegments is what a database of that size can need, whatever its page size.
func mostSegments(database string) int {
	const leastPage = 512
	fi, err := os.Stat(database)
	if err != nil {
		return 1
	}
	return int(fi.Size()/leastPage/SegmentPages) + 1
}

// empty takes what lies behind the first n segments out of the file, whose length stays. So
// a length that nobody has written, of a copy with holes say, takes no space and no memory.
func (l *Ledger) empty(n int, size int64) bool {
	from := HeaderSize + int64(n)*SegmentSize
	return unix.Fallocate(int(l.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, size-from) == nil
}

// NewEpoch makes every token of before one whose fate is not known.
func (l *Ledger) NewEpoch() { l.header.newEpoch() }

func (h *Header) newEpoch() {
	var b [8]byte
	for {
		rand.Read(b[:])
		if e := binary.LittleEndian.Uint64(b[:]) >> 16; e != 0 && e != h.Epoch {
			atomic.StoreUint64(&h.Epoch, e)
			return
		}
	}
}

// Grow makes room for the sums of pages. The space is allocated before it is
// mapped, so that a full disk is an error here and not a signal later.
func (l *Ledger) Grow(pages uint32) error {
	need := int((uint64(pages) + SegmentPages - 1) / SegmentPages)
	if need <= len(*l.segments.Load()) {
		return nil
	}
	if err := allocate(l.file, HeaderSize+int64(need)*SegmentSize); err != nil {
		return fmt.Errorf("grow ledger: %w", err)
	}
	// The file's length first: a header that speaks of segments which a power
	// loss took away again would be garbled.
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.mapSegments(need); err != nil {
		return err
	}
	atomic.StoreUint32(&l.header.Segments, uint32(need))
	return nil
}

func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	for err == unix.EINTR { // the runtime's own signals
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	}
	if err != unix.EOPNOTSUPP {
		return err
	}
	// A file system without fallocate: zeros that are written are allocated too.
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for off := fi.Size(); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// Sync makes the ledger durable. fdatasync and not msync: the times that
// mapped writes change are no reason to commit the file system's journal,
// which the application's own commits would wait for.
func (l *Ledger) Sync() error {
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		return fmt.Errorf("sync ledger: %w", err)
	}
	return nil
}

// Poke wakes whoever watches the file.
func (l *Ledger) Poke() {
	_, _ = l.file.WriteAt([]byte{1}, PokeOffset)
}

// Path is the file's name.
func (l *Ledger) Path() string { return l.path }

// Header is the mapped header. It must not be used after Close.
func (l *Ledger) Header() *Header { return l.header }

// Close unmaps the file.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for _, s := range *l.segments.Load() {
		_ = unix.MunmapPtr(unsafe.Pointer(s), SegmentSize)
	}
	_ = unix.MunmapPtr(unsafe.Pointer(l.header), HeaderSize)
	return l.file.Close()
}

// identity is the inode number and the time of birth of a file, which no copy
// shares. A file system that keeps no time of birth gives 0.
func identity(f *os.File) (ino, btimeNs uint64, err error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return 0, 0, fmt.Errorf("read ledger's inode: %w", err)
	}
	return st.Ino, uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec), nil
}

// Inode is the device and inode number of a file, zeros where there is none.
func Inode(path string) (dev, ino uint64) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Ino
}

// StampOf is the stamp of a file as it is now.
func StampOf(path string) Stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return Stamp{}
	}
	return Stamp{
		Valid: 1, Dev: st.Dev, Ino: st.Ino, Size: uint64(st.Size),
		MtimeNs: st.Mtim.Nano(), CtimeNs: st.Ctim.Nano(),
	}
}

// BootID names this run of the kernel: mapped pages that were not synced did not
// survive another.
func BootID() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
	for i := range id {
		if 2*i+2 <= len(digits) {
			fmt.Sscanf(digits[2*i:2*i+2], "%02x", &id[i])
		}
	}
	return id
}
