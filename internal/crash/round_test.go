package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/walferry/walferry/internal/crash/trap"
	"github.com/walferry/walferry/internal/ledger"
)

// most is how often a step is met in about one process's life.
var most = []struct {
	kind trap.Kind
	file trap.File
	n    int
}{
	{trap.Open, trap.Database, 3}, {trap.Lock, trap.Database, 40}, {trap.Unlock, trap.Database, 20}, {trap.Write, trap.Database, 60},
	{trap.Size, trap.Database, 4}, {trap.Sync, trap.Database, 8},
	{trap.Open, trap.WAL, 2}, {trap.Write, trap.WAL, 120}, {trap.Size, trap.WAL, 3}, {trap.Sync, trap.WAL, 15}, {trap.Unlink, trap.WAL, 1},
	{trap.Open, trap.Journal, 1}, {trap.Write, trap.Journal, 6}, {trap.Sync, trap.Journal, 2}, {trap.Unlink, trap.Journal, 1},
	{trap.Lock, trap.Shm, 150}, {trap.Unlock, trap.Shm, 150}, {trap.Open, trap.Shm, 2}, {trap.Size, trap.Shm, 2}, {trap.Unlink, trap.Shm, 1},
	{trap.Open, trap.Ledger, 1}, {trap.Size, trap.Ledger, 3}, {trap.Sync, trap.Ledger, 15}, {trap.Lock, trap.Ledger, 3}, {trap.Write, trap.Ledger, 12},
	{trap.Open, trap.Replica, 12}, {trap.Write, trap.Replica, 12}, {trap.Sync, trap.Replica, 24}, {trap.Link, trap.Replica, 12},
	{trap.Unlink, trap.Replica, 8}, {trap.Sync, trap.Dir, 3},
}

// action chooses a moment to die at.
func (l *life) action() trap.Action {
	how := trap.How(l.r.IntN(3))
	switch x := l.r.IntN(4); x {
	case 0:
		return trap.Action{Kind: trap.Any, N: 1 + l.r.IntN(600), How: how}
	case 1:
		return trap.Action{Kind: trap.Store, N: 1 + l.r.IntN(500), M: 1 + l.r.IntN(300)}
	default:
		m := most[l.r.IntN(len(most))]
		return trap.Action{Kind: m.kind, File: m.file, N: 1 + l.r.IntN(m.n), How: how}
	}
}

// orders for one process of a round.
func (l *life) orders() orders {
	o := orders{
		Plan: trap.Plan{Database: l.db, Replica: l.replica()},
		URI:  l.uri, Seed: l.seed, Own: l.r.Uint64(),
		Conns: 1 + l.r.IntN(2), Steps: 4 + l.r.IntN(12), Sync: []string{"NORMAL", "FULL"}[l.r.IntN(2)],
	}
	if l.loose {
		o.Sync = []string{"OFF", "OFF", "NORMAL"}[l.r.IntN(3)]
	}
	if l.power {
		o.Trace = l.trace()
	}
	return o
}

// round lets some processes work and die, and looks at what they left.
func (l *life) round() error {
	l.story = nil
	if l.r.IntN(4) == 0 {
		if err := l.grow(); err != nil {
			return err
		}
		l.tell("older by two hours")
	}
	if l.r.IntN(40) == 0 {
		if err := l.lose(); err != nil {
			return err
		}
	}
	if err := l.keep(); err != nil {
		return err
	}
	before, err := l.wholeDisk()
	if err != nil {
		return err
	}
	if err := remove(l.trace()); err != nil {
		return err
	}
	all, err := l.cast()
	if l.power {
		endTogether(all)
	}
	for i, p := range all {
		err = errors.Join(err, l.end(p, fmt.Sprint(i)))
	}
	if err != nil {
		return err
	}
	if !l.power {
		return l.afterKill()
	}
	if err := l.pull(before, l.r.IntN(modes)); err != nil {
		return err
	}
	return l.afterCut()
}

// cast starts the processes of a round.
func (l *life) cast() (all []*process, err error) {
	clean := l.r.IntN(2) == 0 // the power goes after a last close
	for i := range 1 + l.r.IntN(3) {
		o := l.orders()
		var killed time.Duration
		switch x := l.r.IntN(20); {
		case l.loose && clean:
		case x < 15:
			o.Actions = append(o.Actions, l.action())
		case x < 18:
			killed = time.Duration(1 + l.r.IntN(int(80*time.Millisecond)))
		}
		if l.r.IntN(6) == 0 {
			o.Actions = append(o.Actions, trap.Action{Kind: trap.Any, N: 1 + l.r.IntN(300), How: trap.Stop})
		}
		o.URI += fmt.Sprintf("&_busy_timeout=%d&interval=%s&close_timeout=%s", []int{1000, 50}[l.r.IntN(2)],
			[]string{"10ms", "10ms", "300ms"}[l.r.IntN(3)], []string{"5s", "5s", "5s", "0"}[l.r.IntN(4)])
		still := standStill[l.r.IntN(len(standStill))]
		_, options, _ := strings.Cut(o.URI, "&_")
		l.tell("process %d: %v, stands still for %v, killed after %v, %d connections, %d steps, synchronous=%s, %s", i, o.Actions, still, killed, o.Conns, o.Steps, o.Sync, options)
		p, err := l.start(o, still, killed)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

// endTogether kills all processes when the first of them was killed: with it the
// machine ended.
func endTogether(all []*process) {
	for _, p := range all {
		go func() {
			<-p.done
			for _, other := range all {
				if p.status().Signaled() {
					_ = other.cmd.Process.Kill()
				}
			}
		}()
	}
}

// lose takes the ledger away, or a part of it. From then on it takes takeover=1 to go
// on with what is here.
func (l *life) lose() error {
	how := l.r.IntN(3)
	l.tell("the ledger is %s", []string{"lost", "cut short", "emptied"}[how])
	l.count("ledgers lost", 1)
	if !strings.Contains(l.uri, "takeover") {
		l.uri += "&takeover=1"
	}
	if how == 0 {
		return remove(l.db + ledger.Suffix)
	}
	err := os.Truncate(l.db+ledger.Suffix, []int64{70000, 0}[how-1])
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is none yet
	}
	return err
}

// keep copies what a round begins with, as evidence.
func (l *life) keep() error {
	to := filepath.Join(l.dir, "before")
	if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700)); err != nil {
		return err
	}
	return copyFiles(l.db, filepath.Join(to, "app.db"), "", "-wal", "-journal", "-ledger")
}

// afterKill looks at what is left when all are dead.
func (l *life) afterKill() error {
	here, err := l.local()
	if err != nil {
		return err
	}
	if here.n < l.committed {
		return fmt.Errorf("the database is of commit %d, and %d was committed", here.n, l.committed)
	}
	there, err := l.restored()
	if err != nil {
		return err
	}
	if there == nil && l.confirmed > 0 || there != nil && there.n < l.confirmed {
		return fmt.Errorf("the replica is %v, and commit %d was confirmed", there.number(), l.confirmed)
	}
	if there != nil && there.n > here.n {
		return fmt.Errorf("the replica is of commit %d, and the database of %d", there.n, here.n)
	}
	return l.next(here, there)
}

func (im *image) number() int {
	if im == nil {
		return -1
	}
	return im.n
}

// next looks at the ledger, and every other time lets a process ship what is left.
func (l *life) next(here image, there *image) error {
	known, err := l.entries(pagesAtMost)
	if err != nil {
		return err
	}
	if err := known.exact(there); err != nil {
		return err
	}
	if l.r.IntN(2) == 0 || len(here.bytes) == 0 {
		return nil
	}
	return l.settle(here, there, known)
}

// settle has a process ship what is left, and no more than that.
func (l *life) settle(here image, there *image, known *entries) error {
	objects, err := l.objects()
	if err != nil {
		return err
	}
	newest := newestOf(objects)
	o := l.orders()
	o.Settle, o.Trace, o.URI = true, "", l.uri+"&interval=10ms"
	p, err := l.start(o, 0, 0)
	if err != nil {
		return err
	}
	if err := l.end(p, "settle"); err != nil {
		return err
	}
	l.count("settled", 1)
	sent, size, err := l.sent(newest)
	if err != nil {
		return err
	}
	l.count("bytes sent by the next open", int(size))
	l.count("bytes of the databases then", len(here.bytes))
	again, err := onlyWhatChanged(sent, there, known)
	l.count("pages sent by the next open", len(sent))
	l.count("of them equal to the store's", again)
	if err != nil {
		return err
	}
	return l.settled(here)
}

// pagesAtMost is more than any database here has.
const pagesAtMost = 1500

// settled is what must be true when all is shipped.
func (l *life) settled(here image) error {
	now, err := l.local()
	if err != nil {
		return err
	}
	if now.n != here.n {
		return fmt.Errorf("the database was of commit %d and is of %d", here.n, now.n)
	}
	there, err := l.restored()
	if err != nil {
		return err
	}
	if there == nil {
		if len(now.bytes) == 0 {
			return nil
		}
		return errors.New("the replica holds nothing after all was shipped")
	}
	if !bytes.Equal(there.bytes, now.bytes) {
		return fmt.Errorf("after all was shipped the replica is of commit %d, %d bytes, and the database of %d, %d bytes: page %d differs",
			there.n, len(there.bytes), now.n, len(now.bytes), firstDifference(there.bytes, now.bytes))
	}
	known, err := l.entries(pagesAtMost)
	if err == nil && (known == nil || known.pending > 0 || known.all) {
		err = fmt.Errorf("after all was shipped the ledger is %+v", known)
	}
	if err == nil {
		err = known.exact(there)
	}
	l.confirmed, l.committed, l.full = now.n, now.n, now.n
	return err
}

func firstDifference(a, b []byte) int {
	size := int(b[16])<<8 | int(b[17])
	if size == 1 {
		size = 65536
	}
	for p := 1; ; p++ {
		x, y := pageOf(a, p, size), pageOf(b, p, size)
		if x == nil || y == nil || !bytes.Equal(x, y) {
			return p
		}
	}
}
