package certs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestGuard closes a connection at the right moment, and for the right reason.
func TestGuard(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for _, tt := range []struct {
		name   string
		life   time.Duration // of the peer's certificate
		own    time.Duration // of ours
		stale  time.Duration // end of the list
		revoke time.Duration // when the peer is revoked; 0 is never
		deny   time.Duration // when the peer is denied; 0 is never
		after  time.Duration // within a minute
		want   problem.Code
	}{
		{"the peer's certificate ends", hour, 5 * hour, 9 * hour, 0, 0, hour, problem.CertExpired},
		{"our certificate ends", 5 * hour, hour, 9 * hour, 0, 0, hour, problem.CertExpired},
		{"a day is over", 90 * hour, 90 * hour, 90 * hour, 0, 0, 24 * hour, problem.CertExpired},
		{"the list ends", 90 * hour, 90 * hour, 2 * hour, 0, 0, 2*hour + time.Minute, problem.CRLStale},
		{"the peer is revoked", 90 * hour, 90 * hour, 90 * hour, hour, 0, hour, problem.CertRevoked},
		{"the peer is denied", 90 * hour, 90 * hour, 90 * hour, 0, 3 * hour, 3 * hour, problem.IDDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir, begin := t.TempDir(), time.Now().Truncate(time.Second)
				a := certstest.New(t, alpha)
				peer := a.Issue(token.Agent, "peer", certstest.Valid(begin.Add(-hour), begin.Add(tt.life)))
				list := certstest.CRL{Number: 1, Next: begin.Add(tt.stale)}
				trust, err := certs.TrustFiles{
					Bundles: map[token.Provider]string{alpha: a.BundleFile(dir)},
					CRLs:    map[token.Provider]string{alpha: a.Put(dir, "crl", a.CRL(list))},
					Denied:  a.Put(dir, "denied", nil),
				}.Open()
				if err != nil {
					t.Fatal(err)
				}
				p := certs.Peer{Identity: "spiffe://a.example/agent/peer", Chain: peer.Chain, NotAfter: begin.Add(tt.life)}
				ended := make(chan error, 1)
				go func() { ended <- trust.Guard(nil, p, certs.Deadline(begin, begin.Add(tt.own), p.NotAfter)) }()
				for _, change := range []struct {
					at time.Duration
					do func()
				}{
					{tt.revoke, func() {
						list.Number, list.Revoked = 2, []certstest.Revoked{{Chain: peer.Chain, At: time.Now().Add(-time.Second)}}
						a.Put(dir, "crl", a.CRL(list))
					}},
					{tt.deny, func() { a.Put(dir, "denied", []byte("# stolen\nidentity spiffe://a.example/agent/peer\n")) }},
				} {
					if change.at == 0 {
						continue
					}
					time.AfterFunc(change.at, func() {
						change.do()
						if changed, err := trust.Reload(); !changed || err != nil {
							t.Errorf("reloading: got %v, %v", changed, err)
						}
					})
				}
				got := <-ended
				if problem.Of(got) != tt.want {
					t.Errorf("got %v, want %s", got, tt.want)
				}
				if took := time.Since(begin); took < tt.after || took > tt.after+time.Minute {
					t.Errorf("got an end after %s, want %s", took, tt.after)
				}
			})
		})
	}
}

// TestGuardEndsWithItsConnection holds that nothing is left when the connection is gone, and that a peer who was refused
// before the guard began is found.
func TestGuardEndsWithItsConnection(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	leaf := a.Issue(token.Agent, "peer")
	p := certs.Peer{Identity: "spiffe://a.example/agent/peer", Chain: leaf.Chain, NotAfter: leaf.Chain[0].NotAfter}
	done := make(chan struct{})
	close(done)
	if err := certstest.Trust(a).Guard(done, p, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("got %v, want nothing", err)
	}
	if err := certstest.Trust(certstest.New(t, alpha)).Guard(done, p, time.Now().Add(time.Hour)); problem.Of(err) != problem.CertUnknown {
		t.Errorf("got %v, want %s", err, problem.CertUnknown)
	}
	p.Identity = "spiffe://a.example/agent/other"
	if err := certstest.Trust(a).Guard(done, p, time.Now().Add(time.Hour)); problem.Of(err) != problem.CertMismatch {
		t.Errorf("got %v, want %s", err, problem.CertMismatch)
	}
}
