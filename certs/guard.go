package certs

import (
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// recheckEvery is how often a peer is judged anew although nothing has changed but the time.
const recheckEvery = time.Minute

// Guard waits until a connection to p must be closed, and returns why: at until, which Deadline gives, or when p is not
// good any more or is somebody else, because of the time, a list, or whatever else came into use. It returns nil when
// done is closed first. TLS itself never judges a peer again; who keeps a connection open keeps a Guard over it.
func (t *Trust) Guard(done <-chan struct{}, p Peer, until time.Time) error {
	end := time.NewTimer(time.Until(until))
	defer end.Stop()
	again := time.NewTicker(recheckEvery)
	defer again.Stop()
	for {
		changed := t.Changed()
		id, err := t.Verify(p.Chain, time.Now())
		if err != nil {
			return err
		}
		if id != p.Identity {
			return problem.New(problem.CertMismatch, "The certificate of %s names somebody else now.", p.Identity)
		}
		select {
		case <-done:
			return nil
		case <-end.C:
			return problem.New(problem.CertExpired, "The connection has come to the end of a certificate or of its own time; it can be made again.")
		case <-changed:
		case <-again.C:
		}
	}
}
