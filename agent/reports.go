package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxTold     = 1024               // reports that are remembered, so that each is made once in a while
	maxUntold   = 4 * api.MaxReports // reports that wait for the broker
	reportAgain = 5 * time.Minute    // after which the same is told again
	reportPause = time.Second        // between calls, so that many reports are one
	maxClaimed  = 16                 // batches of which one refused stranger is told
)

// A reportKey names a report: one of the same batch, refuser and code says nothing new for a while.
type reportKey struct {
	ref      api.Ref
	by       api.Refuser
	code     problem.Code
	stranger bool
}

// reports are what a session has to tell its broker of refused lanes. They are in memory alone: what still holds after a
// restart happens again. Bounded, so that nobody who knocks without end is written down without end.
type reports struct {
	ready chan struct{} // holds one: there is something to tell

	mu   sync.Mutex // guards all below
	told map[reportKey]time.Time
	due  []api.Report
}

func newReports() reports {
	return reports{ready: make(chan struct{}, 1), told: map[reportKey]time.Time{}}
}

// add takes a report in, unless the same was made a short while ago or too many wait already.
func (r *reports) add(p api.Report, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := reportKey{p.Ref, p.By, p.Code, p.Stranger}
	if at, ok := r.told[k]; ok && now.Sub(at) < reportAgain || len(r.due) >= maxUntold {
		return
	}
	if len(r.told) >= maxTold {
		clear(r.told)
	}
	r.told[k] = now
	r.due = append(r.due, p)
	r.poke()
}

func (r *reports) poke() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// take returns what is to be told now.
func (r *reports) take() []api.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.due), api.MaxReports)
	out := r.due[:n:n]
	r.due = r.due[n:]
	return out
}

// giveBack puts what was not taken in front again.
func (r *reports) giveBack(ps []api.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.due = append(ps, r.due...)
	r.poke()
}

// tellReports tells the broker of lanes that were refused until ctx ends. It is not a part of beating: however many knock, the
// broker hears that we live.
func (s *session) tellReports(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.reports.ready:
		}
		s.tell(ctx)
		if s.a.sleep(ctx, s.a.quickly(reportPause)) != nil {
			return
		}
	}
}

// tell tells the broker of what there is to tell now.
func (s *session) tell(ctx context.Context) {
	for {
		ps := s.reports.take()
		if len(ps) == 0 {
			return
		}
		call, cancel := context.WithTimeout(ctx, beatIdle)
		err := s.ctl.Report(call, api.Reports{Reports: ps})
		cancel()
		if err == nil {
			continue
		}
		if ctx.Err() == nil {
			s.log.Debug("the broker did not take reports of refused lanes", zap.Error(err))
		}
		if problem.MayRetry(err) || ctx.Err() != nil {
			s.reports.giveBack(ps)
		}
		return
	}
}

// report tells the broker that a lane between us and the other agent of the batch was refused, if it was for
// want of identity or authority.
func (b *batch) report(by api.Refuser, at api.Stage, err error) {
	if !problem.Denial(problem.Of(err)) {
		return
	}
	_, peer := b.current()
	e := problem.As(err)
	text := e.Sentence()
	if e.Code == problem.CertMismatch {
		text = problem.Lookup(e.Code).Title // ours names who came in the peer's place
	}
	b.s.reports.add(api.Report{Ref: b.key.ref(), Peer: peer.ID, By: by, At: at, Code: e.Code, Detail: text}, time.Now())
}

// reportStranger tells the broker that somebody who is not the other agent came for the batch.
func (b *batch) reportStranger(at api.Stage, code problem.Code) {
	if !problem.Denial(code) {
		return
	}
	_, peer := b.current()
	b.s.reports.add(api.Report{Ref: b.key.ref(), Peer: peer.ID, By: api.BySelf, At: at, Code: code, Detail: problem.Lookup(code).Title, Stranger: true}, time.Now())
}

// watchedServer is conf, whose refusals of diallers are told to the brokers. TLS tells the dialler no more than an alert, so
// that nobody else would know why.
func (a *Agent) watchedServer(conf *tls.Config) *tls.Config {
	judge := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		err := judge(cs)
		if err != nil {
			a.metrics.refusals.WithLabelValues(string(problem.Of(err))).Inc()
			a.refusedDialler(cs.PeerCertificates, err)
		}
		return err
	}
	return conf
}

// refusedDialler tells the brokers of the batches that are served to the agent that a refused certificate names. Whoever names
// nobody that a broker has named to us is not told of.
func (a *Agent) refusedDialler(chain []*x509.Certificate, err error) {
	if len(chain) == 0 {
		return
	}
	claimed, bad := certs.IdentityOf(chain[0])
	if bad != nil {
		return
	}
	for _, b := range a.servedTo(claimed) {
		b.report(api.BySelf, api.AtLane, err)
	}
}

// servedTo returns batches that we serve to an agent, at most maxClaimed.
func (a *Agent) servedTo(peer token.Identity) []*batch {
	a.mu.Lock()
	var all []*batch
	for k, b := range a.batches {
		if k.do == token.Read {
			all = append(all, b)
		}
	}
	a.mu.Unlock()
	var out []*batch
	for _, b := range all {
		if _, with := b.current(); with.ID == peer && len(out) < maxClaimed && !b.isSigned() {
			out = append(out, b)
		}
	}
	return out
}

// hungUp tells the brokers that a dialler has hung up because of our certificate, before it asked for anything.
func (c *caller) hungUp(err error) {
	c.mu.Lock()
	known := len(c.granted) > 0
	c.mu.Unlock()
	if known || !link.ByPeer(err) {
		return // that is how a lane ends with its certificate
	}
	for _, b := range c.a.servedTo(c.peer.Identity) {
		b.report(api.ByPeer, api.AtLane, err)
	}
}

// report tells the broker of a batch, if it is one that we serve, that its capability or a request for it was refused.
func (c *caller) report(xfr token.TransferID, bat int64, at api.Stage, err error) {
	var b *batch
	c.a.mu.Lock()
	for k, x := range c.a.batches {
		if k.xfr == xfr && k.bat == bat && k.do == token.Read {
			b = x
		}
	}
	c.a.mu.Unlock()
	if b == nil {
		return
	}
	if _, with := b.current(); with.ID != c.peer.Identity {
		b.reportStranger(at, problem.Of(err))
		return
	}
	b.report(api.BySelf, at, err)
}
