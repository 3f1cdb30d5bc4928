package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, 100 a second on every Linux port of Go.
const clockTick = 10 * time.Millisecond

// memory returns the peak (VmHWM) and present (VmRSS) resident memory of a process in bytes. The
// peak is that of the program since its exec. The maximum that wait4 reports is not used: it also
// counts what this process had resident when it started the other.
func memory(pid int) (peak, now int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	peak, now = -1, -1
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		number, isKB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if !isKB {
			continue
		}
		kb, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "VmHWM":
			peak = kb << 10
		case "VmRSS":
			now = kb << 10
		}
	}
	if peak < 0 || now < 0 {
		return 0, 0, fmt.Errorf("process %d: no memory figures", pid)
	}
	return peak, now, nil
}

// ownCPU returns the user and system time of this process so far, all threads.
func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// cpuOf returns the user and system time of another process, to the clock tick.
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses and may hold spaces. utime and stime
	// are fields 14 and 15 of proc_pid_stat(5), so 12 and 13 after it, counted from 1.
	_, rest, found := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, fmt.Errorf("process %d: unexpected stat line", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * clockTick, nil
}

// monotonic returns a time that all processes of this machine agree on and nobody sets.
func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// ownPeak returns the peak resident memory of this process in bytes.
func ownPeak() (int64, error) {
	peak, _, err := memory(os.Getpid())
	return peak, err
}
