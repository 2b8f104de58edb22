// Command consign is the whole of Consign in one binary: the subscriber's tools
// (cp, ls, mkdir, stat, transfer, receipt, provider), the two daemons (broker, agent), the small
// certificate authority (ca) and a demonstration that runs all of them (demo).
//
// It guarantees that data goes to standard output and everything else to
// standard error, that every failure ends with one sentence, a remedy and a stable
// code, and that the exit status is one of the table in 'consign help exit-codes'.
//
// It decides nothing: rules are in token, state is in broker and agent. Only main
// exits the process; run is the program as a function.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ(),
	})
	stop()
	os.Exit(code)
}
