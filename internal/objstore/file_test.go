package objstore_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/objstore"
)

func TestFilesBearTheTimeAndAreTheirOwners(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, "file://"+dir, objstore.Options{})
	at := time.UnixMilli(1700000000123)
	if err := s.Create(t.Context(), object(0, 2, 2), bytes.NewReader([]byte("x")), objstore.Meta{Timestamp: at}, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "ltx", "0", "0000000000000002-0000000000000002.ltx"))
	if err != nil {
		t.Fatal(err)
	}
	if !info.ModTime().Equal(at) || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.ModTime(), info.Mode())
	}
	if info, _ := os.Stat(filepath.Join(dir, "ltx")); info.Mode().Perm() != 0o700 {
		t.Errorf("directory has %v", info.Mode())
	}
	l, err := s.List(t.Context(), 0, 0)
	if err != nil || len(l) != 1 || !l[0].ModTime.Equal(at) {
		t.Errorf("%v, %v", l, err)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, "file://"+dir, objstore.Options{})
	boom := errors.New("boom")
	if err := s.Create(t.Context(), object(0, 2, 2), &brokenBody{bytes.NewReader(large()), boom}, objstore.Meta{}, nil); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), object(0, 2, 2), shortBody{bytes.NewReader([]byte("x"))}, objstore.Meta{}, nil); err == nil {
		t.Fatal("a body that ends early was taken")
	}
	if e, err := os.ReadDir(filepath.Join(dir, "ltx", "0")); err != nil || len(e) != 0 {
		t.Errorf("%v, %v", e, err)
	}
}

// shortBody promises more than it has.
type shortBody struct{ *bytes.Reader }

func (b shortBody) Size() int64 { return b.Reader.Size() + 1 }

func TestDirectoryRemovedUnderneath(t *testing.T) {
	dir := t.TempDir()
	s := open(t, "file://"+dir, objstore.Options{})
	create(t, s, object(0, 1, 1), "x")
	if err := os.RemoveAll(filepath.Join(dir, "ltx")); err != nil {
		t.Fatal(err)
	}
	create(t, s, object(0, 1, 1), "y")
}

func TestDirectoryRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]error{"file://" + file: syscall.ENOTDIR, "file://" + file + "/below": syscall.ENOTDIR,
		"file://" + t.TempDir() + "/" + strings.Repeat("x", 300): syscall.ENAMETOOLONG}
	if os.Getuid() != 0 {
		shut := t.TempDir()
		if err := os.Chmod(shut, 0o500); err != nil {
			t.Fatal(err)
		}
		cases["file://"+shut] = syscall.EACCES
	}
	if f, err := os.Create("/proc/walferry"); err == nil {
		f.Close()
	} else if errors.Is(err, fs.ErrPermission) {
		cases["file:///proc/walferry"] = syscall.EACCES
	}
	for url, want := range cases {
		err := open(t, url, objstore.Options{}).Create(t.Context(), object(0, 1, 1), bytes.NewReader([]byte("x")), objstore.Meta{}, nil)
		if !errors.Is(err, objstore.ErrRefused) || !errors.Is(err, want) || errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestNoSpaceIsNoRefusal(t *testing.T) {
	err := open(t, "file://"+t.TempDir(), objstore.Options{}).Create(t.Context(), object(0, 1, 1),
		&brokenBody{bytes.NewReader(large()), syscall.ENOSPC}, objstore.Meta{}, nil)
	if errors.Is(err, objstore.ErrRefused) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
}
