package agent

import (
	"crypto/x509/pkix"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// trustFiles is the trust of one agent in files, with lists that can be replaced.
func (w *world) trustFiles(dir string) *certs.Trust {
	w.t.Helper()
	files := certs.TrustFiles{Bundles: map[token.Provider]string{}, CRLs: map[token.Provider]string{}, Denied: w.hub.Put(dir, "denied", nil)}
	for _, ca := range []*certstest.CA{w.north, w.south, w.hub} {
		files.Bundles[ca.Domain()] = ca.BundleFile(dir)
		files.CRLs[ca.Domain()] = ca.Put(dir, string(ca.Domain())+".crl", ca.CRL(certstest.CRL{Number: 1}))
	}
	trust, err := files.Open()
	if err != nil {
		w.t.Fatal(err)
	}
	return trust
}

// lanesUp returns how many lanes to its peers the agent has made that are open.
func (a *Agent) lanesUp() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pools {
		for _, s := range p.slots {
			s.mu.Lock()
			if s.lane != nil && s.lane.Err() == nil {
				n++
			}
			s.mu.Unlock()
		}
	}
	return n
}

// TestPeerIsDeniedMidway: whichever side learns that the other one is denied or revoked, the open lanes end with the reason and not a
// byte goes over new ones; once that is taken back, the batch goes on where it was.
func TestPeerIsDeniedMidway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		node  func(*world) *node
		list  func(w *world, dir string)
		clear func(w *world, dir string)
		want  problem.Code
	}{
		{"the destination denies the source", func(w *world) *node { return w.dst }, func(w *world, dir string) {
			w.hub.Put(dir, "denied", []byte("identity "+string(w.src.port.id)+"\n"))
		}, func(w *world, dir string) { w.hub.Put(dir, "denied", nil) }, problem.IDDenied},
		{"the source denies the destination", func(w *world) *node { return w.src }, func(w *world, dir string) {
			w.hub.Put(dir, "denied", []byte("identity "+string(w.dst.port.id)+"\n"))
		}, func(w *world, dir string) { w.hub.Put(dir, "denied", nil) }, problem.IDDenied},
		{"the destination's certificate is held", func(w *world) *node { return w.src }, func(w *world, dir string) {
			_, chain, _ := w.dst.conf.Pair.Current()
			w.south.Put(dir, "south.test.crl", w.south.CRL(certstest.CRL{Number: 2, Revoked: []certstest.Revoked{{Chain: chain, At: time.Now().Add(-time.Second)}}}))
		}, func(w *world, dir string) {
			w.south.Put(dir, "south.test.crl", w.south.CRL(certstest.CRL{Number: 3}))
		}, problem.CertRevoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t), t.TempDir()
			n := tt.node(w)
			n.conf.Trust = w.trustFiles(dir)
			core, logs := observer.New(zapcore.InfoLevel)
			n.conf.Logger = zap.New(core)
			w.dst.conf.Rate = 4 << 20
			reload := func() {
				if changed, err := n.conf.Trust.Reload(); !changed || err != nil {
					t.Errorf("reloading: got %v, %v", changed, err)
				}
			}
			listed := make(chan struct{})
			w.dst.at(3, func() {
				tt.list(w, dir)
				reload()
				close(listed)
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/big", 12<<20))
			serve, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			w.broker.give(w.src.port, serve)
			<-listed
			poll(t, "the lanes to end", func() bool { return w.dst.agent.lanesUp() == 0 })
			if logs.FilterMessage("a lane is closed").FilterField(zap.String("code", string(tt.want))).Len() == 0 {
				t.Errorf("no lane was closed with %s: %v", tt.want, logs.All())
			}
			tt.clear(w, dir)
			reload()
			src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
		})
	}
}

// TestLanesEndWithACertificate: when the certificate that made a lane ends, it is closed, and the batch goes on over one of the renewed certificate.
func TestLanesEndWithACertificate(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	end := time.Now().Add(5 * time.Second).Truncate(time.Second)
	pair, err := certs.OpenPair(w.south.Issue(token.Agent, "b", certstest.Valid(end.Add(-time.Hour), end)).Files(dir))
	if err != nil {
		t.Fatal(err)
	}
	w.dst.conf.Pair, w.dst.port = pair, w.broker.port(pair)
	w.dst.conf.Rate, w.dst.conf.Lanes = 1<<20, 1 // one that was dialled later would have the capability renewed, and the old one closed, before
	core, logs := observer.New(zapcore.InfoLevel)
	w.src.conf.Logger, w.dst.conf.Logger = zap.New(core), zap.New(core) // who closes a lane first says so, and the other may find it closed
	w.dst.at(1, func() {                                                // the old certificate and its lanes stay in use for the capability that is bound to it
		w.south.Issue(token.Agent, "b").Files(dir)
		if changed, err := pair.Reload(); err != nil || !changed {
			t.Errorf("got %v and %v, want a new certificate", changed, err)
		}
	})
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 9<<20))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
	if now := time.Now(); now.Before(end) {
		t.Fatalf("the transfer took %s less than the certificate lived", end.Sub(now))
	}
	closed := logs.FilterMessage("a lane is closed").FilterField(zap.String("code", string(problem.CertExpired))).All()
	if len(closed) == 0 || closed[0].Time.Before(end) {
		t.Errorf("got no lane closed at the end of the certificate at %s: %v", end, logs.All())
	}
	if len(dst.claims.Caps) < 2 {
		t.Errorf("got %d generations, want one more that is bound to the renewed certificate", len(dst.claims.Caps))
	}
}

// TestAccountIsDeniedMidway: when an agent's operator denies the account whose order is carried out, not a byte more is served or asked
// for, the batch says why it waits, and it goes on once that is taken back.
func TestAccountIsDeniedMidway(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		node    func(*world) *node
		account token.Provider
	}{
		"at the source":      {func(w *world) *node { return w.src }, "north.test"},
		"at the destination": {func(w *world) *node { return w.dst }, "south.test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t), t.TempDir()
			n := tt.node(w)
			n.conf.Trust = w.trustFiles(dir)
			w.dst.conf.Rate = 4 << 20
			deny := func(text string) {
				w.hub.Put(dir, "denied", []byte(text))
				if changed, err := n.conf.Trust.Reload(); !changed || err != nil {
					t.Errorf("reloading: got %v, %v", changed, err)
				}
			}
			denied := make(chan struct{})
			w.dst.at(3, func() {
				deny("identity " + string(w.account(tt.account)) + "\n")
				close(denied)
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/big", 12<<20))
			serve, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			w.broker.give(w.src.port, serve)
			<-denied
			poll(t, "the batch to say why it waits", func() bool {
				ps := w.dst.agent.progress(w.broker.id)
				return len(ps) == 1 && ps[0].Waiting == problem.IDDenied
			})
			_, next := w.tasks(w.spec(w.order(), 1, w.random("in/b", 5)))
			if n == w.dst {
				w.broker.give(w.dst.port, next)
				if p := w.broker.refusal(next.ID); p.Code != problem.IDDenied {
					t.Errorf("another order of the account: got %q, want %s", p.Code, problem.IDDenied)
				}
			}
			deny("")
			src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
		})
	}
}

// TestAccountOfAPlainCertificate: an order that was signed with a certificate without a SPIFFE name is the account's whose it is by the
// agent's own file, whatever anybody else believes; the agent of the other provider need not have that file.
func TestAccountOfAPlainCertificate(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	staff, guests := w.south.Intermediate(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)), w.south.Intermediate(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	alice := certstest.Plain(pkix.Name{CommonName: "Alice"})
	w.alice["south.test"] = staff.Issue(token.Subscriber, "x", alice, certstest.WithKey(certstest.RSA2048))
	line, err := certs.AccountLine(w.alice["south.test"].Chain, w.account("south.test"))
	if err != nil {
		t.Fatal(err)
	}
	files := certs.TrustFiles{Bundles: map[token.Provider]string{}, Subscribers: map[token.Provider]string{"south.test": w.south.Put(dir, "accounts", []byte(line))}}
	for _, ca := range []*certstest.CA{w.north, w.south, w.hub} {
		files.Bundles[ca.Domain()] = ca.BundleFile(dir)
	}
	if w.dst.conf.Trust, err = files.Open(); err != nil {
		t.Fatal(err)
	}
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 5))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
	for name, leaf := range map[string]*certstest.Leaf{
		"of another authority of the provider": guests.Issue(token.Subscriber, "x", alice),
		"of the other provider's authority":    w.north.Issue(token.Subscriber, "x", alice),
		"that nobody has mapped":               staff.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "Bob"})),
	} {
		w.alice["south.test"] = leaf
		_, receive := w.tasks(w.spec(w.order(), 1, w.random("in/b", 5)))
		w.broker.give(w.dst.port, receive)
		if p := w.broker.refusal(receive.ID); p.Code != problem.CertMisused && p.Code != problem.CertUnknown {
			t.Errorf("an order signed with a certificate %s: got %q, want a refusal of the certificate", name, p.Code)
		}
	}
}

// TestThiefDatesBack: whoever has the key of a certificate that was revoked cannot order by dating the order back; what the account had
// ordered before goes on.
func TestThiefDatesBack(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.dst.conf.Trust = w.trustFiles(dir)
	now := time.Now()
	for _, ca := range []*certstest.CA{w.north, w.south} {
		w.alice[ca.Domain()] = ca.Issue(token.Subscriber, "alice", certstest.Valid(now.Add(-2*time.Hour), now.Add(2*time.Hour)))
	}
	w.src.start()
	w.dst.start()
	// Before: an order of an hour ago, of which one batch is copied.
	before := w.order()
	before.Iat = now.Add(-time.Hour).Unix()
	_, dst := w.run(w.spec(before, 1, w.random("in/a", 5)))
	checkAll(t, dst, token.Stored)
	w.south.Put(dir, "south.test.crl", w.south.CRL(certstest.CRL{Number: 2, Revoked: []certstest.Revoked{
		{Chain: w.alice["south.test"].Chain, At: time.Now().Add(time.Second).Truncate(time.Second)},
	}}))
	if changed, err := w.dst.conf.Trust.Reload(); !changed || err != nil {
		t.Fatalf("reloading: got %v, %v", changed, err)
	}
	poll(t, "the instant of the revocation", func() bool {
		_, err := w.dst.conf.Trust.Verify(w.alice["south.test"].Chain, time.Now())
		return problem.Of(err) == problem.CertRevoked
	})
	forged := w.order()
	forged.Iat = now.Add(-time.Hour).Unix()
	_, receive := w.tasks(w.spec(forged, 1, w.random("in/b", 5)))
	w.broker.give(w.dst.port, receive)
	if p := w.broker.refusal(receive.ID); p.Code != problem.CertRevoked {
		t.Errorf("an order that is dated back: got %q, want %s", p.Code, problem.CertRevoked)
	}
	_, dst = w.run(w.spec(before, 2, w.random("in/c", 5)))
	checkAll(t, dst, token.Stored)
}
