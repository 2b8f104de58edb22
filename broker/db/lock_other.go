//go:build !unix

package db

import (
	"os"

	"github.com/consign-transfer/consign/token/problem"
)

// takeLock refuses: without a lock that ends with its process, two brokers could share a file.
func takeLock(string) (*os.File, error) {
	return nil, problem.New(problem.BadConfig, "The broker does not run on this operating system")
}
