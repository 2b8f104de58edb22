package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Open returns the directory at path as an FS. The path itself may lead through
// symbolic links: it is the operator's. It must be a directory.
func Open(path string) (FS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening directory %q: %w", path, err)
	}
	d := &linuxDir{handle: handle{fd: fd}}
	probe, err := d.OpenDir(".")
	if err == nil {
		err = probe.Close()
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// A kernel before 5.6, or a sandbox that does not know openat2.
		return openFallback(d, path)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func openFallback(d *linuxDir, path string) (FS, error) {
	if err := d.Close(); err != nil {
		return nil, err
	}
	return OpenPortable(path)
}
