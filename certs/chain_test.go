package certs_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestChainRoundTrip(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	want := certs.Chain{a.Issue(token.Agent, "x").Chain[0], a.Root()}
	fromPEM, err := certs.ParseChain(append([]byte("Certificate:\n    Data: as openssl prints\n"), want.PEM()...))
	if err != nil {
		t.Fatal(err)
	}
	fromDER, err := certs.ParseChainDER(want.DER())
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []certs.Chain{fromPEM, fromDER} {
		if !bytes.Equal(got.PEM(), want.PEM()) {
			t.Errorf("got another chain than was written")
		}
	}
	if got, want := want.LeafHash(), token.HashOf(want[0].Raw); got != want {
		t.Errorf("got leaf hash %q, want %q", got, want)
	}
	if none := (certs.Chain)(nil); none.Leaf() != nil || none.LeafHash() != "" {
		t.Errorf("an empty chain has a leaf")
	}
}

func TestParseChainRefuses(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	leaf := a.Issue(token.Agent, "x").Chain
	one := leaf.PEM()
	key := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	for name, tt := range map[string]struct {
		data []byte
		want problem.Code
	}{
		"nothing":          {nil, problem.Malformed},
		"no PEM":           {[]byte("hello"), problem.Malformed},
		"torn":             {one[:len(one)/2], problem.Malformed},
		"a key before":     {append(bytes.Clone(key), one...), problem.Malformed},
		"a key after":      {append(bytes.Clone(one), key...), problem.Malformed},
		"another type":     {bytes.ReplaceAll(one, []byte(" CERTIFICATE"), []byte(" TRUSTED CERTIFICATE")), problem.Malformed},
		"not DER":          {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), problem.Malformed},
		"one too many":     {bytes.Repeat(one, certs.MaxChainCerts+1), problem.TooLarge},
		"too large":        {[]byte(strings.Repeat(" ", certs.MaxChainPEM+1)), problem.TooLarge},
		"too large as DER": {nil, problem.TooLarge},
	} {
		var got certs.Chain
		var err error
		if name == "too large as DER" {
			got, err = certs.ParseChainDER([][]byte{leaf[0].Raw, make([]byte, certs.MaxChainSize)})
		} else {
			got, err = certs.ParseChain(tt.data)
		}
		if problem.Of(err) != tt.want || got != nil {
			t.Errorf("%s: got %v, %q, want nothing and %q", name, got, problem.Of(err), tt.want)
		}
	}
}

// FuzzParseChain holds that what is read is written again as it was, and that a
// refusal gives nothing.
func FuzzParseChain(f *testing.F) {
	a := certstest.New(f, alpha)
	seeds := [][]byte{
		a.Issue(token.Agent, "x").Chain.PEM(),
		a.Issue(token.Agent, "x", certstest.NoURI()).Chain.PEM(),
		certs.Chain{a.Issue(token.Broker, "x").Chain[0], a.Root()}.PEM(),
	}
	for _, s := range seeds {
		if _, err := certs.ParseChain(s); err != nil {
			f.Fatalf("a seed is not good: %v", err)
		}
		f.Add(s)
	}
	trust := certstest.Trust(a)
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := certs.ParseChain(data)
		if err != nil {
			if chain != nil {
				t.Fatal("got a chain with an error")
			}
			return
		}
		again, err := certs.ParseChain(chain.PEM())
		if err != nil || !bytes.Equal(again.PEM(), chain.PEM()) {
			t.Fatalf("got another chain at the second reading: %v", err)
		}
		if id, err := certs.IdentityOf(chain[0]); err == nil && id.Name() == "" {
			t.Fatalf("got the identity %q without a name", id)
		}
		if _, err := trust.Verify(chain, a.Root().NotBefore); problem.Of(err) == problem.Internal {
			t.Fatalf("got an outcome outside the contract: %v", err)
		}
	})
}
