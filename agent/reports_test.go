package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// reported waits for a report of one agent about a batch.
func (b *memBroker) reported(from token.Identity, ref api.Ref, ok func(report) bool) report {
	b.t.Helper()
	var got report
	b.await(fmt.Sprintf("a report of %s", from), func() bool {
		for _, r := range b.reports {
			if r.from == from && r.Ref == ref && ok(r) {
				got = r
				return true
			}
		}
		return false
	})
	return got
}

// noReports fails if an agent has reported anything but what ok allows.
func (b *memBroker) noReports(ok func(report) bool) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.reports {
		if !ok(r) {
			b.t.Errorf("got a report %+v, want none", r)
		}
	}
}

// TestRefusedDiallerIsReported: the source tells the broker why it refused who came for a batch, also where TLS
// tells them no more than an alert. A stranger's names are told to nobody.
func TestRefusedDiallerIsReported(t *testing.T) {
	t.Parallel()
	evil := certstest.NewUnconstrained(t, "evil.test")
	for _, c := range []struct {
		name string
		leaf func(*world) *certstest.Leaf
		want problem.Code
		says string
	}{
		{"expired", func(w *world) *certstest.Leaf { return w.south.Issue(token.Agent, "b", certstest.Expired()) }, problem.CertExpired,
			"The certificate of spiffe://south.test/agent/b (serial "},
		{"not yet valid", func(w *world) *certstest.Leaf { return w.south.Issue(token.Agent, "b", certstest.NotYet()) }, problem.CertNotYet, "is not valid before "},
		{"of another authority of that name", func(w *world) *certstest.Leaf { return certstest.New(t, "south.test").Issue(token.Agent, "b") }, problem.CertUnknown, "authority"},
		{"of another authority and expired", func(w *world) *certstest.Leaf {
			return certstest.New(t, "south.test").Issue(token.Agent, "b", certstest.Expired())
		}, problem.CertUnknown, "authority"},
		{"of another domain's authority", func(w *world) *certstest.Leaf {
			return evil.Issue(token.Agent, "x", certstest.As("spiffe://south.test/agent/b"))
		}, problem.CertUnknown, "authority"},
		{"for another use", func(w *world) *certstest.Leaf { return w.south.Issue(token.Agent, "b", certstest.For()) }, problem.CertMisused, "client and server authentication"},
		{"of nobody that is expected", func(w *world) *certstest.Leaf { return w.south.Issue(token.Agent, "stranger", certstest.Expired()) }, "", ""},
		{"of a domain that nobody knows", func(w *world) *certstest.Leaf { return evil.Issue(token.Agent, "stranger") }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.src.start()
			s := w.spec(w.order(), 1, w.random("in/a", 100))
			capability := w.served(s)
			if err := w.thief(c.leaf(w).Pair()).hello(s, capability); err == nil {
				t.Fatal("the dialler was admitted")
			}
			if c.want == "" { // a report that comes behind it shows that there was none
				err := w.thief(w.south.Issue(token.Agent, "b", certstest.Expired()).Pair()).hello(s, capability)
				wantCode(t, "the expected one", err, problem.CertExpired)
				w.broker.reported(w.src.port.id, s.ref(), func(r report) bool { return r.Code == problem.CertExpired })
				w.broker.noReports(func(r report) bool {
					return !strings.Contains(fmt.Sprint(r), "stranger") && r.Code == problem.CertExpired
				})
				return
			}
			got := w.broker.reported(w.src.port.id, s.ref(), func(r report) bool { return true })
			want := api.Report{Ref: s.ref(), Peer: w.dst.port.id, By: api.BySelf, At: api.AtLane, Code: c.want, Detail: got.Detail}
			if got.Report != want || !strings.Contains(got.Detail, c.says) || strings.Contains(got.Detail, "evil") {
				t.Errorf("got %+v, want %+v with %q", got.Report, want, c.says)
			}
		})
	}
}

// TestRefusedListenerIsReported: the destination tells the broker why it does not speak to the source.
func TestRefusedListenerIsReported(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		leaf func(*world) *certstest.Leaf
		want problem.Code
		both bool // the source is told, and tells too
	}{
		{"expired", func(w *world) *certstest.Leaf { return w.north.Issue(token.Agent, "a", certstest.Expired()) }, problem.CertExpired, false}, // it may have closed the lane itself
		{"not yet valid", func(w *world) *certstest.Leaf { return w.north.Issue(token.Agent, "a", certstest.NotYet()) }, problem.CertNotYet, true},
		{"of another authority", func(w *world) *certstest.Leaf { return certstest.New(t, "north.test").Issue(token.Agent, "a") }, problem.CertUnknown, false},
		{"of another agent", func(w *world) *certstest.Leaf { return w.north.Issue(token.Agent, "z") }, problem.CertMismatch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.src.conf.Pair = c.leaf(w).Pair()
			id := w.src.port.id // the broker knows the source by a good certificate
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/a", 100))
			s.peerSrc = id
			serve, receive := w.tasks(s)
			w.broker.give(w.src.port, serve)
			w.broker.give(w.dst.port, receive)
			got := w.broker.reported(w.dst.port.id, s.ref(), func(r report) bool { return r.By == api.BySelf })
			if got.Code != c.want || got.Peer != id || got.At != api.AtLane {
				t.Errorf("got %+v, want %s", got, c.want)
			}
			if c.both {
				theirs := w.broker.reported(id, s.ref(), func(r report) bool { return r.By == api.ByPeer })
				if theirs.Code != c.want || theirs.Detail != got.Detail || theirs.Peer != w.dst.port.id {
					t.Errorf("the source says %+v, the destination %+v; want the same of both", theirs.Report, got.Report)
				}
			}
		})
	}
}

// TestRefusedCapabilityIsReported: both sides tell of a capability that was not accepted; of a thief only that there was one.
func TestRefusedCapabilityIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	wantCode(t, "a thief", w.thief(w.south.Issue(token.Agent, "thief").Pair()).hello(s, capability), problem.CapNotYours)
	got := w.broker.reported(w.src.port.id, s.ref(), func(r report) bool { return r.Stranger })
	if got.Code != problem.CapNotYours || got.At != api.AtHello || strings.Contains(fmt.Sprint(got), "thief") {
		t.Errorf("a thief: got %+v, want %s and not the name", got.Report, problem.CapNotYours)
	}
	bad := w.broker.minted[s.ref()].c
	bad.Man, bad.Gen, bad.Cnf, bad.Iat = token.HashOf([]byte("another")), 1, w.dst.port.pair.LeafHash(), time.Now().Unix()
	bad.Exp = bad.Iat + 900
	wantCode(t, "the peer", w.thief(w.dst.port.pair).hello(s, w.broker.sign(bad)), problem.CapManifest)
	got = w.broker.reported(w.src.port.id, s.ref(), func(r report) bool { return !r.Stranger })
	if got.Code != problem.CapManifest || got.Peer != w.dst.port.id || got.By != api.BySelf {
		t.Errorf("the peer: got %+v, want %s", got.Report, problem.CapManifest)
	}
}

// TestKnocksWithoutEnd: whoever is refused a thousand times is told of once, and no list grows beyond its bound.
func TestKnocksWithoutEnd(t *testing.T) {
	t.Parallel()
	r := newReports()
	now := time.Now()
	for range 1000 {
		r.add(api.Report{Ref: api.Ref{Xfr: "x", Bat: 1}, Code: problem.CertExpired}, now)
	}
	if got := r.take(); len(got) != 1 {
		t.Errorf("got %d reports of the same, want 1", len(got))
	}
	r.add(api.Report{Ref: api.Ref{Xfr: "x", Bat: 1}, Code: problem.CertExpired}, now.Add(reportAgain))
	if got := r.take(); len(got) != 1 {
		t.Errorf("after a while: got %d reports, want it again", len(got))
	}
	for i := range int64(10_000) {
		r.add(api.Report{Ref: api.Ref{Xfr: "x", Bat: i}, Code: problem.CertExpired}, now)
	}
	if len(r.due) > maxUntold || len(r.told) > maxTold {
		t.Errorf("got %d reports that wait and %d that are remembered", len(r.due), len(r.told))
	}
	first := r.take()
	r.giveBack(first)
	if again := r.take(); len(again) != len(first) || again[0] != first[0] || len(again) > api.MaxReports {
		t.Errorf("what was given back: got %d, want the %d that were taken", len(again), len(first))
	}
}

// TestNoCertificateIsExplained: a dialler without a certificate learns that; the source knows nobody to tell of.
func TestNoCertificateIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.served(w.spec(w.order(), 1, w.random("in/a", 100)))
	e, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	lane, err := e.Dial(ctx, w.src.agent.Addr().String(), certs.PeerClient(nil, w.trust, wire.ALPN, ""))
	if err == nil {
		_, err = lane.Accept(ctx)
	}
	wantCode(t, "no certificate", err, problem.CertMissing)
	w.broker.noReports(func(report) bool { return false })
}
