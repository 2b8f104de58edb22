package certs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ReplaceFile writes a file as a whole, or leaves it as it was, also when the machine stops.
func ReplaceFile(file string, data []byte, mode fs.FileMode) error {
	return placeFile(file, data, mode, os.Rename)
}

// CreateFile makes a file that must not exist, whole or not at all. Of any number of callers one succeeds;
// the others get fs.ErrExist, and what they wrote is nowhere.
func CreateFile(file string, data []byte, mode fs.FileMode) error {
	return placeFile(file, data, mode, func(staged, file string) error {
		// Link, not Rename: Rename would silently replace what is there.
		return errors.Join(os.Link(staged, file), os.Remove(staged))
	})
}

// placeFile stages data beside file and has place give it its name. Nothing of it is left if that fails.
func placeFile(file string, data []byte, mode fs.FileMode, place func(staged, file string) error) (err error) {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it may have gone; the failure above is what is told
		}
	}()
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name(), file); err != nil {
		return err
	}
	// Durable from here.
	return SyncDir(dir)
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
