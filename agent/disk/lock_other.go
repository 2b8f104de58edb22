//go:build !unix

package disk

import (
	"errors"
	"io"
)

// Lock is not had here: without a lock that ends with its process, two processes could share a directory.
func Lock(string) (io.Closer, error) { return nil, errors.ErrUnsupported }
