package realstores

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// StartWithin is how long a server may take until it answers.
	StartWithin = 60 * time.Second
	// StopWithin is how long a server may take to end when it is asked to.
	StopWithin = 10 * time.Second

	portTries = 5 // ports that are tried when another program was faster to bind one
	tailBytes = 4 << 10
)

// A Process is a server that was started and has answered. Its methods may be
// called concurrently and again. On Linux it ends with the process that started
// it, also when that is killed.
type Process struct {
	Name string
	Log  string // file of its standard output and error
	Dir  string // everything it keeps is below

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and was waited for
}

// PID returns its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends it with SIGKILL and waits. One that has ended is fine.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

// Stop asks it to end with SIGTERM and waits; if it is not gone in StopWithin, it is
// killed, which is no error. One that has ended is fine.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

func (p *Process) end(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.Name, err)
	}
	late := time.NewTimer(StopWithin)
	defer late.Stop()
	select {
	case <-p.done:
		return nil
	case <-late.C:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.Name, err)
	}
	<-p.done
	return nil
}

// tail returns the end of the log.
func (p *Process) tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-tailBytes):]))
}

// A launch says how a server is started.
type launch struct {
	name  string
	dir   string
	args  func(program, addr string) []string // the whole command line, to listen on addr
	env   []string
	ready func(ctx context.Context, addr string) error // nil when the server that we started answers
}

// start starts a server and returns it with its address, host:port, when it
// answers. ctx bounds the start, not the life. In case of an error nothing
// runs, and the error has the end of the log.
func start(ctx context.Context, l launch) (*Process, string, error) {
	program, err := Find(l.name)
	if err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("making the folder of %s: %w", l.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, StartWithin)
	defer cancel()
	for try := 1; ; try++ {
		addr, err := freePort(ctx)
		if err != nil {
			return nil, "", err
		}
		p, err := l.run(l.args(program, addr))
		if err != nil {
			return nil, "", err
		}
		if err = p.await(ctx, addr, l.ready); err == nil {
			return p, addr, nil
		}
		err = errors.Join(fmt.Errorf("starting %s at %s: %w; its log ends with:\n%s", l.name, addr, err, p.tail()), p.Kill())
		if try == portTries || !strings.Contains(p.tail(), "in use") && !strings.Contains(p.tail(), "EADDRINUSE") {
			return nil, "", err
		}
	}
}

// run starts the process. Its environment is nearly empty, so that nobody's
// settings change what is tested.
func (l launch) run(argv []string) (*Process, error) {
	log := filepath.Join(l.dir, l.name+".log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", l.name, err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // a program of ours to install; its life is Stop's and Kill's, not a context's
	cmd.Dir = l.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "TMPDIR=" + l.dir}, l.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr()
	p := &Process{Name: l.name, Log: log, Dir: l.dir, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() { // ends with the process; Stop and Kill wait for it
		// Linux ends the child with the thread that started it, so that
		// thread has to be kept for as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", l.name, err)
	}
	return p, nil
}

// await polls until the server answers, has ended, or the time is over.
func (p *Process) await(ctx context.Context, addr string, ready func(context.Context, string) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx, addr)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("no answer in time: %w", err)
		case <-tick.C:
		}
	}
}

// freePort returns an address of loopback that nobody listens on just now.
func freePort(ctx context.Context) (string, error) {
	l, err := listen(ctx)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening on loopback: %w", err)
	}
	return l, nil
}

// secret returns a name that nobody else has, of small letters and digits.
func secret() string { return strings.ToLower(rand.Text()) }
