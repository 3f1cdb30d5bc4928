package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"
)

// describeMachine writes what the figures depend on, so that two reports can be compared.
func describeMachine(w io.Writer, b *bench) {
	var uts unix.Utsname
	kernel := "unknown"
	if unix.Uname(&uts) == nil {
		kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:])
	}
	sqlite, _, _ := sqlite3.Version()
	fmt.Fprintf(w, "walferry bench, %s\n", time.Now().Format(time.RFC3339))
	fmt.Fprintf(w, "machine: %d cores, %s, %s, %s, scratch on %s\n",
		runtime.NumCPU(), processor(), kernel, runtime.GOARCH, filesystem(b.scratch))
	fmt.Fprintf(w, "versions: %s, SQLite %s, lz4 %s, litestream %s\n",
		runtime.Version(), sqlite, toolVersion("lz4", "--version"), toolVersion(b.Litestream, "version"))
	fmt.Fprintf(w, "run: %d rounds, interval %v, databases of %v and %v, idle for %v\n",
		b.Rounds, b.Interval, b.Mid, b.Big, b.Idle)
	fmt.Fprintf(w, "load average at the start: %s\n\n", loadAverage())
}

// processor names the CPU as Linux does.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// filesystem names the kinds of file system a benchmark is usually run on. On tmpfs the figures say
// nothing about a disk.
func filesystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs (NOT A DISK: give -dir)"
	}
	return fmt.Sprintf("file system %#x", uint32(st.Type))
}

// toolVersion returns the first version-like word that the program prints, or "none".
func toolVersion(program, arg string) string {
	if program == "" {
		return "none"
	}
	out, err := exec.Command(program, arg).Output()
	if err != nil {
		return "none"
	}
	for word := range strings.FieldsSeq(string(out)) {
		if v := strings.Trim(word, ",v"); strings.Count(v, ".") >= 1 && v[0] >= '0' && v[0] <= '9' {
			return v
		}
	}
	return "unknown"
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(data))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
