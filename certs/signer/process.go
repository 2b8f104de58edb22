package signer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// errEnded is the cause of failures where the process is gone.
var errEnded = errors.New("the process ended")

// A process is one life of a signer. Only interrupt may be called concurrently.
type process struct {
	cmd  *exec.Cmd
	in   *os.File // its standard input
	out  *os.File // its standard output
	r    *bufio.Reader
	last int64 // number of the last request

	mu   sync.Mutex // guards over
	over bool       // nobody waits for an answer anymore
}

func startProcess(conf Config) (*process, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, notStarted(err)
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inW.Close()
		return nil, notStarted(err)
	}
	defer outW.Close()
	cmd := exec.Command(conf.Command[0], conf.Command[1:]...) //nolint:gosec,noctx // the operator's own command; its life is Close's
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = inR, outW, conf.Stderr, conf.Env
	cmd.WaitDelay = StopTime // a grandchild that keeps standard error does not keep us
	if err := cmd.Start(); err != nil {
		inW.Close()
		outR.Close()
		return nil, notStarted(err)
	}
	return &process{cmd: cmd, in: inW, out: outR, r: bufio.NewReaderSize(outR, MaxAnswerSize)}, nil
}

func notStarted(err error) error {
	return &problem.Error{
		Code: problem.SignerFailed, Cause: err, Detail: "The signer process cannot be started",
		Remedy: "Check the program that the setting signer names, and that it may be run.",
	}
}

// ask sends one request and returns the answer to it. After an error the process is of no more use.
func (p *process) ask(r request, within time.Duration) (answer, error) {
	p.last++
	r.V, r.ID = Version, p.last
	line, err := json.Marshal(r)
	if err != nil {
		return answer{}, problem.Wrap(err, problem.Internal, "The request to the signer cannot be encoded")
	}
	if err := p.within(within); err != nil {
		return answer{}, silent(err, within)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return answer{}, silent(err, within)
	}
	line, err = p.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return answer{}, offence("an answer is longer than its limit")
	case err != nil:
		return answer{}, silent(err, within)
	}
	a, err := parseAnswer(line)
	if err != nil {
		return answer{}, err
	}
	if a.ID != p.last {
		return answer{}, offence("an answer came that is not to the request")
	}
	return a, nil
}

// within sets the deadline of one exchange.
func (p *process) within(d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return errEnded
	}
	end := time.Now().Add(d)
	return errors.Join(p.in.SetWriteDeadline(end), p.out.SetReadDeadline(end))
}

// silent says why there is no answer: it took too long, or the process is gone.
func silent(err error, within time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failed("See whether it waits for somebody, for a touch or a PIN, and try it with 'consign signer check'.",
			"The signer process did not answer within %s", within)
	}
	return &problem.Error{
		Code: problem.SignerFailed, Cause: fmt.Errorf("%w: %w", errEnded, err), Detail: "The signer process ended instead of answering",
		Remedy: "Look at what it said on standard error, and try it with 'consign signer check'.",
	}
}

// offence is a breach of the protocol.
func offence(what string) error {
	return failed("Compare the signer with docs/spec/signer.md; nothing but answers may be on its standard output.", "The signer process broke the protocol: %s", what)
}

// interrupt ends the exchange that is under way, and allows none anymore.
func (p *process) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	past := time.Unix(1, 0)
	_ = errors.Join(p.in.SetWriteDeadline(past), p.out.SetReadDeadline(past)) // a file that is closed waits for nothing
}

// stop ends the process as the protocol says, and waits for it.
func (p *process) stop() {
	p.in.Close()
	late := time.AfterFunc(StopTime, func() { _ = p.cmd.Process.Kill() }) // one that has ended is fine
	defer late.Stop()
	p.wait()
}

// kill ends the process at once, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // as above
	p.in.Close()
	p.wait()
}

func (p *process) wait() {
	_ = p.cmd.Wait() // how it ended is told by what it did not answer
	p.out.Close()
}

// parseAnswer reads one line of an answer, which has exactly one of key, signature and error.
func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := strictJSON(line, &a); err != nil {
		return answer{}, offence("a line is not an answer of version 1")
	}
	n := 0
	for _, there := range []bool{len(a.Key) > 0, len(a.Signature) > 0, a.Error != ""} {
		if there {
			n++
		}
	}
	if a.V != Version || n != 1 {
		return answer{}, offence("a line is not an answer of version 1")
	}
	return a, nil
}

// strictJSON decodes one JSON value without members that v does not have.
func strictJSON(line []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the value")
	}
	return nil
}
