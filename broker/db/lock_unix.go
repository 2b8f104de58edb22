//go:build unix

package db

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/consign-transfer/consign/token/problem"
)

// takeLock locks the file name for this process until it is closed. The file stays: removing
// it would let two brokers lock two files of one name.
func takeLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the database's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, problem.Wrap(err, problem.BadConfig, "Another broker is using this database; stop it first")
		}
		return nil, fmt.Errorf("locking the database: %w", err)
	}
	return f, nil
}
