package issue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// appendLine adds one line to a file, durably, in one write, so that lines of several processes do not
// mix. The file must exist, unless how is os.O_CREATE.
func appendLine(file string, line []byte, how int) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|how, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.Write(append(line, '\n'))
	return errors.Join(werr, f.Sync(), f.Close())
}

// createDir makes a directory of mode 0700 with private files and empty directories in it, by renaming: it
// is there whole or not at all. One that exists and is not empty is problem.Conflict.
func createDir(dir string, files map[string][]byte, dirs ...string) (err error) {
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+"-*")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	for name, data := range files {
		if err := certs.CreateFile(filepath.Join(tmp, name), data, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	for _, name := range dirs {
		if err := os.Mkdir(filepath.Join(tmp, name), 0o700); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	if err := certs.SyncDir(tmp); err != nil {
		return fmt.Errorf("making a folder durable: %w", err)
	}
	if st, err := os.Lstat(dir); err == nil && st.IsDir() {
		if err := os.Remove(dir); err != nil { // only an empty one goes
			return problem.Wrap(err, problem.Conflict, "There is already something in this folder.")
		}
	}
	if err := os.Rename(tmp, dir); errors.Is(err, fs.ErrExist) {
		return problem.Wrap(err, problem.Conflict, "There is already something in this folder.")
	} else if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	// Durable from here.
	return certs.SyncDir(parent)
}
