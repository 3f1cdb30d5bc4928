package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/walferry/walferry/internal/crash/trap"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// life is a database and its replica, through some rounds. All chance comes from
// its seed, save the order in which the machine lets processes run.
type life struct {
	seed  uint64
	r     *rand.Rand
	dir   string
	db    string
	uri   string
	power bool // rounds end with a power cut

	store  objstore.Store
	oracle *oracle
	count  func(what string, n int)

	safe      bool // no commit is shipped before it is on the disk
	loose     bool // synchronous=OFF: a power cut may break the database
	confirmed int  // newest commit that the store is known to have
	committed int  // newest commit that a process was told of
	full      int  // and by one with synchronous=FULL
	story     []string
}

func newLife(seed uint64, dir string, power bool, count func(string, int)) (l *life, err error) {
	l = &life{
		seed: seed, r: rand.New(rand.NewPCG(seed, 0x77616c)), dir: dir, power: power, count: count,
		db: filepath.Join(dir, "db", "app.db"),
	}
	if err := os.Mkdir(filepath.Dir(l.db), 0o700); err != nil {
		return nil, err
	}
	replica := "file://" + l.replica()
	if l.store, err = objstore.New(replica, objstore.Options{}); err != nil {
		return nil, err
	}
	if l.oracle, err = newOracle(seed); err != nil {
		return nil, err
	}
	l.safe, l.loose = l.r.IntN(3) == 0, l.r.IntN(5) == 0
	l.uri = fmt.Sprintf("file:%s?vfs=walferry&replica=%s&snapshot_interval=1h&l0_retention=1s&retention=%s&sync_before_ship=%t",
		l.db, replica, []string{"2s", "10p", "5x"}[l.r.IntN(3)], l.safe)
	if l.r.IntN(2) == 0 {
		return l, nil // walferry makes the database
	}
	c, err := open("file:" + l.db)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for _, s := range []string{
		fmt.Sprintf("PRAGMA page_size=%d", []int{512, 1024, 4096}[l.r.IntN(3)]),
		fmt.Sprintf("PRAGMA auto_vacuum=%d", l.r.IntN(3)),
		"CREATE TABLE made_before(x)",
	} {
		if err := c.exec(s); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *life) replica() string { return filepath.Join(l.dir, "db", "replica") }

func (l *life) tell(format string, args ...any) {
	l.story = append(l.story, fmt.Sprintf(format, args...))
}

// process is one that is to die.
type process struct {
	orders
	cmd    *exec.Cmd
	still  time.Duration // that it stands still for, if it does
	killed time.Duration // after it was heard of first; 0: not by the clock
	lines  []string
	began  time.Time
	took   time.Duration
	done   chan struct{}
}

func (l *life) start(o orders, still, killed time.Duration) (*process, error) {
	p := &process{orders: o, still: still, killed: killed, began: time.Now(), done: make(chan struct{})}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GOTRACEBACK=all")
	log, err := os.OpenFile(filepath.Join(l.dir, "stderr"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	l.count("processes", 1)
	go p.follow(bufio.NewScanner(out))
	return p, nil
}

// follow reads what a process says, until it is dead.
func (p *process) follow(out *bufio.Scanner) {
	defer close(p.done)
	var timer *time.Timer
	for out.Scan() {
		line := out.Text()
		p.lines = append(p.lines, line)
		if line == "stopped" {
			go p.goOn()
		}
		if p.killed > 0 && timer == nil {
			timer = time.AfterFunc(p.killed, func() { _ = p.cmd.Process.Kill() })
			defer timer.Stop()
		}
	}
	_ = p.cmd.Wait()
	p.took = time.Since(p.began)
}

// goOn lets a process that stands still go on, more than once since it has said so
// before it stood still.
func (p *process) goOn() {
	for wait := p.still; ; wait = 100 * time.Millisecond {
		select {
		case <-p.done:
			return
		case <-time.After(wait):
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
}

// standStill is for how long a process stands still: shorter and longer than
// others take to work and end.
var standStill = [...]time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 400 * time.Millisecond}

// status is how a process that is done has ended.
func (p *process) status() syscall.WaitStatus {
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// longest is for how long a process may take that should end: the machine may be
// busy, but not that busy.
const longest = 2 * time.Minute

// end waits for a process and takes down what it said.
func (l *life) end(p *process, name string) error {
	select {
	case <-p.done:
	case <-time.After(longest):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its stacks are evidence
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
		}
		<-p.done
		return fmt.Errorf("process %s did not end within %v: %s", name, longest, strings.Join(p.lines, "; "))
	}
	status := p.status()
	l.tell("%s: %s after %v: %s", name, status2text(status), p.took.Round(time.Millisecond), strings.Join(p.lines, "; "))
	told := false
	for _, line := range p.lines {
		what, rest, _ := strings.Cut(line, " ")
		n, _ := strconv.Atoi(rest)
		switch what {
		case "committed":
			l.committed = max(l.committed, n)
			if p.Sync == "FULL" {
				l.full = max(l.full, n)
			}
			l.count("commits", 1)
		case "confirmed":
			l.confirmed = max(l.confirmed, n)
			l.count("confirmations", 1)
		case "killed":
			var k trap.Kind
			var f trap.File
			var h trap.How
			if _, err := fmt.Sscan(rest, &k, &f, &n, &h); err == nil {
				l.count(fmt.Sprintf("kill %s %s", k, f), 1)
				told = true
			}
		case "stopped":
			l.count("stops", 1)
		case "count":
			f := strings.SplitN(rest, " ", 2)
			n, _ := strconv.Atoi(f[0])
			l.count("step "+f[1], n)
		default:
			return fmt.Errorf("process %s: %s", name, line)
		}
	}
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		if !told {
			l.count("kill by the clock, or with the machine", 1)
		}
	case status.Exited() && status.ExitStatus() == 0:
		l.count("ends", 1)
	default:
		return fmt.Errorf("process %s: %s", name, status2text(status))
	}
	return nil
}

func status2text(s syscall.WaitStatus) string {
	if s.Signaled() {
		return s.Signal().String()
	}
	return fmt.Sprint("exit ", s.ExitStatus())
}

// grow makes the ledger and the replica older, so that merges, snapshots and
// retention are due: nothing else here lasts for hours.
func (l *life) grow() error {
	objects, err := l.objects()
	if err != nil {
		return err
	}
	for _, o := range objects {
		path := filepath.Join(l.replica(), "ltx", strconv.Itoa(o.Level), o.Name())
		old := o.ModTime.Add(-2 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(l.db+ledger.Suffix, os.O_RDWR, 0)
	if err != nil {
		return nil // there is none yet
	}
	defer f.Close()
	var kept ledger.Kept
	b := unsafe.Slice((*byte)(unsafe.Pointer(&kept)), unsafe.Sizeof(kept))
	off := int64(unsafe.Offsetof(ledger.Header{}.Kept))
	if n, err := f.ReadAt(b, off); n < len(b) {
		return ignoreShort(err)
	}
	for _, ms := range []*int64{&kept.LevelMs[0], &kept.LevelMs[1], &kept.LevelMs[2], &kept.SnapshotMs, &kept.TrimmedMs, &kept.SweptMs} {
		if *ms > 1 {
			*ms = time.Now().Add(-2 * time.Hour).UnixMilli()
		}
	}
	_, err = f.WriteAt(b, off)
	return err
}

func ignoreShort(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
