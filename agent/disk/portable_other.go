//go:build !linux && !darwin

package disk

import (
	"errors"
	"fmt"
	"runtime"
)

// OpenPortable is not there on this system: the package needs inode numbers and
// change times, which it does not know how to get here.
func OpenPortable(string) (FS, error) {
	return nil, fmt.Errorf("opening a directory on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
