package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOneLockInOneProcess(t *testing.T) {
	l := newLedger(t, 1)
	if l.Locked() {
		t.Fatal("locked by nobody")
	}
	first, err := l.TryLock(Descriptors{})
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, strings.TrimSuffix(l.Path(), Suffix))
	for _, k := range []*Ledger{l, other} {
		if _, err := k.TryLock(Descriptors{}); !errors.Is(err, ErrLocked) {
			t.Fatalf("second TryLock: %v", err)
		}
		if !k.Locked() {
			t.Fatal("not locked")
		}
	}
	// Another close in the process drops no OFD lock.
	f, err := os.OpenFile(l.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !other.Locked() {
		t.Fatal("a close of another descriptor dropped the lock")
	}
	first.Unlock()
	second, err := other.TryLock(Descriptors{})
	if err != nil {
		t.Fatal(err)
	}
	second.Unlock()
}

func TestTheDescriptorsFunctionsAreUsed(t *testing.T) {
	l := newLedger(t, 1)
	opened, closed := -1, -1
	d := Descriptors{
		Open: func(path string) (fd int, err error) {
			opened, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			return opened, err
		},
		Close: func(fd int) { closed = fd; unix.Close(fd) },
	}
	k, err := l.TryLock(d)
	if err != nil {
		t.Fatal(err)
	}
	k.Unlock()
	if opened < 0 || opened != closed {
		t.Fatalf("opened %d, closed %d", opened, closed)
	}
	d.Open = func(string) (int, error) { return -1, unix.EMFILE }
	if _, err := l.TryLock(d); !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrLocked) {
		t.Fatalf("TryLock without a descriptor: %v", err)
	}
}

// The lock is a process's, and ends with it, however it ends.
func TestTheLockEndsWithItsProcess(t *testing.T) {
	l := newLedger(t, 1)
	cmd := exec.Command(os.Args[0], "-test.run=TestHelperHoldsTheLock")
	cmd.Env = append(os.Environ(), "WALFERRY_TEST_LOCK="+strings.TrimSuffix(l.Path(), Suffix))
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if sc.Text() == "locked" {
			break
		}
	}
	if _, err := l.TryLock(Descriptors{}); !errors.Is(err, ErrLocked) {
		t.Errorf("while another process holds it: %v", err)
	}
	if !l.Locked() {
		t.Error("not locked")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if l.Locked() {
		t.Error("locked by a process that was killed")
	}
	k, err := l.TryLock(Descriptors{})
	if err != nil {
		t.Fatal(err)
	}
	k.Unlock()
}

func TestHelperHoldsTheLock(t *testing.T) {
	database := os.Getenv("WALFERRY_TEST_LOCK")
	if database == "" {
		t.Skip("run by TestTheLockEndsWithItsProcess")
	}
	if _, err := open(t, database).TryLock(Descriptors{}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("locked")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until killed
}

func TestElectBeginsATerm(t *testing.T) {
	l := newLedger(t, 1)
	l.header.Reader, l.header.Yield, l.header.Poked = 1, 1, 1
	one := l.Elect(7)
	two := l.Elect(8)
	if two != one+1 || l.header.ShipperPID != 8 || l.header.Reader|l.header.Yield|l.header.Poked != 0 {
		t.Fatalf("terms %d, %d: %d %d %d", one, two, l.header.Reader, l.header.Yield, l.header.Poked)
	}
}
