package tokentest

import (
	"time"

	"github.com/consign-transfer/consign/token"
)

// Who takes part in the statements below.
const (
	AtA      token.Identity = "spiffe://a.example/subscriber/ada"
	AtB      token.Identity = "spiffe://b.example/subscriber/ada"
	AgentA   token.Identity = "spiffe://a.example/agent/eu-1"
	AgentB   token.Identity = "spiffe://b.example/agent/us-1"
	TheirHub token.Identity = "spiffe://hub.example/broker/main"
)

// Begin is the second in which all statements below were signed.
const Begin = 1795400000

// Now is a time at which all statements below are good.
func Now() time.Time { return time.Unix(Begin+60, 0) }

const (
	transfer token.TransferID = "01938c5e-7a00-7abc-8def-0123456789ab"
	someHash token.Digest     = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

	someValue token.ValueDigest = "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Order returns an order to copy a tree from a.example to b.example with filters.
func Order() token.Order {
	return token.Order{
		Accounts: []token.Identity{AtA, AtB},
		Do:       token.Copy,
		Exp:      Begin + 7*86400,
		Filters: []token.Filter{
			{Do: token.Exclude, Match: "*.tmp"},
			{Do: token.Include, Match: "/run/**"},
			{Do: token.Exclude, Match: "**"},
		},
		From:     token.Location{Container: "raw", Name: "2026", Provider: "a.example"},
		Iat:      Begin,
		ID:       transfer,
		IfExists: token.Skip,
		Limits:   token.Limits{Bytes: 1 << 40, Items: 1e6},
		Scope:    token.Tree,
		To:       token.Location{Container: "archive", Name: "from-a/2026", Provider: "b.example"},
	}
}

// OneObject returns an order to copy one object whose digest is known.
func OneObject() token.Order {
	o := Order()
	o.Digest, o.Filters, o.IfExists, o.Limits, o.Scope = someHash, nil, token.Fail, token.Limits{}, token.One
	o.From.Name, o.To.Name = "2026/run/0001.h5", "one.h5"
	return o
}

// Standing returns Order as one that runs every hour.
func Standing() token.Order {
	o := Order()
	o.ID, o.Period = "01938c5e-7a00-7abc-8def-0123456789ac", 3600
	return o
}

// Withdrawal returns the order of AtB to withdraw Standing.
func Withdrawal() token.Order {
	return token.Order{
		Accounts: []token.Identity{AtB}, Do: token.Withdraw, Exp: Begin + 7*86400, Iat: Begin, ID: "01938c5e-7a00-7abc-8def-0123456789ad",
		Target: Standing().ID,
	}
}

// Erasure returns the order of AtB to erase one state of one object. Without its Version it is one to erase an empty container.
func Erasure() token.Order {
	o := Asking(token.Make)
	o.ID, o.Do, o.To.Name, o.Version = "01938c5e-7a00-7abc-8def-0123456789ae", token.Erase, "from-a/2026/run/0001.h5", "etag:\"9f\""
	return o
}

// Asking returns an order to list, stat or make; Order has the one to copy, and Withdrawal the one to withdraw.
func Asking(do token.Verb) token.Order {
	o := Order()
	o.Do, o.Filters, o.IfExists, o.Limits, o.Scope = do, nil, "", token.Limits{}, token.One
	if do == token.List {
		o.Scope = token.Tree
	}
	if do == token.Make {
		o.Accounts, o.From = []token.Identity{AtB}, token.Location{}
	} else {
		o.Accounts, o.To = []token.Identity{AtA}, token.Location{}
	}
	return o
}

// Manifest returns the first batch of Order: three items, the second one with a value hash, the last one empty.
func Manifest() token.Manifest {
	return token.Manifest{
		Bat: 1,
		Items: []token.Item{
			{Digest: someHash, Dst: "from-a/2026/run/0001.h5", Part: 8 << 20, Size: 3<<20 + 17, Src: "2026/run/0001.h5", Version: "v-1"},
			{Dst: "from-a/2026/run/Zürich \"7\".h5", Hash: token.SHA256, Part: 1 << 20, Size: 4096, Src: "2026/run/Zürich \"7\".h5", Version: "etag:\"9f\""},
			{Dst: "from-a/2026/run/empty", Part: 1 << 20, Src: "2026/run/empty", Version: "v-3"},
		},
		Iss: TheirHub,
		Ord: OrderHash(),
		Xfr: transfer,
	}
}

// OrderHash is the name of Order.
func OrderHash() token.Hash {
	b, err := Order().Payload()
	must(err)
	return token.HashOf(b)
}

// ManifestHash is the name of Manifest.
func ManifestHash() token.Hash {
	_, h, err := token.MarshalManifest(Manifest())
	must(err)
	return h
}

// Leaf stands for the hash of the leaf certificate of the capability's holder.
func Leaf() token.Hash { return token.HashOf([]byte("the leaf certificate of b.example/agent/us-1")) }

// Capability returns the right of AgentB to read Manifest at AgentA.
func Capability() token.Capability {
	return token.Capability{
		Aud: AgentA, Authority: token.ByOrder, Bat: 1, Cnf: Leaf(), Do: token.Read,
		Exp: Begin + 900, Gen: 1, Iat: Begin, Iss: TheirHub, Man: ManifestHash(),
		Max: 70_000_000, Ord: OrderHash(), Peer: AgentB, Xfr: transfer,
	}
}

// BySession returns Capability of a transfer that rests on the word of TheirHub.
func BySession() token.Capability {
	c := Capability()
	c.Authority = token.BySession
	return c
}

// SessionReceipt returns Receipt of a transfer that rests on the word of TheirHub.
func SessionReceipt() token.Receipt {
	r := Receipt()
	r.Authority = token.BySession
	return r
}

// Admission returns what AgentA knows when AgentB presents Capability.
func Admission() token.Admission {
	return token.Admission{
		Now: Now(), Self: AgentA, Peer: AgentB, Leaf: Leaf(), Do: token.Read,
		Ord: OrderHash(), Man: ManifestHash(),
	}
}

// Revocation returns the list of TheirHub in which Capability is revoked, and
// another transfer's that is paused.
func Revocation() token.Revocation {
	return token.Revocation{Epoch: 1795400000123, Iat: Begin, Iss: TheirHub, Revoked: []token.Revoked{
		{Reason: token.ByPause, Until: Begin + 300, Xfr: "01938c5e-7a00-7000-8000-000000000001"},
		{Reason: token.ByCancel, Until: Begin + 960, Xfr: transfer},
	}}
}

// EmptyRevocation returns the list in which nothing is revoked.
func EmptyRevocation() token.Revocation {
	return token.Revocation{Epoch: 1795400000124, Iat: Begin + 30, Iss: TheirHub}
}

// Link returns the statement that AtA and AtB are one person's.
func Link() token.Link {
	return token.Link{Accounts: []token.Identity{AtA, AtB}, Aud: TheirHub, Challenge: token.HashOf([]byte("a challenge")), Exp: Begin + 300, Iat: Begin}
}

// Outcomes returns what the destination says of Manifest: stored, stored with a
// value hash and a loss, and taken.
func Outcomes() []token.Outcome {
	return []token.Outcome{
		{Digest: someHash, Item: 0, Outcome: token.Stored, Size: 3<<20 + 17, Version: "b-1"},
		{Digest: someHash, Hash: someValue, Item: 1, Lost: []string{"mode", "user.comment"}, Native: "md5:9e107d9d372bb6826bd81d3542a419d6", Outcome: token.Stored, Size: 4096, Version: "b-2"},
		{Code: "taken", Detail: "The name already exists at the destination.", Item: 2, Outcome: token.TakenBy},
	}
}

// Lines returns Outcomes as the lines that a receipt is made over.
func Lines() [][]byte {
	var out [][]byte
	for _, o := range Outcomes() {
		b, err := token.MarshalOutcome(o)
		must(err)
		out = append(out, b)
	}
	return out
}

// Receipt returns the receipt of AgentB over Lines.
func Receipt() token.Receipt {
	root, err := token.OutcomesRoot(Lines())
	must(err)
	payload := token.HashOf([]byte("the capability of generation 1"))
	return token.Receipt{
		Aud: TheirHub, Authority: token.ByOrder, Bat: 1, Bytes: 3<<20 + 17 + 4096, Caps: []token.Hash{payload}, CreateBy: token.GuardStore,
		Finished: Begin + 50, Iat: Begin + 51, Iss: AgentB, Last: true, Man: ManifestHash(), N: 3,
		Ord: OrderHash(), Part: 1, Root: root, Side: token.Destination, Started: Begin + 10, Xfr: transfer,
	}
}

// EmptyReceipt returns the last part of AgentA's receipt when nothing was left to say.
func EmptyReceipt() token.Receipt {
	r := Receipt()
	r.Iss, r.Side, r.CreateBy, r.Part, r.N, r.Bytes, r.Root = AgentA, token.Source, "", 2, 0, 0, token.HashOf(nil)
	return r
}
