package localnet

import (
	"os"
	"syscall"
)

// ownGroup keeps a terminal's Ctrl-C from the daemons, so that their owner
// decides in which order they end.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func peakOf(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}
