//go:build !linux

package disk

// Open returns the directory at path as an FS. The path itself may lead through
// symbolic links: it is the operator's. It must be a directory.
func Open(path string) (FS, error) { return OpenPortable(path) }
