//go:build linux || darwin

package disk

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// linkFiles links between two open directories, which os.Root cannot.
func linkFiles(from *os.File, name string, to *os.File, newname string) error {
	err := control(from, func(src int) error {
		if from == to {
			return unix.Linkat(src, name, src, newname, 0)
		}
		return control(to, func(dst int) error { return unix.Linkat(src, name, dst, newname, 0) })
	})
	if err != nil {
		return &fs.PathError{Op: "link", Path: newname, Err: err}
	}
	return nil
}
