package token_test

import (
	"fmt"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func ExampleParseLocation() {
	l, err := token.ParseLocation("a.example:/raw/2026/")
	fmt.Println(l.Provider, l.Container, l.Name, err)
	_, err = token.ParseLocation("./file")
	fmt.Println(problem.As(err).Sentence())
	// Output:
	// a.example raw 2026 <nil>
	// The address "./file" is not of the form provider:/container/name.
}

func ExampleOrder_Covers() {
	order := tokentest.Order()
	item := tokentest.Manifest().Items[0]
	fmt.Println(order.Covers(item))
	item.Dst = "elsewhere/0001.h5"
	fmt.Println(problem.As(order.Covers(item)).Sentence())
	// Output:
	// <nil>
	// The order does not give the object "2026/run/0001.h5" the name "elsewhere/0001.h5".
}

func ExampleVerifyCapability() {
	key := tokentest.Ed25519("one").Signer
	signer, err := token.NewSigner(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := signer.Capability(tokentest.Capability())
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := token.NewKeySet(tokentest.TheirHub, key.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := token.VerifyCapability(tok, keys)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Claims.Do, v.Claims.Aud, v.Claims.Admit(tokentest.Admission()))

	thief := tokentest.Admission()
	thief.Leaf = token.HashOf([]byte("another certificate"))
	fmt.Println(problem.As(v.Claims.Admit(thief)).Sentence())
	// Output:
	// read spiffe://a.example/agent/eu-1 <nil>
	// The capability is bound to the key of another certificate.
}

func ExampleReceipt_Outcomes() {
	outcomes, err := tokentest.Receipt().Outcomes(tokentest.Lines())
	for _, o := range outcomes {
		fmt.Println(o.Item, o.Outcome, o.Size)
	}
	fmt.Println(err)
	// Output:
	// 0 stored 3145745
	// 1 stored 4096
	// 2 taken 0
	// <nil>
}

func ExampleMatch() {
	stored := tokentest.Outcomes()[0]
	sent := stored
	sent.Outcome = token.Sent
	fmt.Println(token.Match(sent, stored))
	sent.Size++
	fmt.Println(problem.Of(token.Match(sent, stored)))
	// Output:
	// <nil>
	// disputed
}
