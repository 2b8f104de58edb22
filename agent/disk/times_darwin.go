package disk

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setTime keeps microseconds, which is what futimes(2) takes.
func setTime(fd int, mtime time.Time) error {
	tv := unix.NsecToTimeval(mtime.UnixNano())
	return unix.Futimes(fd, []unix.Timeval{tv, tv})
}

func statTimes(st *syscall.Stat_t) (mtime, ctime time.Time) {
	return time.Unix(st.Mtimespec.Unix()).UTC(), time.Unix(st.Ctimespec.Unix()).UTC()
}
