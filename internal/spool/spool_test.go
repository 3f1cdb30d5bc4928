package spool

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	s := &Spool{Dir: dir, Memory: 1000}
	for _, size := range []int{0, 1, 999, 1000, 1001, 50_000} {
		var want []byte
		for len(want) < size {
			b := bytes.Repeat([]byte{byte(len(want))}, min(1+rand.IntN(1500), size-len(want)))
			if n, err := s.Write(b); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, b...)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: read %d, %v", size, len(got), err)
		}
		if s.Spilled() != (size > 1000) {
			t.Errorf("%d bytes: spilled %t", size, s.Spilled())
		}
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("%d bytes: the file has a name, %v", size, names)
		}
		if n, err := s.ReadAt(make([]byte, 10), s.Size()); n != 0 || err != io.EOF {
			t.Errorf("behind the end: %d, %v", n, err)
		}
		s.Reset()
		if s.Size() != 0 || s.Spilled() {
			t.Error("not empty")
		}
	}
}

func TestADirectoryThatIsNotThereIsAnErrorWithItsName(t *testing.T) {
	s := &Spool{Dir: t.TempDir() + "/none", Memory: 10}
	_, err := s.Write(make([]byte, 11))
	if pe := (*fs.PathError)(nil); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &pe) || pe.Path != s.Dir {
		t.Errorf("error %v", err)
	}
}
