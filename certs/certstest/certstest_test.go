package certstest_test

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
)

// TestGoodLeaves holds that without options a leaf is good, in memory and as files, so that a
// refusal in another test is due to its option.
func TestGoodLeaves(t *testing.T) {
	t.Parallel()
	constrained, wild := certstest.New(t, "a.example"), certstest.NewUnconstrained(t, "b_1.example")
	below := constrained.Intermediate(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	trust := certstest.Trust(constrained, wild)
	for _, ca := range []*certstest.CA{constrained, wild, below} {
		for _, role := range []token.Role{token.Agent, token.Broker, token.Subscriber} {
			leaf := ca.Issue(role, "x")
			want := token.NewIdentity(ca.Domain(), role, "x")
			pair, err := certs.OpenPair(leaf.Files(t.TempDir()))
			if err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			_, chain, _ := pair.Current()
			for _, c := range []certs.Chain{leaf.Chain, chain} {
				if got, err := trust.Verify(c, time.Now()); got != want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
			if leaf.Pair().LeafHash() != pair.LeafHash() {
				t.Errorf("%s: the pair in memory is not the one in files", want)
			}
		}
	}
	fromFile, err := certs.OpenTrust(map[token.Provider]string{"a.example": constrained.BundleFile(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fromFile.Verify(constrained.Issue(token.Agent, "x").Chain, time.Now()); err != nil {
		t.Errorf("got %v, want trust by the bundle file", err)
	}
}
