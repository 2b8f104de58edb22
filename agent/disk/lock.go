package disk

import "errors"

// ErrLocked is the outcome of Lock when another process, or another place in this one, holds the lock.
var ErrLocked = errors.New("disk: another process has it")
