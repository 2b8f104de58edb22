// Package signer makes a crypto.Signer of a process that holds the key: a token, an HSM, a key
// service or an agent of one's own, behind one small protocol over standard input and output that
// docs/spec/signer.md describes.
//
// It guarantees that a signature is returned only after it was verified, with the key that the process
// had at first, over exactly what was asked for: a signer that errs or lies can refuse, and
// nothing else. The process is started once, is asked one thing at a time within a deadline, is ended and
// started again (at growing pauses) when it ends, hangs or breaks the protocol, and is ended by Close.
// Its command is run as it stands and never by a shell; its standard error goes to who started us.
//
// Every failure is a *problem.Error of code signer-failed with a remedy, or bad-config for a command that
// cannot be one. It starts no goroutine of its own. All methods may be called concurrently.
package signer

import (
	"context"
	"crypto"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// SignTime is how long a signer may take for one answer, for somebody may have to touch a token; and how
	// long a caller waits for its turn.
	SignTime = 30 * time.Second
	// StopTime is how long a signer may take to end when its standard input has ended.
	StopTime = 2 * time.Second

	firstPause   = time.Second
	longestPause = time.Minute
)

// Config says which process signs. Command is required.
type Config struct {
	// Command is the program and its arguments. The program is an absolute path, or a name that is looked for
	// in PATH; it runs in our own working directory.
	Command []string
	// Env is the process's environment; nil is our own.
	Env []string
	// Stderr takes what the process writes to its standard error; nil is nowhere.
	Stderr io.Writer
	// OnFailure is told of each failure of Sign. TLS hides why a handshake was not signed, so that
	// this is the one way to hear of it. Optional.
	OnFailure func(error)

	signTime time.Duration // for tests; 0 is SignTime
}

// A Signer is a key in another process. It is a crypto.Signer for Ed25519, ECDSA on P-256 and P-384, and RSA with PSS.
type Signer struct {
	conf   Config
	pub    crypto.PublicKey
	label  string
	turn   chan struct{} // holds one: whose turn it is; guards what follows up to mu
	pause  *backoff.ExponentialBackOff
	fails  int       // without a success between
	rest   time.Time // not started again before
	mu     sync.Mutex
	p      *process      // nil is none; written with turn and mu, read with either
	closed chan struct{} // closed with mu
}

var _ crypto.Signer = (*Signer)(nil)

// CheckCommand refuses with problem.BadConfig a command that cannot be a signer's.
func CheckCommand(command []string) error {
	if len(command) == 0 || command[0] == "" {
		return problem.New(problem.BadConfig, "The signer's command is empty.")
	}
	if name := command[0]; !filepath.IsAbs(name) && strings.ContainsRune(name, filepath.Separator) {
		return problem.New(problem.BadConfig, "The signer's program must be an absolute path, or a name that is looked for in PATH.")
	}
	return nil
}

// Open starts the process and asks it for its key. Close must be called. It fails with problem.SignerFailed if
// there is no good answer within SignTime or before ctx ends.
func Open(ctx context.Context, conf Config) (*Signer, error) {
	if err := CheckCommand(conf.Command); err != nil {
		return nil, err
	}
	if conf.signTime == 0 {
		conf.signTime = SignTime
	}
	s := &Signer{
		conf: conf, turn: make(chan struct{}, 1), closed: make(chan struct{}),
		pause: backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstPause), backoff.WithMaxInterval(longestPause), backoff.WithMaxElapsedTime(0)),
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	defer context.AfterFunc(ctx, s.shut)() // at once, if ctx has ended
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Public returns the key, as the process said it at first.
func (s *Signer) Public() crypto.PublicKey { return s.pub }

// Label returns where the process says that the key is, such as "slot 9a of token 123"; it may be empty. It is printable.
func (s *Signer) Label() string { return s.label }

// Sign has the process sign, and verifies what it returns. As crypto.Signer wants it, digest is the message itself for
// Ed25519. RSA signs with PSS alone, and with a salt as long as the hash. A process that has ended since the last
// call is started again, and asked once more.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.sign(digest, opts)
	if err != nil && s.conf.OnFailure != nil {
		s.conf.OnFailure(err)
	}
	return sig, err
}

func (s *Signer) sign(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	job, err := jobOf(s.pub, digest, opts)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(s.conf.signTime)
	defer late.Stop()
	select {
	case s.turn <- struct{}{}:
	case <-late.C:
		return nil, failed("It is busy with other signatures.", "The signer process did not get to this signature within %s", s.conf.signTime)
	case <-s.closed:
		return nil, errClosed()
	}
	defer func() { <-s.turn }()
	reused := s.p != nil
	sig, err := s.once(job)
	if reused && errors.Is(err, errEnded) {
		sig, err = s.once(job) // it may have ended long ago, which only asking tells
	}
	return sig, err
}

// once asks the process, started if need be, for one signature. It is called in turn.
func (s *Signer) once(job job) ([]byte, error) {
	if s.p == nil {
		if err := s.start(); err != nil {
			return nil, err
		}
	}
	a, err := s.p.ask(job.request, s.conf.signTime)
	switch {
	case err != nil && s.isClosed():
		return nil, errClosed()
	case err != nil:
		return nil, s.broken(err)
	}
	switch {
	case a.Error != "": // a refusal breaks nothing
		s.well()
		return nil, failed("Look at what the signer says on standard error, and try it with 'consign signer check'.", "The signer process refused to sign: %s", sentence(a.Error))
	case len(a.Signature) == 0:
		return nil, s.broken(offence("its answer holds no signature"))
	case !job.verify(s.pub, a.Signature):
		return nil, s.broken(failed("Check which key the signer process uses; nothing that it returned was used.",
			"The signer process returned a signature that is not its key's over what was to be signed"))
	}
	s.well()
	return a.Signature, nil
}

// well notes that the process works. It is called in turn.
func (s *Signer) well() {
	s.fails = 0
	s.pause.Reset()
}

// start starts the process and compares its key with the one of before. It is called in turn.
func (s *Signer) start() error {
	if s.isClosed() {
		return errClosed()
	}
	if wait := time.Until(s.rest); wait > 0 {
		return failed("Look at what it says on standard error, and try it with 'consign signer check'.",
			"The signer process failed and is not started again before %s have passed", wait.Round(time.Second/10))
	}
	p, err := startProcess(s.conf)
	if err != nil {
		return s.broken(err)
	}
	s.mu.Lock()
	s.p = p
	if s.isClosed() {
		p.interrupt()
	}
	s.mu.Unlock()
	a, err := p.ask(request{Do: doKey}, s.conf.signTime)
	if err == nil && a.Error != "" {
		err = failed("", "The signer process has no key to use: %s", sentence(a.Error))
	}
	if err != nil {
		return s.broken(err)
	}
	pub, err := parseKey(a.Key)
	if err != nil {
		return s.broken(err)
	}
	if s.pub == nil {
		s.pub, s.label = pub, certs.Printable(a.Label, maxLabel)
		return nil
	}
	if !equalKeys(s.pub, pub) {
		return s.broken(failed("Let it use the key of before, or start this program again to use the new one with its own certificate.",
			"The signer process was started again and has another key than before"))
	}
	return nil
}

// broken ends the process, puts its next start off, and returns err. It is called in turn.
func (s *Signer) broken(err error) error {
	s.mu.Lock()
	p := s.p
	s.p = nil
	s.mu.Unlock()
	if p != nil {
		p.kill()
	}
	// One that ended after it had worked is started at once, and not again and again.
	if s.fails++; s.fails > 1 || !errors.Is(err, errEnded) {
		s.rest = time.Now().Add(s.pause.NextBackOff())
	}
	return err
}

func (s *Signer) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// shut lets nobody begin anymore, and whoever waits for the process go on at once.
func (s *Signer) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isClosed() {
		close(s.closed)
	}
	if s.p != nil {
		s.p.interrupt()
	}
}

// Close ends the process: its standard input ends, and after StopTime it is killed. Calls of Sign fail from now on.
// It is idempotent.
func (s *Signer) Close() {
	s.shut()
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	p := s.p
	s.p = nil
	s.mu.Unlock()
	if p != nil {
		p.stop()
	}
}

// failed is a problem of the signer with its own remedy; that of the table if remedy is empty.
func failed(remedy, format string, args ...any) error {
	e := problem.As(problem.New(problem.SignerFailed, format, args...))
	e.Remedy = remedy
	return e
}

func errClosed() error { return failed("", "The signer process was ended, because this program ends") }
