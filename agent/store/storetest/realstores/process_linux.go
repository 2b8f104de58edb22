package realstores

import "syscall"

// childAttr keeps a terminal's Ctrl-C from a server, whose owner decides when
// it ends, and lets it end when the owner was killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
