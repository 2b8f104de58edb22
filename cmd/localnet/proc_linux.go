package localnet

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ownGroup keeps a terminal's Ctrl-C from the daemons, so that their owner
// decides in which order they end.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// livePeak returns the largest resident size of a process that runs, in bytes, or 0 if that is not known.
func livePeak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib << 10
}

// peakOf is that of a process that has ended, which is at least ours when we started it: the kernel hands it down.
func peakOf(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}
