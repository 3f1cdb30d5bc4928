package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/walferry/walferry/internal/crash/trap"
	"github.com/walferry/walferry/internal/ledger"
)

// A disk holds what it held at the last sync of each file, and of what was written
// since, sector by sector, as much as it pleased.
const (
	sectorSize     = 512
	ledgerPageSize = 4096
)

// disk is what a power cut may leave of the files of a database, told from a trace.
type disk struct {
	files   map[uint64]*diskFile
	names   map[trap.File]uint64 // inodes, now
	durable map[trap.File]uint64 // and in the directory that is on the disk
	since   []trap.Change        // changes of the directory after that
}

// diskFile is one inode.
type diskFile struct {
	synced  []byte             // content at the last sync
	changes []trap.Change      // since
	ever    bool               // it was synced, or was there in the beginning
	pages   map[int64][][]byte // of a ledger: each page as it was synced, and as it was seen since
}

var suffixes = map[trap.File]string{trap.Database: "", trap.WAL: "-wal", trap.Journal: "-journal", trap.Ledger: "-ledger"}

// trace is the file that the processes of a round write to.
func (l *life) trace() string { return filepath.Join(l.dir, "trace") }

// wholeDisk is the disk at the begin of a round: all that there is, is on it.
func (l *life) wholeDisk() (*disk, error) {
	d := &disk{files: map[uint64]*diskFile{}, names: map[trap.File]uint64{}}
	for file, suffix := range suffixes {
		_, ino := ledger.Inode(l.db + suffix)
		if ino == 0 {
			continue
		}
		b, err := os.ReadFile(l.db + suffix)
		if err != nil {
			return nil, err
		}
		d.names[file] = ino
		f := &diskFile{synced: b, ever: true}
		d.files[ino] = f
		if file == trap.Ledger {
			f.pages = map[int64][][]byte{}
			for off := int64(0); off+ledgerPageSize <= int64(len(b)); off += ledgerPageSize {
				f.pages[off] = [][]byte{b[off : off+ledgerPageSize]}
			}
		}
	}
	d.durable = maps.Clone(d.names)
	return d, nil
}

// follow takes in what a trace tells.
func (d *disk) follow(changes []trap.Change) {
	for _, c := range changes {
		switch c.Type {
		case trap.Created:
			d.names[c.File] = c.Ino
			d.files[c.Ino] = &diskFile{pages: map[int64][][]byte{}}
			d.since = append(d.since, c)
		case trap.Deleted:
			delete(d.names, c.File)
			d.since = append(d.since, c)
		case trap.DirSynced:
			d.durable, d.since = maps.Clone(d.names), nil
		case trap.Seen:
			if f := d.files[d.names[trap.Ledger]]; f != nil {
				f.pages[c.Off] = append(f.pages[c.Off], c.Data)
			}
		case trap.Synced:
			d.sync(c)
		default:
			if f := d.files[c.Ino]; f != nil {
				f.changes = append(f.changes, c)
			}
		}
	}
}

// sync makes a file's content durable, and its name: that is what file systems do with a
// file that is new.
func (d *disk) sync(c trap.Change) {
	f := d.files[c.Ino]
	if f == nil {
		return
	}
	f.ever = true
	for _, c := range f.changes {
		f.synced = apply(f.synced, c)
	}
	f.changes = nil
	for off, versions := range f.pages {
		f.pages[off] = versions[len(versions)-1:]
	}
	if d.names[c.File] == c.Ino && d.durable[c.File] != c.Ino {
		d.durable = maps.Clone(d.durable)
		d.durable[c.File] = c.Ino
		d.since = slices.DeleteFunc(d.since, func(x trap.Change) bool { return x.File == c.File })
	}
}

// apply makes one change.
func apply(b []byte, c trap.Change) []byte {
	end := c.Off + int64(len(c.Data))
	if int64(len(b)) < end {
		b = append(b[:len(b):len(b)], make([]byte, end-int64(len(b)))...)
	}
	switch c.Type {
	case trap.Wrote:
		b = slices.Clone(b)
		copy(b[c.Off:], c.Data)
	case trap.CutTo:
		b = b[:c.Off:c.Off]
	}
	return b
}

// cut is one power cut: what of each file is on the disk.
type cut struct {
	r       *rand.Rand
	content map[trap.File][]byte // files that there are, but the ledger
	ledger  *diskFile            // nil: there is none
	mode    int
}

// Modes of a cut.
const (
	nothing    = iota // of what was not synced is on the disk
	everything        // is
	upTo              // some moment, everything
	mixture           // each sector is of a moment of its own
	modes
)

func (d *disk) cut(r *rand.Rand, mode int) *cut {
	k := &cut{r: r, content: map[trap.File][]byte{}, mode: mode}
	names := maps.Clone(d.durable)
	n := len(d.since)
	switch {
	case k.mode == nothing:
		n = 0
	case k.mode != everything:
		n = r.IntN(n + 1)
	}
	for _, c := range d.since[:n] {
		if c.Type == trap.Created {
			names[c.File] = c.Ino
		} else {
			delete(names, c.File)
		}
	}
	for file, ino := range names {
		f := d.files[ino]
		switch {
		case f == nil:
		case file == trap.Ledger:
			k.ledger = f
		default:
			k.content[file] = k.of(f)
		}
	}
	return k
}

// of chooses what of a file is on the disk.
func (k *cut) of(f *diskFile) []byte {
	m := len(f.changes)
	if m == 0 {
		return f.synced
	}
	at := func() int {
		switch k.mode {
		case nothing:
			return 0
		case everything:
			return m
		}
		return k.r.IntN(m + 1)
	}
	moments := make([][]byte, m+1)
	moments[0] = f.synced
	for i, c := range f.changes {
		moments[i+1] = apply(moments[i], c)
	}
	whole := moments[at()]
	if k.mode != mixture {
		return whole
	}
	b := make([]byte, len(whole))
	for off := 0; off < len(b); off += sectorSize {
		from := moments[at()]
		if off < len(from) {
			copy(b[off:min(off+sectorSize, len(b))], from[off:])
		}
	}
	return b
}

// pull lets the power go, and makes the files what the disk holds then.
func (l *life) pull(d *disk, mode int) error {
	b, err := os.ReadFile(l.trace())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	changes := trap.Parse(b)
	d.follow(changes)
	l.count("changes traced", len(changes))
	k := d.cut(l.r, mode)
	l.tell("power cut: of what was not synced %s", []string{"nothing is on the disk", "everything is", "all up to some moment is", "some sectors are"}[k.mode])
	stamp := ledger.StampOf(l.db)
	for file, suffix := range suffixes {
		if file == trap.Ledger {
			continue
		}
		content, ok := k.content[file]
		if !ok {
			err = errors.Join(err, remove(l.db+suffix))
			continue
		}
		was, readErr := os.ReadFile(l.db + suffix)
		if readErr == nil && string(was) == string(content) {
			continue
		}
		l.count(fmt.Sprintf("cuts that changed the %s", file), 1)
		err = errors.Join(err, overwrite(l.db+suffix, content))
	}
	err = errors.Join(err, remove(l.db+"-shm"))
	if k.ledger == nil {
		return errors.Join(err, remove(l.db+ledger.Suffix))
	}
	return errors.Join(err, l.tear(k, stamp))
}

// tear makes each page of the ledger what it was at its last sync or at some
// moment since. The database file has the times that it had, though what was written
// then may be lost: a file system can keep the one without the other.
func (l *life) tear(k *cut, stamp ledger.Stamp) error {
	f, err := os.OpenFile(l.db+ledger.Suffix, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, off := range slices.Sorted(maps.Keys(k.ledger.pages)) {
		versions := k.ledger.pages[off]
		now := make([]byte, ledgerPageSize)
		if n, _ := f.ReadAt(now, off); n < len(now) {
			continue
		}
		if !k.ledger.ever {
			versions = append([][]byte{make([]byte, ledgerPageSize)}, versions...)
		}
		versions = append(versions, now)
		i := k.r.IntN(len(versions))
		switch x := k.r.IntN(4); {
		case k.mode == nothing || k.mode != everything && x == 0:
			i = 0
		case k.mode == everything || x == 1:
			i = len(versions) - 1
		}
		if _, err := f.WriteAt(versions[i], off); err != nil {
			return err
		}
		if string(versions[i]) != string(now) {
			l.count("ledger pages that went back", 1)
		}
	}
	var h ledger.Header
	b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h))
	if n, _ := f.ReadAt(b, 0); n < len(b) {
		return nil
	}
	copy(h.Boot[:], "another boot....")
	if now := ledger.StampOf(l.db); h.Stamp == stamp && stamp.Size == now.Size {
		l.count("cuts after which the stamp fits", 1)
		l.tell("the database has the times of its stamp")
		h.Stamp = now
	}
	_, err = f.WriteAt(b, 0)
	return err
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// overwrite keeps the inode, which the ledger knows.
func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// errBroken ends the life of a database that a power cut has broken, as it may with
// synchronous=OFF.
var errBroken = errors.New("the database is broken, as it may be")

// afterCut looks at what is left when the machine is on again.
func (l *life) afterCut() error {
	here, err := l.local()
	if err != nil && l.loose {
		return errBroken
	}
	if err != nil {
		return err
	}
	there, err := l.restored()
	if err != nil {
		return err
	}
	if there == nil && l.confirmed > 0 || there != nil && there.n < l.confirmed {
		return fmt.Errorf("the replica is of commit %d, and commit %d was confirmed", there.number(), l.confirmed)
	}
	if here.n < l.full {
		return fmt.Errorf("the database is of commit %d, and %d was committed with synchronous=FULL", here.n, l.full)
	}
	if there != nil && there.n > here.n {
		l.count("cuts that left the store ahead", 1)
		if l.safe && !l.loose {
			return fmt.Errorf("the replica is of commit %d, and the database of %d in spite of sync_before_ship", there.n, here.n)
		}
	}
	// What was lost the next object takes back.
	l.committed, l.full, l.confirmed = here.n, here.n, min(l.confirmed, here.n)
	return l.next(here, there)
}
