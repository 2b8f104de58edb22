//go:build !linux

package main

import (
	"context"

	"github.com/consign-transfer/consign/cmd/localnet"
)

// startObedient starts a daemon that the permissions of files bind. The test must not be run by root.
func startObedient(ctx context.Context, p *localnet.Proc) error { return p.Start(ctx) }
