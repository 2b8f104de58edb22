package localnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ReadyWithin is how long a daemon may take until it answers /readyz with 200.
const ReadyWithin = 30 * time.Second

// A Proc is one daemon. Its methods may be called concurrently.
type Proc struct {
	Name string
	Log  string // file that its standard error is appended to, over all its lives

	binary, admin string
	args          []string

	mu   sync.Mutex // guards cmd, done, peak, seen
	cmd  *exec.Cmd
	done chan struct{} // closed when the present life has been waited for
	peak int64
	seen bool // the present life's peak was noted while it ran
}

func (n *Net) proc(name, admin string, args ...string) *Proc {
	p := &Proc{Name: name, Log: filepath.Join(n.Dir, name+".log"), binary: n.Binary, admin: admin, args: args}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.procs = append(n.procs, p)
	return p
}

// Start starts the daemon and returns when it is ready. There are three
// outcomes: nil, it runs; an error that holds the end of its log, it ended; an
// error, it was not ready in time and was ended.
func (p *Proc) Start(ctx context.Context) error {
	if err := p.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ReadyWithin)
	defer cancel()
	if err := p.awaitReady(ctx); err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

func (p *Proc) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("%s is already running", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.binary, p.args...) //nolint:gosec,noctx // our own program; its life is Kill's and Stop's, not a context's
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done, p.seen = cmd, done, false
	go func() { // ends when the process does; Kill and Stop wait for it
		defer close(done)
		_ = cmd.Wait() // a killed process is the ordinary case here
		p.notePeak(cmd.ProcessState)
	}()
	return nil
}

// awaitReady polls the admin listener.
func (p *Proc) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.ready(ctx) {
			return nil
		}
		select {
		case <-p.ended():
			return fmt.Errorf("%s ended at its start:\n%s", p.Name, p.Tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready in time:\n%s", p.Name, p.Tail(20))
		case <-tick.C:
		}
	}
}

func (p *Proc) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// Metrics returns what the daemon says at /metrics.
func (p *Proc) Metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/metrics", nil)
	if err != nil {
		return "", fmt.Errorf("asking %s for metrics: %w", p.Name, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking %s for metrics: %w", p.Name, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return "", fmt.Errorf("reading the metrics of %s: %w", p.Name, err)
	}
	return string(b), nil
}

// Kill ends the daemon with SIGKILL and waits. One that does not run is fine.
func (p *Proc) Kill() error { return p.signal(syscall.SIGKILL, 0) }

// Stop asks the daemon to end with SIGTERM, waits up to 20 s, and kills it then.
func (p *Proc) Stop() error { return p.signal(syscall.SIGTERM, 20*time.Second) }

// signal sends sig; if the process lives after patience (0: for ever), it is killed.
func (p *Proc) signal(sig os.Signal, patience time.Duration) error {
	p.mu.Lock()
	cmd, done, running := p.cmd, p.done, p.running()
	if running {
		n := livePeak(cmd.Process.Pid)
		p.peak, p.seen = max(p.peak, n), n > 0
	}
	p.mu.Unlock()
	if !running {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling %s: %w", p.Name, err)
	}
	if patience == 0 {
		<-done
		return nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		err := fmt.Errorf("%s did not stop within %v and was killed", p.Name, patience)
		return errors.Join(err, p.Kill())
	}
}

// Reload has the daemon look at its certificate files now (SIGHUP), and does not wait for it.
func (p *Proc) Reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return p.cmd.Process.Signal(syscall.SIGHUP)
}

// Running reports whether the daemon runs.
func (p *Proc) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// PID returns the process id of the present life, or of the last.
func (p *Proc) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Peak returns the largest resident size, in bytes, over all ended lives: on Linux as it was when Kill or Stop was called.
func (p *Proc) Peak() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peak
}

func (p *Proc) notePeak(s *os.ProcessState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.seen {
		p.peak = max(p.peak, peakOf(s))
	}
}

// Tail returns the last n lines of the log.
func (p *Proc) Tail(n int) string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// running is called with mu held.
func (p *Proc) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *Proc) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// A Result is what one run of the command line left.
type Result struct {
	Stdout, Stderr string
	Exit           int
}

// Run runs the program once with the configuration file of a subscriber, or
// with none if config is empty. An exit status other than 0 is an error that
// holds what was written to standard error; the Result is filled all the same.
func (n *Net) Run(ctx context.Context, config string, args ...string) (Result, error) {
	if config != "" {
		args = append([]string{"--config", config}, args...)
	}
	cmd := exec.CommandContext(ctx, n.Binary, args...) //nolint:gosec // our own program
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errOut.String(), Exit: cmd.ProcessState.ExitCode()}
	if err != nil {
		return r, fmt.Errorf("running %q: %w: %s", args, err, strings.TrimSpace(r.Stderr))
	}
	return r, nil
}
