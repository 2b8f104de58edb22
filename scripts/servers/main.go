// Command servers installs the real servers that tests talk to, each of
// the exact version that agent/store/storetest/realstores names, below the user's
// cache directory. What is there already is left alone, so that a second run
// downloads and builds nothing. It exits with a status other than 0 if one is
// missing in the end; it leaves none out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := installer{out: os.Stdout, build: build}.all(ctx, realstores.Recipes())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

// An installer installs programs. Any number may do so at the same time.
type installer struct {
	out   io.Writer
	build func(ctx context.Context, r realstores.Recipe, dir string) error // the program of r into dir, an empty folder
}

// all installs what is missing, one after the other, because each build keeps
// all processors busy. It tries every one, and returns all errors.
func (in installer) all(ctx context.Context, recipes []realstores.Recipe) error {
	var errs []error
	for _, r := range recipes {
		if err := in.one(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s %s could not be installed: %w", r.Name, r.Version, err))
		}
	}
	return errors.Join(errs...)
}

func (in installer) one(ctx context.Context, r realstores.Recipe) error {
	if program, err := r.Installed(); err == nil {
		in.say("%s %s is here: %s", r.Name, r.Version, program)
		return nil
	}
	dir, err := r.Dir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	unlock, err := in.lock(ctx, r, hidden(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if program, err := r.Installed(); err == nil {
		in.say("%s %s was installed by another run: %s", r.Name, r.Version, program)
		return nil
	}
	if err := clear(dir); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(hidden(dir, "new-")))
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // the next run clears it
	in.say("installing %s %s (%s, %s)", r.Name, r.Version, r.Tool, r.Package)
	began := time.Now()
	if err := in.build(ctx, r, tmp); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(tmp, filepath.FromSlash(r.Program))); err != nil {
		return fmt.Errorf("%s installed something else: %w", r.Tool, err)
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.Rename(tmp, dir)); err != nil {
		return err
	}
	in.say("installed %s %s in %.0f s: %s", r.Name, r.Version, time.Since(began).Seconds(), dir)
	return nil
}

func (in installer) say(format string, args ...any) {
	fmt.Fprintf(in.out, "servers: "+format+"\n", args...)
}

// lock waits until no other run installs r.
func (in installer) lock(ctx context.Context, r realstores.Recipe, file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", file, err), f.Close())
		}
		if first {
			in.say("%s %s is being installed by another run; waiting", r.Name, r.Version)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}

// clear removes what runs that were killed have left beside dir, and dir
// itself, which is not complete. The lock of dir is held.
func clear(dir string) error {
	left, err := filepath.Glob(hidden(dir, "new-*"))
	if err != nil {
		return err
	}
	for _, l := range append(left, dir) {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	return nil
}

// hidden returns the path of a hidden file beside dir.
func hidden(dir, suffix string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+"."+suffix)
}

// build runs the tool of a recipe.
func build(ctx context.Context, r realstores.Recipe, dir string) error {
	if r.Tool == realstores.NPM {
		if err := run(ctx, dir, "npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", dir, r.Package+"@"+r.Version); err != nil {
			return err
		}
		// npm installs for a Node that is too old and only warns.
		return run(ctx, dir, "node", filepath.Join(dir, filepath.FromSlash(r.Program)), "--version")
	}
	// Two compilers at once, however many processors there are: the largest packages take a gigabyte each.
	return run(ctx, dir, "go", "install", "-p=2", "-trimpath", "-ldflags=-s -w", r.Package+"@"+r.Version)
}

// run runs one command in dir. Its output is shown only if it fails.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // a tool of ours
	cmd.Dir = dir
	// The settings of a checkout around us, or for another machine, are not for these.
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS=", "GOARCH=")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not in the PATH; %s, then run `make servers` again", name, remedy(name))
	}
	if err != nil {
		return fmt.Errorf("`%s %s` failed (%w); if it is the network, run `make servers` again; it said:\n%s",
			name, strings.Join(args, " "), err, tail(string(out)))
	}
	return nil
}

func remedy(tool string) string {
	if tool == "go" {
		return "install Go"
	}
	return "install Node.js with npm (Debian: apt-get install nodejs npm)"
}

// tail returns the last lines of what a command said.
func tail(out string) string {
	const most = 30
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
