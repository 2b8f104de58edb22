package tokentest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token"
)

// A Vector is one statement, or one attempt at one, with what becomes of it.
type Vector struct {
	Name    string
	Kind    string // order, session-order, capability, revocation, link, receipt, manifest, outcome or run
	Key     string // of Keys, or "" for what is not signed
	Token   string // "" for what is not signed
	Payload string
	Hash    string // of Payload; "" for a vector that is refused
	Xfr     string // of a run, the transfer's id; else ""
	Refused string // the problem that it is refused with; "" for one that is accepted
}

// ParseVectors reads a file of vectors: blocks of "field: value" lines, with an
// empty line after each block; lines that begin with '#' are comments.
func ParseVectors(data []byte) ([]Vector, error) {
	var out []Vector
	var v Vector
	for n, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if line == "" {
			if v != (Vector{}) {
				out = append(out, v)
			}
			v = Vector{}
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		field, ok := v.fields()[name]
		if !ok {
			return nil, fmt.Errorf("reading vectors: line %d has the unknown field %q", n+1, name)
		}
		*field = value
	}
	return out, nil
}

func (v *Vector) fields() map[string]*string {
	return map[string]*string{
		"name": &v.Name, "kind": &v.Kind, "key": &v.Key, "token": &v.Token,
		"payload": &v.Payload, "hash": &v.Hash, "xfr": &v.Xfr, "refused": &v.Refused,
	}
}

// FormatVectors writes a file that ParseVectors reads, with comment on top.
func FormatVectors(comment string, vs []Vector) []byte {
	var b bytes.Buffer
	for line := range strings.SplitSeq(comment, "\n") {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	for _, v := range vs {
		b.WriteByte('\n')
		for _, name := range []string{"name", "kind", "key", "payload", "hash", "xfr", "token", "refused"} {
			if value := *v.fields()[name]; value != "" {
				fmt.Fprintf(&b, "%s: %s\n", name, value)
			}
		}
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Vectors makes the vectors that must be accepted, with fresh signatures where a
// key signs with randomness.
func Vectors() ([]Vector, error) {
	var out []Vector
	for _, k := range Keys() {
		s, err := token.NewSigner(k.Signer)
		if err != nil {
			return nil, err
		}
		for _, st := range Statements() {
			if slices.Contains([]string{"session-order", "capability", "revocation"}, st.Kind) && k.Alg != "EdDSA" && k.Alg != "ES256" {
				continue
			}
			tok, err := st.Sign(s)
			if err != nil {
				return nil, fmt.Errorf("signing %s: %w", st.Name, err)
			}
			payload := decode(strings.Split(tok, ".")[1])
			out = append(out, Vector{Name: st.Name + "/" + k.Name, Kind: st.Kind, Key: k.Name, Token: tok,
				Payload: payload, Hash: string(token.HashOf([]byte(payload)))})
		}
	}
	m, h, err := token.MarshalManifest(Manifest())
	if err != nil {
		return nil, err
	}
	out = append(out, Vector{Name: "manifest", Kind: "manifest", Payload: string(m), Hash: string(h)})
	for i, line := range Lines() {
		out = append(out, Vector{Name: fmt.Sprintf("outcome-%d", i), Kind: "outcome", Payload: string(line), Hash: string(token.HashOf(line))})
	}
	return append(out, runs()...), nil
}

// runs are some runs of Standing, each with the text that its id is made from.
func runs() []Vector {
	o := Standing()
	body, err := o.Payload()
	must(err)
	var out []Vector
	for _, k := range []int64{1, 2, 167} {
		text := fmt.Sprintf("consign-run %s %d", token.HashOf(body), k)
		out = append(out, Vector{Name: fmt.Sprintf("run-%d", k), Kind: "run", Payload: text, Hash: string(token.HashOf([]byte(text))), Xfr: string(o.Run(k))})
	}
	return out
}

// A Statement is a signed statement that is about to be.
type Statement struct {
	Name, Kind string
	Sign       func(token.Signer) (string, error)
}

// Statements returns at least one of each kind and verb.
func Statements() []Statement {
	order := func(name string, o token.Order) Statement {
		return Statement{name, "order", func(s token.Signer) (string, error) { return s.Order(o) }}
	}
	receipt := func(name string, r token.Receipt) Statement {
		return Statement{name, "receipt", func(s token.Signer) (string, error) { return s.Receipt(r) }}
	}
	capability := func(name string, c token.Capability) Statement {
		return Statement{name, "capability", func(s token.Signer) (string, error) { return s.Capability(c) }}
	}
	revocation := func(name string, r token.Revocation) Statement {
		return Statement{name, "revocation", func(s token.Signer) (string, error) { return s.Revocation(r) }}
	}
	link := func(name string, l token.Link) Statement {
		return Statement{name, "link", func(s token.Signer) (string, error) { return s.Link(l) }}
	}
	session := func(name string, o token.Order) Statement {
		return Statement{name, "session-order", func(s token.Signer) (string, error) { return s.SessionOrder(o) }}
	}
	create := Capability()
	create.Aud, create.Peer, create.Do = AgentB, AgentA, token.Create
	return []Statement{
		order("order-tree", Order()), order("order-object", OneObject()), order("order-list", Asking(token.List)),
		order("order-stat", Asking(token.Stat)), order("order-make", Asking(token.Make)), order("order-erase", Erasure()),
		order("order-standing", Standing()), order("order-withdraw", Withdrawal()),
		session("session-order", Order()), session("session-order-list", Asking(token.List)),
		capability("capability-read", Capability()), capability("capability-create", create), capability("capability-session", BySession()),
		revocation("revocation", Revocation()), revocation("revocation-empty", EmptyRevocation()),
		link("link", Link()),
		receipt("receipt", Receipt()), receipt("receipt-empty", EmptyReceipt()), receipt("receipt-session", SessionReceipt()),
	}
}
