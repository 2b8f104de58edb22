package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// session returns the session with the broker id, nil if it is not configured.
func (a *Agent) session(id token.Identity) *session {
	for _, s := range a.sessions {
		if s.id() == id {
			return s
		}
	}
	return nil
}

// enlist takes b among the live batches if there is a slot for it. A broker keeps to the slots by itself; one that has lost
// sight of us for a while may give as many again before it hears what we hold, and no more.
func (a *Agent) enlist(b *batch, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.batches[b.key] != nil {
		return problem.New(problem.Conflict, "Batch %d of transfer %s is already under way with another manifest", b.key.bat, b.key.xfr)
	}
	busy, resting := 0, 0
	for k, other := range a.batches {
		switch {
		case k.do != b.key.do || other.isSigned() || other.dropCtx.Err() != nil:
		case other.rests(now):
			resting++
		default:
			busy++
		}
	}
	if resting >= maxResting {
		return problem.New(problem.Overloaded, "The agent keeps %d batches that are paused or wait for a capability", resting)
	}
	if busy >= 2*a.conf.Slots {
		return problem.New(problem.Overloaded, "The agent has %d slots and more batches than that", a.conf.Slots)
	}
	a.limit(b)
	a.batches[b.key] = b
	return nil
}

// discharge forgets a batch that has ended.
func (a *Agent) discharge(b *batch) {
	a.mu.Lock()
	delete(a.batches, b.key)
	a.mu.Unlock()
	b.drop() // releases its context
}

// of returns the live batches of a broker, in order of their keys; of every broker if iss is empty.
func (a *Agent) of(iss token.Identity) []*batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	var bs []*batch
	for _, b := range a.batches {
		if iss == "" || b.key.iss == iss {
			bs = append(bs, b)
		}
	}
	slices.SortFunc(bs, func(x, y *batch) int {
		switch {
		case x.key.String() < y.key.String():
			return -1
		case x.key.String() > y.key.String():
			return 1
		}
		return 0
	})
	return bs
}

// recalled returns the batches that Open found.
func (a *Agent) recalled() []*batch { return a.of("") }

// held names the batches of a broker in our journals.
func (a *Agent) held(iss token.Identity) []api.Ref {
	refs := []api.Ref{}
	for _, b := range a.of(iss) {
		if ref := b.key.ref(); !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// busy reports whether a batch of the broker is being worked on.
func (a *Agent) busy(iss token.Identity) bool {
	return slices.ContainsFunc(a.of(iss), func(b *batch) bool { return !b.isSigned() })
}

// progress is what a beat says.
func (a *Agent) progress(iss token.Identity) []api.Progress {
	ps := []api.Progress{}
	for _, b := range a.of(iss) {
		ps = append(ps, b.progress())
	}
	return ps
}

// drop ends our work on a batch that the broker has ended. What became of its items so far is signed and posted.
func (a *Agent) drop(s *session, ref api.Ref) {
	for _, b := range a.of(s.id()) {
		if b.key.ref() == ref && b.dropCtx.Err() == nil {
			b.log.Info("the broker has ended the batch")
			b.drop()
		}
	}
}

// redelivered reports whether t is about a batch that is under way already. The peer may have
// moved, the rate may be another one, and a new lease brings a new generation; a task that is not the same is no redelivery.
func (a *Agent) redelivered(s *session, t api.Task) bool {
	if t.Kind != api.ReceiveTask && t.Kind != api.ServeTask {
		return false
	}
	hash := token.HashOf(t.Manifest)
	for _, b := range a.of(s.id()) {
		if b.hash != hash || b.key.bat != t.Bat || (b.key.do == token.Create) != (t.Kind == api.ReceiveTask) {
			continue
		}
		g, err := a.verifyGrant(s, b.bill, t.Capability, t.Present, t.Peer.ID, time.Now())
		if err == nil {
			err = errors.Join(b.readdress(g, t.Peer), b.throttle(t.Rate))
		}
		if err != nil {
			b.log.Debug("a redelivered task brings nothing new", zap.Error(err))
		}
		return true
	}
	return false
}

// readdress takes over what a redelivered task brings. The peer itself never changes.
func (b *batch) readdress(g grant, peer api.Peer) error {
	b.mu.Lock()
	same, newer := b.peer.ID == peer.ID, g.Claims.Gen > b.cur.Claims.Gen
	if same {
		b.peer.Listen = peer.Listen
	}
	b.mu.Unlock()
	if !same || !newer {
		return nil
	}
	return b.renewed(g)
}

// ownLeaf returns leaf if it is that of our certificate or of one that we have shown to a broker not long ago, and ours
// otherwise: the broker binds a capability to the certificate of our newest call, which may be from before a renewal.
func (a *Agent) ownLeaf(leaf token.Hash) token.Hash {
	own := a.conf.Pair.LeafHash()
	a.shown(own)
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.leaves, leaf) {
		return leaf
	}
	return own
}

// shown notes that a certificate is ours.
func (a *Agent) shown(leaf token.Hash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.leaves, leaf) {
		return
	}
	a.leaves = append(a.leaves, leaf)
	if len(a.leaves) > maxLeaves {
		a.leaves = a.leaves[1:]
	}
}

// dialBroker makes the client of a broker, which notes each certificate that the broker sees.
func (h hooks) dialBroker(a *Agent, b Broker) control {
	if h.broker != nil {
		return h.broker(b)
	}
	conf := certs.BrokerClient(a.conf.Pair, a.conf.Trust, b.ID)
	show := conf.GetClientCertificate
	conf.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := show(r)
		if err == nil && len(c.Certificate) > 0 {
			a.shown(token.HashOf(c.Certificate[0]))
		}
		return c, err
	}
	return api.NewClient(b.URL, conf)
}

// quickly shortens a wait in tests.
func (a *Agent) quickly(d time.Duration) time.Duration {
	if a.conf.hooks.quick {
		return d / 100
	}
	return d
}

// patience is how long a peer may take to answer. In quick tests it stays long enough for a busy machine not to look like a dead peer.
func (a *Agent) patience() time.Duration {
	if a.conf.hooks.quick {
		return answerTime / 10
	}
	return answerTime
}

// backoff waits from least to most, with jitter, for ever.
func (a *Agent) backoff(least, most time.Duration) backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.MaxElapsedTime = a.quickly(least), a.quickly(most), 0
	b.Reset()
	return b
}

// sleep returns after d, or earlier with the error of ctx.
func (a *Agent) sleep(ctx context.Context, d time.Duration) error { return a.sleepOr(ctx, d, nil) }

// sleepOr is sleep that also ends when early is closed.
func (a *Agent) sleepOr(ctx context.Context, d time.Duration, early <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-early:
	case <-t.C:
	}
	return nil
}

// nextHello is closed when the broker has welcomed us again.
func (s *session) nextHello() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.greeted
}

// readFile reads a whole small file.
func readFile(dir disk.FS, name string, limit int64) ([]byte, error) {
	f, err := dir.OpenFile(name, disk.Read)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size > limit {
		return nil, fmt.Errorf("%q is larger than %d bytes", name, limit)
	}
	data := make([]byte, st.Size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return data, nil
}

// writeFile replaces a whole small file, durably.
func writeFile(dir disk.FS, name string, data []byte) error {
	fresh := name + ".new"
	if err := dir.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(fresh, disk.Create)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := dir.Rename(fresh, name); err != nil {
		return err
	}
	return dir.Sync() // Durable from here.
}
