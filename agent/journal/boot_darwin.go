package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// BootID names this boot of the machine. Empty means that it has no name, and then
// nothing that was not committed counts.
func BootID() (string, error) {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return id, nil
}
