package certs

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

// A source is a file that is looked at again and again. It remembers what of it is in use.
type source struct {
	file string
	seen os.FileInfo // of what is in use
	sum  [sha256.Size]byte
}

// A reading is what a source holds that is not in use yet.
type reading struct {
	data []byte
	seen os.FileInfo
}

// read returns the content of the file, of at most limit bytes, if that is another than what is in use, and
// nil if it is not.
func (s *source) read(limit int64) (*reading, error) {
	seen, err := os.Stat(s.file)
	if err != nil {
		return nil, err
	}
	if unchanged(s.seen, seen) {
		return nil, nil
	}
	data, err := readUpTo(s.file, limit)
	if err != nil {
		return nil, err
	}
	if s.seen != nil && sha256.Sum256(data) == s.sum {
		s.seen = seen
		return nil, nil
	}
	return &reading{data: data, seen: seen}, nil
}

// use notes that what was read is in use. What was not used is read again the next time.
func (s *source) use(r *reading) { s.seen, s.sum = r.seen, sha256.Sum256(r.data) }

// readFile reads a file of at most MaxFileSize bytes.
func readFile(file string) ([]byte, error) { return readUpTo(file, MaxFileSize) }

func readUpTo(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("reading %s: more than %d bytes", file, limit)
	}
	return data, nil
}

// unchanged reports whether two looks at a file saw the same inode, size and mtime.
func unchanged(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
