package journal

import (
	"fmt"
	"os"
	"strings"
)

// BootID names this boot of the machine. Empty means that it has no name, and then
// nothing that was not committed counts.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
