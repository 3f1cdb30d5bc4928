package systest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sys/unix"
)

// hostileMemory bounds what any program may take, in bytes, whatever a bucket's files say.
const hostileMemory = 160 << 20

// spoil makes something of a replica that no writer would.
type spoil struct {
	name string
	do   func(h *hostile)
}

// hostile is a replica that is being spoiled.
type hostile struct {
	t       *testing.T
	p       *place
	objects []string // files, the newest last
}

func (h *hostile) write(path string, b []byte) {
	h.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

// edit changes the newest object.
func (h *hostile) edit(change func(b []byte) []byte) {
	h.t.Helper()
	path := h.objects[len(h.objects)-1]
	b, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(path, change(b))
}

// put adds an object that is sound in itself: its checksum is right.
func (h *hostile) put(level int, hdr ltx.Header, pages ...uint32) {
	h.t.Helper()
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	hdr.Version, hdr.Flags, hdr.Timestamp = ltx.Version, ltx.HeaderFlagNoChecksum, time.Now().UnixMilli()
	if err == nil {
		err = enc.EncodeHeader(hdr)
	}
	for _, pgno := range pages {
		if err == nil {
			err = enc.EncodePage(ltx.PageHeader{Pgno: pgno}, make([]byte, hdr.PageSize))
		}
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(h.name(level, hdr.MinTXID, hdr.MaxTXID), b.Bytes())
}

func (h *hostile) name(level int, from, to ltx.TXID) string {
	return filepath.Join(h.p.objects, "ltx", fmt.Sprint(level), ltx.FormatFilename(from, to))
}

func (h *hostile) mark(name string, body []byte) {
	h.write(filepath.Join(h.p.objects, "marks", name), body)
}

func field(off, n int, value uint64) func(*hostile) {
	return func(h *hostile) {
		h.edit(func(b []byte) []byte {
			var v [8]byte
			binary.BigEndian.PutUint64(v[:], value)
			copy(b[off:off+n], v[8-n:])
			return b
		})
	}
}

func spoils() []spoil {
	all := []spoil{
		{"empty", func(h *hostile) { h.edit(func([]byte) []byte { return nil }) }},
		{"one byte", func(h *hostile) { h.edit(func(b []byte) []byte { return b[:1] }) }},
		{"header only", func(h *hostile) { h.edit(func(b []byte) []byte { return b[:ltx.HeaderSize] }) }},
		{"no trailer", func(h *hostile) { h.edit(func(b []byte) []byte { return b[:len(b)-ltx.TrailerSize] }) }},
		{"much behind it", func(h *hostile) { h.edit(func(b []byte) []byte { return append(b, make([]byte, 64<<20)...) }) }},
		{"a terabyte", func(h *hostile) {
			if err := os.Truncate(h.objects[len(h.objects)-1], 1<<40); err != nil {
				h.t.Fatal(err)
			}
		}},
		{"commit of 2^32-1", func(h *hostile) {
			h.put(0, ltx.Header{PageSize: 4096, Commit: math.MaxUint32, MinTXID: 6, MaxTXID: 6}, 1)
		}},
		{"commit of 2^32-1, of 64 KB", func(h *hostile) {
			h.put(0, ltx.Header{PageSize: 65536, Commit: math.MaxUint32, MinTXID: 6, MaxTXID: 6}, 1)
		}},
		{"last page of 2^32-2", func(h *hostile) {
			h.put(0, ltx.Header{PageSize: 4096, Commit: math.MaxUint32 - 1, MinTXID: 6, MaxTXID: 6}, math.MaxUint32-1)
		}},
		{"another page size", func(h *hostile) { h.put(0, ltx.Header{PageSize: 512, Commit: 3, MinTXID: 6, MaxTXID: 6}, 1, 2, 3) }},
		{"TXID 0", func(h *hostile) {
			h.write(h.name(0, 0, 0), []byte("x"))
			h.write(h.name(9, 0, math.MaxUint64), []byte("x"))
		}},
		{"greatest TXID", func(h *hostile) {
			h.put(0, ltx.Header{PageSize: 4096, Commit: 2, MinTXID: math.MaxUint64, MaxTXID: math.MaxUint64}, 1)
		}},
		{"all TXIDs at once", func(h *hostile) {
			h.put(1, ltx.Header{PageSize: 4096, Commit: 2, MinTXID: 2, MaxTXID: math.MaxUint64}, 1)
			h.put(2, ltx.Header{PageSize: 4096, Commit: 2, MinTXID: 3, MaxTXID: math.MaxUint64 - 1}, 1)
		}},
		{"overlapping", func(h *hostile) {
			for i := range ltx.TXID(6) {
				h.put(1, ltx.Header{PageSize: 4096, Commit: 2, MinTXID: 2 + i, MaxTXID: 4 + 2*i}, 1)
			}
		}},
		{"name of another", func(h *hostile) { h.write(h.name(0, 900, 901), []byte("LTX1")) }},
		{"names like paths", func(h *hostile) {
			for _, name := range []string{"..ltx", "0000000000000006-0000000000000006.ltx.ltx", "%2e%2e%2f", strings.Repeat("f", 250), "\n\x1b[2J"} {
				h.write(filepath.Join(h.p.objects, "ltx", "0", name), []byte("x"))
				h.mark(name, []byte("x"))
			}
		}},
		{"a directory", func(h *hostile) {
			_ = os.MkdirAll(filepath.Join(h.name(0, 6, 6), "x"), 0o755)
		}},
		{"a FIFO", func(h *hostile) {
			if err := unix.Mkfifo(h.name(0, 6, 6), 0o600); err != nil {
				h.t.Fatal(err)
			}
		}},
		{"a FIFO for the newest", func(h *hostile) {
			newest := h.objects[len(h.objects)-1]
			if err := errors.Join(os.Remove(newest), unix.Mkfifo(newest, 0o600)); err != nil {
				h.t.Fatal(err)
			}
		}},
		{"a link to a device", func(h *hostile) {
			newest := h.objects[len(h.objects)-1]
			if err := errors.Join(os.Remove(newest), os.Symlink("/dev/zero", newest)); err != nil {
				h.t.Fatal(err)
			}
		}},
		{"2000 names", func(h *hostile) {
			for i := range ltx.TXID(2000) {
				h.write(h.name(0, 100+2*i, 100+2*i), nil)
			}
		}},
		{"marks", func(h *hostile) {
			for i := range 2000 {
				h.mark(fmt.Sprintf("%016x-%d-%s", i, i, strings.Repeat("A", i%200)), bytes.Repeat([]byte{0xff}, i))
			}
			h.mark("0000000000000001", make([]byte, 32<<20))
			h.mark("ffffffffffffffff-ffffffffffffffff-eA", nil)
		}},
	}
	for _, f := range []struct {
		name   string
		off, n int
	}{{"flags", 4, 4}, {"page size", 8, 4}, {"commit", 12, 4}, {"min TXID", 16, 8}, {"max TXID", 24, 8}, {"timestamp", 32, 8}, {"pre-apply", 40, 8}, {"WAL offset", 48, 8}, {"WAL size", 56, 8}, {"first page", 100, 4}, {"first flags", 104, 2}, {"first size", 106, 4}} {
		for _, v := range []uint64{0, 1, 1 << 31, math.MaxInt64, math.MaxUint64} {
			all = append(all, spoil{fmt.Sprintf("%s=%#x", f.name, v), field(f.off, f.n, v)})
		}
	}
	for _, v := range []uint64{0, 1, 64 << 20, 1 << 62, math.MaxInt64, math.MaxUint64} {
		all = append(all, spoil{fmt.Sprintf("index of %#x", v), func(h *hostile) {
			h.edit(func(b []byte) []byte {
				binary.BigEndian.PutUint64(b[len(b)-ltx.TrailerSize-8:], v)
				return b
			})
		}})
	}
	for _, fill := range []byte{0xff, 0x80, 0x7f, 1} {
		all = append(all, spoil{fmt.Sprintf("index full of %#x", fill), func(h *hostile) {
			h.edit(func(b []byte) []byte {
				end := len(b) - ltx.TrailerSize - 8
				n := int(min(binary.BigEndian.Uint64(b[end:]), uint64(end-ltx.HeaderSize)))
				copy(b[end-n:end], bytes.Repeat([]byte{fill}, n))
				return b
			})
		}})
	}
	for seed := range uint64(100) {
		all = append(all, spoil{fmt.Sprint("noise ", seed), func(h *hostile) {
			r := rand.New(rand.NewPCG(seed, 1))
			h.objects = h.objects[:1+r.IntN(len(h.objects))]
			h.edit(func(b []byte) []byte {
				for range 1 + r.IntN(20) {
					b[r.IntN(len(b))] = byte(r.Uint32())
				}
				return b[:len(b)-r.IntN(2)*r.IntN(len(b))]
			})
		}})
	}
	return all
}

// TestHostile_ABucketOfAnEnemy has every tool, a follower and the shipper read replicas that no
// writer of ours has made. Each ends, by itself or when told to, without a crash and with
// bounded memory, and a restore that fails leaves nothing.
func TestHostile_ABucketOfAnEnemy(t *testing.T) {
	model := newPlace(t)
	s := model.client("snapshot_interval=0")
	s.exec("CREATE TABLE t(v)")
	s.exec("PRAGMA walferry_sync")
	for range 3 {
		s.exec("INSERT INTO t SELECT randomblob(3000) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)")
		s.exec("PRAGMA walferry_sync")
	}
	s.end()
	tab := new(table)
	t.Cleanup(func() { tab.log(t) })
	for i, c := range spoils() {
		if !full() && i%15 != 0 && !strings.Contains(c.name, "FIFO") && !strings.Contains(c.name, "commit of") && c.name != "timestamp=0x7fffffffffffffff" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := &hostile{t: t, p: newPlace(t)}
			for _, part := range []string{"app.db", "app.db-ledger", "replica"} {
				run(t, h.p.dir, h.p.env, "", tool(t, "cp"), "-a", filepath.Join(model.dir, part), h.p.dir).ok(t)
			}
			h.objects = h.p.names()
			slices.SortFunc(h.objects, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
			c.do(h)
			h.isRead(tab, c.name)
		})
	}
}

// isRead has all who read replicas read this one.
func (h *hostile) isRead(tab *table, name string) {
	out := tempDir(h.t)
	file := filepath.Join(out, "out.db")
	line := fmt.Sprintf("%-28s", name)
	for _, args := range [][]string{
		{"restore", "-o", file, h.p.replica},
		{"ls", h.p.replica},
		{"ls", "-json", h.p.replica},
		{"verify", h.p.replica},
		{"restore", "-f", "-o", filepath.Join(tempDir(h.t), "standby.db"), h.p.replica},
		{"compact", "-dry-run", h.p.replica},
		{"compact", h.p.replica},
		{"ship", "-takeover", h.p.db, h.p.replica},
	} {
		code, rss, said := h.bounded(args...)
		line += fmt.Sprintf(" %s %d (%d MB)", args[0], code, rss>>20)
		if rss > hostileMemory {
			h.t.Errorf("%v took %d MB", args, rss>>20)
		}
		if strings.Contains(said, "panic") || strings.Contains(said, "goroutine ") || strings.Contains(said, "fatal error") {
			h.t.Errorf("%v: %s", args, said)
		}
		if code != 0 && strings.TrimSpace(said) == "" {
			h.t.Errorf("%v ended with %d and says nothing", args, code)
		}
		if left, _ := os.ReadDir(out); args[1] == "-o" && code != 0 && len(left) != 0 {
			h.t.Errorf("%v failed and left %v", args, left)
		}
	}
	tab.add("%s", line)
}

// bounded runs the command line, tells a follower to end after a moment, and fails the test
// where a program does not end. It returns the most memory that it had.
func (h *hostile) bounded(args ...string) (code int, rss int64, output string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, artefact(h.t, "walferry"), args...)
	var said bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.p.dir, h.p.env, &said, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	if slices.Contains(args, "-f") {
		defer time.AfterFunc(time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }).Stop()
	}
	done := make(chan struct{})
	var watched sync.WaitGroup
	watched.Go(func() { rss = watch(cmd.Process.Pid, done) })
	_ = cmd.Wait()
	close(done)
	watched.Wait()
	if ctx.Err() != nil {
		h.t.Errorf("%v does not end", args)
	}
	return cmd.ProcessState.ExitCode(), rss, said.String()
}

// watch returns the most memory that a program was seen to have had until done. What wait4
// tells holds the memory of the test too, of which the program is a fork.
func watch(pid int, done chan struct{}) (most int64) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return most
		case <-tick.C:
			if n, err := highWater(pid); err == nil {
				most = n
			}
		}
	}
}

// TestHostile_ALedgerOfAnEnemy opens databases beside whose ledger somebody has put something else.
// The open and every statement succeed, the host lives, nothing of anybody's is written to, no
// memory or disk is used for sizes that are only claimed, and the status tells what is.
func TestHostile_ALedgerOfAnEnemy(t *testing.T) {
	const page = 4096
	noise := func(seed uint64) func(*place, string) error {
		return func(_ *place, ledger string) error {
			r := rand.New(rand.NewPCG(seed, 2))
			b, err := os.ReadFile(ledger)
			if err != nil {
				return err
			}
			for i := 16; i < 16384; i += 4 { // behind magic, version and ready
				if r.IntN(3) == 0 {
					binary.LittleEndian.PutUint32(b[i:], []uint32{0, 1, math.MaxInt32, math.MaxUint32, r.Uint32()}[r.IntN(5)])
				}
			}
			return os.WriteFile(ledger, b, 0o600)
		}
	}
	cases := map[string]func(p *place, ledger string) error{
		"empty":       func(_ *place, l string) error { return os.Truncate(l, 0) },
		"short":       func(_ *place, l string) error { return os.Truncate(l, 100) },
		"header only": func(_ *place, l string) error { return os.Truncate(l, 65536) },
		"odd length":  func(_ *place, l string) error { return os.Truncate(l, 300001) },
		"a terabyte":  func(_ *place, l string) error { return os.Truncate(l, 1<<40) },
		"new terabyte": func(_ *place, l string) error {
			return errors.Join(os.Remove(l), os.WriteFile(l, nil, 0o600), os.Truncate(l, 1<<40))
		},
		"directory": func(_ *place, l string) error { return errors.Join(os.Remove(l), os.Mkdir(l, 0o755)) },
		"FIFO":      func(_ *place, l string) error { return errors.Join(os.Remove(l), unix.Mkfifo(l, 0o600)) },
		"loop":      func(_ *place, l string) error { return errors.Join(os.Remove(l), os.Symlink(l, l)) },
		"device": func(_ *place, l string) error {
			return errors.Join(os.Remove(l), unix.Mknod(l, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		},
		"link to a file": func(p *place, l string) error {
			return errors.Join(os.Remove(l), os.WriteFile(filepath.Join(p.dir, "valuable"), make([]byte, page), 0o600), os.Symlink(filepath.Join(p.dir, "valuable"), l))
		},
		"text": func(_ *place, l string) error { return os.WriteFile(l, bytes.Repeat([]byte("hello "), 60000), 0o600) },
		"immutable": func(p *place, l string) error {
			run(t, p.dir, p.env, "", tool(t, "chattr"), "+i", l).ok(t)
			return nil
		},
	}
	for seed := range uint64(rounds(t, 2)) {
		cases[fmt.Sprint("noise ", seed)] = noise(seed)
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			s := p.client()
			s.exec("CREATE TABLE t(v)")
			s.exec("PRAGMA walferry_sync")
			s.end()
			ledger := p.db + "-ledger"
			defer func() { _ = exec.Command("chattr", "-i", ledger).Run() }()
			if err := change(p, ledger); err != nil {
				t.Skip(err)
			}
			status := run(t, p.dir, p.env, "", artefact(t, "walferry"), "status", p.db)
			if strings.Contains(status.stderr, "panic") || strings.Contains(status.stderr, "SIG") {
				t.Errorf("walferry status: %s", status.stderr)
			}
			s = p.client("close_timeout=1s")
			for range 20 {
				s.exec("INSERT INTO t VALUES(randomblob(2000))")
			}
			text, ok := s.try("exec PRAGMA walferry_sync")
			if state, cause := s.status("state"), s.status("cause"); ok != (state == "shipping") || !ok && cause == "" {
				t.Errorf("a sync says %q, the status %q: %q", text, state, cause)
			}
			if rss, err := highWater(s.cmd.Process.Pid); err != nil || rss > hostileMemory {
				t.Errorf("%d MB of memory, %v", rss>>20, err)
			}
			var st unix.Stat_t
			if err := unix.Lstat(ledger, &st); err == nil && st.Blocks*512 > 8<<20 {
				t.Errorf("the ledger takes %d MB", st.Blocks*512>>20)
			}
			if b, err := os.ReadFile(filepath.Join(p.dir, "valuable")); err == nil && !bytes.Equal(b, make([]byte, page)) {
				t.Error("somebody else's file was written to")
			}
			s.end()
			// Without it everything goes on.
			_ = exec.Command("chattr", "-i", ledger).Run()
			if err := os.RemoveAll(ledger); err != nil {
				t.Fatal(err)
			}
			s = p.client("takeover=1")
			s.exec("INSERT INTO t VALUES('after')")
			s.exec("PRAGMA walferry_sync")
			s.end()
			p.comesBack()
		})
	}
}

// highWater is the most memory that a running program had, in bytes.
func highWater(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb int64
	_, err = fmt.Sscan(rest, &kb)
	return kb << 10, err
}
