package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// bundle is a transfer in the hands of a forger: he holds every key, and may change anything.
type bundle struct {
	t                   *testing.T
	trust               *certs.Trust
	north, south        *certstest.CA
	aliceN, aliceS      *certstest.Leaf
	source, destination *certstest.Leaf
	order               token.Order
	run                 int64
	items               []token.Item
}

func newBundle(t *testing.T) *bundle {
	b := &bundle{t: t, north: certstest.New(t, "north"), south: certstest.New(t, "south")}
	b.trust = certstest.Trust(b.north, b.south)
	b.aliceN, b.aliceS = b.north.Issue(token.Subscriber, "alice"), b.south.Issue(token.Subscriber, "alice")
	b.source, b.destination = b.north.Issue(token.Agent, "n1"), b.south.Issue(token.Agent, "s1")
	now := time.Now().Unix()
	b.order = token.Order{
		Accounts: []token.Identity{"spiffe://north/subscriber/alice", "spiffe://south/subscriber/alice"}, Do: token.Copy, Scope: token.Tree,
		Iat: now, Exp: now + 3600, ID: "0192f0c1-2345-7abc-8def-0123456789ab", IfExists: token.Fail,
		From: token.Location{Provider: "north", Container: "src"}, To: token.Location{Provider: "south", Container: "dst"},
	}
	for _, n := range []token.ObjectName{"a", "b"} {
		b.items = append(b.items, token.Item{Src: n, Dst: n, Size: 10, Part: token.ChunkSize, Version: "v"})
	}
	b.items[0].Hash = token.SHA256
	return b
}

func (b *bundle) signed() api.SignedOrder {
	var so api.SignedOrder
	for _, l := range []*certstest.Leaf{b.aliceN, b.aliceS} {
		s, err := token.NewSigner(l.Key)
		if err != nil {
			b.t.Fatal(err)
		}
		jws, err := s.Order(b.order)
		if err != nil {
			b.t.Fatal(err)
		}
		so.JWS, so.Chains = append(so.JWS, jws), append(so.Chains, string(l.Chain.PEM()))
	}
	return so
}

func (b *bundle) ord() token.Hash {
	p, err := b.order.Payload()
	if err != nil {
		b.t.Fatal(err)
	}
	return token.HashOf(p)
}

// outcome is what an honest agent says of an item.
func outcome(i int, it token.Item, side token.Side) token.Outcome {
	o := token.Outcome{Item: int64(i), Outcome: token.Stored, Size: it.Size, Digest: token.Digest("blake3:" + strings.Repeat("ab", 32)), Version: "v", Lost: []string{}}
	if side == token.Source {
		o.Outcome = token.Sent
	} else if it.Hash != "" {
		o.Hash = token.ValueDigest(string(it.Hash) + ":" + strings.Repeat("ef", it.Hash.Size()))
	}
	return o
}

func (b *bundle) receipt(man []byte, side token.Side, by *certstest.Leaf, outs []token.Outcome, change func(*token.Receipt)) api.SignedReceipt {
	b.t.Helper()
	var lines [][]byte
	total := int64(0)
	for _, o := range outs {
		line, err := token.MarshalOutcome(o)
		if err != nil {
			b.t.Fatal(err)
		}
		lines = append(lines, line)
		if o.Outcome == token.Stored || o.Outcome == token.Sent {
			total += o.Size
		}
	}
	root, err := token.OutcomesRoot(lines)
	if err != nil {
		b.t.Fatal(err)
	}
	id, err := certs.IdentityOf(by.Chain[0])
	if err != nil {
		b.t.Fatal(err)
	}
	m, _, err := token.ParseManifest(man)
	if err != nil {
		b.t.Fatal(err)
	}
	now := time.Now().Unix()
	r := token.Receipt{
		Aud: "spiffe://hub/broker/main", Authority: token.ByOrder, Bat: m.Bat, Bytes: total, Caps: []token.Hash{token.HashOf([]byte("cap"))},
		Started: now, Finished: now, Iat: now, Iss: id, Man: token.HashOf(man), N: int64(len(lines)), Ord: b.ord(), Part: 1, Last: true, Root: root,
		Side: side, Xfr: m.Xfr,
	}
	if side == token.Destination {
		r.CreateBy = token.GuardStore
	}
	if change != nil {
		change(&r)
	}
	s, err := token.NewSigner(by.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	jws, err := s.Receipt(r)
	if err != nil {
		b.t.Fatal(err)
	}
	return api.SignedReceipt{JWS: jws, Chain: string(by.Chain.PEM()), Lines: string(bytes.Join(lines, []byte("\n"))) + "\n"}
}

func (b *bundle) manifest(bat int64) []byte {
	b.t.Helper()
	man, _, err := token.MarshalManifest(token.Manifest{Bat: bat, Items: b.items, Iss: "spiffe://hub/broker/main", Ord: b.ord(), Xfr: b.order.Run(b.run)})
	if err != nil {
		b.t.Fatal(err)
	}
	return man
}

func (b *bundle) outcomes(side token.Side) []token.Outcome {
	var out []token.Outcome
	for i, it := range b.items {
		out = append(out, outcome(i, it, side))
	}
	return out
}

func (b *bundle) batch(bat int64) api.BatchRecord {
	man := b.manifest(bat)
	return api.BatchRecord{Bat: bat, Manifest: man, Receipts: []api.SignedReceipt{
		b.receipt(man, token.Source, b.source, b.outcomes(token.Source), nil),
		b.receipt(man, token.Destination, b.destination, b.outcomes(token.Destination), nil),
	}}
}

func TestHonestBundle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var file bytes.Buffer
	w, err := verify.NewWriter(&file, b.signed())
	if err != nil {
		t.Fatal(err)
	}
	for bat := range int64(3) {
		if err := w.Write(b.batch(bat + 1)); err != nil {
			t.Fatal(err)
		}
	}
	whole := file.String()
	r, err := verify.Bundle(strings.NewReader(whole), b.trust)
	if err != nil || !r.Good() || r.Stored != 6 || r.Bytes != 60 || r.Receipts != 6 || r.Batches != 3 || r.Items[token.Stored] != 6 {
		t.Errorf("got %+v, %v, want six items stored and nothing wrong", r, err)
	}
	for _, tt := range []struct{ name, file string }{
		{"empty", ""}, {"cut off", whole[:len(whole)-1]}, {"hidden behind an empty line", strings.Replace(whole, "\n", "\n\n", 1)},
		{"hidden behind blanks", strings.Replace(whole, "\n", "\n \t\n", 1)}, {"empty but for a line", "\n"}, {"another version", strings.Replace(whole, `"v":1`, `"v":2`, 1)},
		{"unknown member", strings.Replace(whole, `"v":1`, `"v":1,"w":2`, 1)}, {"two values in a line", strings.Replace(whole, "\n", "{}\n", 1)},
	} {
		if _, err := verify.Bundle(strings.NewReader(tt.file), b.trust); problem.Of(err) != problem.Malformed {
			t.Errorf("a bundle that is %s: got %v, want malformed", tt.name, err)
		}
	}
	if _, err := verify.NewReader(io.MultiReader(strings.NewReader("{"), broken{})); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: got %v, want its error", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestForgedBundle changes one thing at a time; each must be found.
func TestForgedBundle(t *testing.T) {
	t.Parallel()
	type forge func(b *bundle) (api.SignedOrder, api.BatchRecord)
	plain := func(change func(b *bundle)) forge {
		return func(b *bundle) (api.SignedOrder, api.BatchRecord) {
			change(b)
			return b.signed(), b.batch(1)
		}
	}
	receipts := func(change func(b *bundle, r *api.BatchRecord)) forge {
		return func(b *bundle) (api.SignedOrder, api.BatchRecord) {
			r := b.batch(1)
			change(b, &r)
			return b.signed(), r
		}
	}
	claim := func(change func(*token.Receipt)) forge {
		return receipts(func(b *bundle, r *api.BatchRecord) {
			r.Receipts[1] = b.receipt(r.Manifest, token.Destination, b.destination, b.outcomes(token.Destination), change)
		})
	}
	said := func(change func(outs []token.Outcome)) forge {
		return receipts(func(b *bundle, r *api.BatchRecord) {
			outs := b.outcomes(token.Destination)
			change(outs)
			r.Receipts[1] = b.receipt(r.Manifest, token.Destination, b.destination, outs, nil)
		})
	}
	for _, tt := range []struct {
		name  string
		want  problem.Code
		forge forge
	}{
		{"order signed by another", problem.OrderUnsigned, plain(func(b *bundle) { b.aliceS = b.south.Issue(token.Subscriber, "mallory") })},
		{"order signed with an expired certificate", problem.CertExpired, plain(func(b *bundle) { b.aliceN = b.north.Issue(token.Subscriber, "alice", certstest.Expired()) })},
		{"order signed by a foreign authority", problem.CertUnknown, plain(func(b *bundle) {
			b.aliceN = certstest.NewUnconstrained(b.t, "evil").Issue(token.Subscriber, "alice", certstest.As("spiffe://north/subscriber/alice"))
		})},
		{"one signature only", problem.OrderUnsigned, func(b *bundle) (api.SignedOrder, api.BatchRecord) {
			so := b.signed()
			return api.SignedOrder{JWS: so.JWS[:1], Chains: so.Chains[:1]}, b.batch(1)
		}},
		{"item renamed", problem.OrderNotCovered, plain(func(b *bundle) { b.items[1].Dst = "elsewhere" })},
		{"manifest of another order", problem.CapManifest, func(b *bundle) (api.SignedOrder, api.BatchRecord) {
			r := b.batch(1)
			b.order.To.Name = "other"
			return b.signed(), r
		}},
		{"batch under another number", problem.CapManifest, receipts(func(_ *bundle, r *api.BatchRecord) { r.Bat = 2 })},
		{"receipt by an agent of a third party", problem.CertUnknown, plain(func(b *bundle) {
			b.destination = certstest.New(b.t, "west").Issue(token.Agent, "w1")
		})},
		{"receipt by an agent of the other side", problem.ForeignPeer, plain(func(b *bundle) { b.destination = b.source })},
		{"receipt with an expired certificate", problem.CertExpired, plain(func(b *bundle) { b.source = b.north.Issue(token.Agent, "n1", certstest.Expired()) })},
		{"receipt for another batch", problem.WrongStatement, claim(func(r *token.Receipt) { r.Bat = 9 })},
		{"receipt for another manifest", problem.WrongStatement, claim(func(r *token.Receipt) { r.Man = token.HashOf(nil) })},
		{"receipt for another broker", problem.WrongStatement, claim(func(r *token.Receipt) { r.Aud = "spiffe://hub/broker/other" })},
		{"receipt for another order", problem.WrongStatement, claim(func(r *token.Receipt) { r.Ord = token.HashOf(nil) })},
		{"receipt that counts more bytes", problem.Malformed, claim(func(r *token.Receipt) { r.Bytes++ })},
		{"receipt with one line less", problem.Malformed, receipts(func(_ *bundle, r *api.BatchRecord) {
			first, _, _ := strings.Cut(r.Receipts[1].Lines, "\n")
			r.Receipts[1].Lines = first + "\n"
		})},
		{"outcome line changed", problem.Malformed, receipts(func(_ *bundle, r *api.BatchRecord) {
			r.Receipts[1].Lines = strings.Replace(r.Receipts[1].Lines, `"size":10`, `"size":11`, 1)
		})},
		{"receipt there twice", problem.Conflict, receipts(func(_ *bundle, r *api.BatchRecord) { r.Receipts = append(r.Receipts, r.Receipts[0]) })},
		{"stored, but the source sent another digest", problem.Disputed, receipts(func(b *bundle, r *api.BatchRecord) {
			outs := b.outcomes(token.Source)
			outs[0].Digest = token.Digest("blake3:" + strings.Repeat("cd", 32))
			r.Receipts[0] = b.receipt(r.Manifest, token.Source, b.source, outs, nil)
		})},
		{"stored without the value hash that was asked for", problem.Malformed, said(func(outs []token.Outcome) { outs[0].Hash = "" })},
		{"stored with another value hash", problem.Malformed, said(func(outs []token.Outcome) { outs[0].Hash = token.ValueDigest("MD5:" + strings.Repeat("0", 32)) })},
		{"stored with a value hash that nobody asked for", problem.Malformed, said(func(outs []token.Outcome) { outs[1].Hash = outs[0].Hash })},
		{"stored with another digest than was ordered", problem.DigestDiffers, plain(func(b *bundle) {
			b.items = b.items[:1]
			b.items[0].Digest = token.Digest("blake3:" + strings.Repeat("cd", 32))
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			so, rec := tt.forge(b)
			a, err := verify.NewAuditor(so, b.trust)
			if err != nil {
				t.Fatalf("reading the order: %v", err)
			}
			a.Batch(rec)
			r := a.Report()
			if r.Good() || r.Problems[0].Code != tt.want || r.Problems[0].Sentence == "" {
				t.Errorf("got %+v, want %s first", r.Problems, tt.want)
			}
		})
	}
}

func TestBatchTwice(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	rec := b.batch(1)
	a.Batch(rec)
	a.Batch(rec)
	if r := a.Report(); r.Wrong != 1 || r.Problems[0].Code != problem.Conflict || r.Stored != 2 {
		t.Errorf("got %+v, want the second one refused and not counted", r)
	}
}

func TestOneSidedIsSaid(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	rec := b.batch(1)
	rec.Receipts = rec.Receipts[1:]
	a.Batch(rec)
	if r := a.Report(); !r.Good() || r.OneSided != 2 || r.Stored != 0 {
		t.Errorf("got %+v, want two items by one side's word", r)
	}
}

func TestStoreThatIsNotExclusiveIsSaid(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	rec := b.batch(1)
	rec.Receipts[1] = b.receipt(b.manifest(1), token.Destination, b.destination, b.outcomes(token.Destination), func(r *token.Receipt) {
		r.CreateBy = token.GuardAgent
	})
	a.Batch(rec)
	if r := a.Report(); !r.Good() || r.Looked != 2 || r.Stored != 2 {
		t.Errorf("got %+v, want two items that the agent alone guarded", r)
	}
}

// TestBigBundle audits 100,000 items without keeping more than one batch.
func TestBigBundle(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.items = nil
	for i := range 1000 {
		n := token.ObjectName(fmt.Sprintf("dir/%06d", i))
		b.items = append(b.items, token.Item{Src: n, Dst: n, Size: 4096, Part: token.ChunkSize, Version: "v"})
	}
	batches := int64(100)
	if testing.Short() {
		batches = 5
	}
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		bw, err := verify.NewWriter(w, b.signed())
		for bat := int64(1); err == nil && bat <= batches; bat++ {
			err = bw.Write(b.batch(bat))
		}
		wrote <- errors.Join(err, w.CloseWithError(err))
	}()
	rep, err := verify.Bundle(r, b.trust)
	if werr := <-wrote; err != nil || werr != nil || !rep.Good() || rep.Stored != batches*1000 {
		t.Errorf("got %d stored, %d wrong, %v, %v, want %d", rep.Stored, rep.Wrong, err, werr, batches*1000)
	}
}
