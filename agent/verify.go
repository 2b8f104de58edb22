package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxAccounts is how many signatures an order carries at most: one a provider.
const maxAccounts = 2

// A will is a subscriber's order as this agent has verified it.
type will struct {
	token.Order
	ord     token.Hash
	run     int64            // of a standing order; else 0
	xfr     token.TransferID // of the run
	account token.Identity   // the subscriber at our own provider

	authority token.Authority // what that rests on
}

// readOrder returns the order of so with its chains if each JWS is signed by the leaf of the chain beside it, all over
// the same payload, one an account. Who the chains are is not judged.
func readOrder(so api.SignedOrder) (token.Verified[token.Order], []certs.Chain, error) {
	var first token.Verified[token.Order]
	if n := len(so.JWS); n == 0 || n > maxAccounts || n != len(so.Chains) {
		return first, nil, problem.New(problem.OrderUnsigned, "The task carries %d signatures and %d chains of its order", n, len(so.Chains))
	}
	chains := make([]certs.Chain, len(so.JWS))
	for i, jws := range so.JWS {
		chain, err := certs.ParseChain([]byte(so.Chains[i]))
		if err != nil {
			return token.Verified[token.Order]{}, nil, fmt.Errorf("reading the chain of signature %d: %w", i, err)
		}
		v, err := token.VerifyOrder(jws, chain.Leaf().PublicKey)
		if err != nil {
			return token.Verified[token.Order]{}, nil, fmt.Errorf("verifying signature %d of the order: %w", i, err)
		}
		if i == 0 {
			first = v
		} else if v.Hash != first.Hash {
			return token.Verified[token.Order]{}, nil, problem.New(problem.OrderUnsigned, "The signatures are of different orders")
		}
		chains[i] = chain
	}
	if len(first.Claims.Accounts) != len(chains) {
		return token.Verified[token.Order]{}, nil, problem.New(problem.OrderUnsigned, "The order names %d accounts and carries %d signatures", len(first.Claims.Accounts), len(chains))
	}
	return first, chains, nil
}

// verifyOrder returns the order of so, as its first run, if the accounts that it names signed it: each chain names its account, and is good
// at iat and when this agent first saw the order; for a standing order it is good now, and may be newer than the signature, which
// it verifies all the same only if its key is the one that signed. A chain that we cannot
// judge is the other provider's business; ours is never taken on faith.
func (a *Agent) verifyOrder(so api.SignedOrder, now time.Time) (will, error) {
	v, chains, err := readOrder(so)
	if err != nil {
		return will{}, err
	}
	own, ok := v.Claims.Account(a.self.Provider())
	if !ok {
		return will{}, problem.New(problem.OrderUnsigned, "The order names no account at %s", a.self.Provider())
	}
	if err := a.mayAct(v.Claims, now); err != nil {
		return will{}, err
	}
	moments := []time.Time{time.Unix(v.Claims.Iat, 0), a.orders.firstSeen(v.Hash, now)}
	if v.Claims.Standing() {
		moments = []time.Time{now}
	}
	for i, account := range v.Claims.Accounts {
		if account != own && !a.conf.Trust.CanJudge(chains[i], account.Provider()) {
			continue
		}
		for _, at := range moments {
			id, err := a.conf.Trust.Verify(chains[i], at)
			if err != nil {
				return will{}, fmt.Errorf("verifying the chain of %s: %w", account, err)
			}
			if id != account || id.Role() != token.Subscriber {
				return will{}, problem.New(problem.OrderUnsigned, "The order names the account %s and is signed by %s", account, id)
			}
		}
	}
	return will{Order: v.Claims, ord: v.Hash, account: own, authority: token.ByOrder, xfr: v.Claims.ID}, nil
}

// mayAct reports whether anything may be done for o at now: problem.OrderExpired, OrderNotYet, OrderWithdrawn, or IDDenied for as long as
// one of its accounts is denied here.
func (a *Agent) mayAct(o token.Order, now time.Time) error {
	if err := o.CheckTime(now); err != nil {
		return err
	}
	if err := a.conf.Trust.Denied(o.Accounts...); err != nil {
		return err
	}
	return a.withdrawn.check(o)
}

// at returns w as its run k, if that is due at now.
func (w will) at(k int64, now time.Time) (will, error) {
	if err := w.CheckRun(k, now); err != nil {
		return will{}, err
	}
	w.run, w.xfr = k, w.Run(k)
	return w, nil
}

// checkKind reports whether the order wants what a task of that kind does, here.
func (w will) checkKind(kind api.TaskKind, self token.Provider) error {
	var verbs []token.Verb
	at := w.From
	switch kind {
	case api.ListTask:
		verbs = []token.Verb{token.Copy, token.List}
	case api.StatTask:
		verbs = []token.Verb{token.Copy, token.Stat}
	case api.MakeTask:
		verbs, at = []token.Verb{token.Copy, token.Make}, w.To
	case api.EraseTask:
		verbs, at = []token.Verb{token.Erase}, w.To
	case api.ServeTask:
		verbs = []token.Verb{token.Copy}
	case api.ReceiveTask:
		verbs, at = []token.Verb{token.Copy}, w.To
	default:
		return problem.New(problem.Malformed, "This agent knows no task of kind %q", kind)
	}
	switch {
	case !slices.Contains(verbs, w.Do):
		return problem.New(problem.OrderNotCovered, "An order to %s is not one for a task to %s", w.Do, kind)
	case at.Provider != self:
		return problem.New(problem.OrderNotCovered, "The order asks this of %s, not of %s", at.Provider, self)
	case kind == api.ListTask && w.Scope != token.Tree:
		return problem.New(problem.OrderNotCovered, "The order names one object and allows no listing")
	case kind == api.MakeTask && w.Do == token.Copy && w.Scope != token.Tree:
		return problem.New(problem.OrderNotCovered, "The order copies one object and makes no container")
	}
	return nil
}

// checkNames reports whether the order covers every name of a stat or make task. One to erase has none.
func (w will) checkNames(kind api.TaskKind, names []token.ObjectName) error {
	if len(names) > api.MaxNames {
		return problem.New(problem.TooLarge, "The task has more than %d names", api.MaxNames)
	}
	if kind == api.EraseTask && len(names) > 0 {
		return problem.New(problem.OrderNotCovered, "What is erased stands in the order, and a task names nothing beside it")
	}
	for _, n := range names {
		if err := w.checkOneName(kind, n); err != nil {
			return err
		}
	}
	return nil
}

func (w will) checkOneName(kind api.TaskKind, n token.ObjectName) error {
	if kind == api.StatTask {
		return w.Selects(n)
	}
	if err := token.CheckName(n); err != nil {
		return err
	}
	if n == w.To.Name {
		return nil
	}
	rest, below := string(n), w.Scope == token.Tree
	if below && w.To.Name != "" {
		rest, below = strings.CutPrefix(rest, string(w.To.Name)+"/")
	}
	if !below {
		return problem.New(problem.OrderNotCovered, "The order does not make the name %q", n)
	}
	if w.From.Name != "" {
		rest = string(w.From.Name) + "/" + rest
	}
	_, err := w.Destination(token.ObjectName(rest)) // filters look at the source
	return err
}

// checkPeer reports whether peer is an agent of the provider that must be at the other end.
func checkPeer(peer token.Identity, want token.Provider) error {
	id, err := token.ParseIdentity(string(peer))
	if err != nil || id.Role() != token.Agent || id.Provider() != want {
		return problem.New(problem.ForeignPeer, "The peer %q is not an agent of %s", peer, want)
	}
	return nil
}

// A grant is a capability that was verified: what it says, its name in receipts, and, at a
// destination, the one to present to the source.
type grant struct {
	Claims  token.Capability `json:"claims"`
	Hash    token.Hash       `json:"hash"`
	Present string           `json:"present,omitempty"`
	Key     string           `json:"key,omitempty"` // id of the key that signed it
}

// A bill is what a receive or serve task comes to once every rule has let it pass.
type bill struct {
	key    batchKey
	will   will
	export *Export
	man    token.Manifest
	hash   token.Hash // of man
	grant  grant
	total  int64
}

// verifyBatch applies every rule to a receive (do is Create) or serve (do is Read) task. Nothing was done before it returns.
func (a *Agent) verifyBatch(s *session, t api.Task, w will, do token.Verb, now time.Time) (bill, error) {
	b := bill{will: w, key: batchKey{iss: s.id(), xfr: w.xfr, bat: t.Bat, do: do}}
	here, there := w.From, w.To.Provider
	if do == token.Create {
		here, there = w.To, w.From.Provider
	}
	var err error
	var view policy.View
	if b.export, view, err = a.export(s.id(), w, do); err != nil {
		return bill{}, err
	}
	if b.man, b.hash, err = token.ParseManifest(t.Manifest); err != nil {
		return bill{}, err
	}
	if m := b.man; m.Iss != s.id() || m.Xfr != w.xfr || m.Bat != t.Bat || m.Ord != w.ord {
		return bill{}, problem.New(problem.CapManifest, "The manifest is of another broker, transfer, batch or order")
	}
	for _, it := range b.man.Items {
		if err := w.Covers(it); err != nil {
			return bill{}, err
		}
		b.total += it.Size
	}
	right := policy.Read
	if do == token.Create {
		right = policy.Create
		if err := checkParts(b.man.Items, a.traits[here.Container]); err != nil {
			return bill{}, err
		}
	}
	if err := view.Batch(right, b.man.Items); err != nil { // some that are denied are no reason to refuse the others
		return bill{}, err
	}
	if l := w.Limits; l.Items > 0 && int64(len(b.man.Items)) > l.Items || l.Bytes > 0 && b.total > l.Bytes {
		return bill{}, problem.New(problem.OrderNotCovered, "The batch is larger than the order allows")
	}
	if err := checkPeer(t.Peer.ID, there); err != nil {
		return bill{}, err
	}
	if b.grant, err = a.verifyGrant(s, b, t.Capability, t.Present, t.Peer.ID, now); err != nil {
		return bill{}, err
	}
	if b.total > b.grant.Claims.Max {
		return bill{}, problem.New(problem.CapOverBudget, "The manifest holds %d bytes and the capability allows %d", b.total, b.grant.Claims.Max)
	}
	return b, nil
}

// maxPart bounds the parts of an item, bytes: the values of a part's chunks are held until it is whole.
const maxPart = 64 << 30

// checkParts reports whether the store can take the items in the parts of the manifest.
func checkParts(items []token.Item, t store.Traits) error {
	for _, it := range items {
		parts := store.Item{Size: it.Size, Part: it.Part}.Parts()
		switch {
		case it.Size <= token.ChunkSize: // taken whole
		case it.Part < t.PartSize || it.Part > maxPart:
			return problem.New(problem.PolicyRefused, "The manifest cuts %q into parts of %d bytes, and the destination's store takes from %d to %d", it.Dst, it.Part, t.PartSize, int64(maxPart))
		case parts > t.MaxParts:
			return problem.New(problem.PolicyRefused, "The manifest cuts %q into %d parts, and the destination's store takes %d at most", it.Dst, parts, t.MaxParts)
		}
	}
	return nil
}

// verifyGrant returns the capability in tok if it is an instruction of s's broker to us for the batch b, whose order has not ended. At a
// destination, present must be the matching right to read, bound to our key as well.
func (a *Agent) verifyGrant(s *session, b bill, tok, present string, peer token.Identity, now time.Time) (grant, error) {
	if err := a.mayAct(b.will.Order, now); err != nil {
		return grant{}, err
	}
	if err := s.revoked(b.key.xfr); err != nil {
		return grant{}, err
	}
	v, err := s.verifyCapability(tok, now, keysSoon)
	if err != nil {
		return grant{}, err
	}
	adm := token.Admission{Now: now, Self: a.self, Peer: peer, Leaf: v.Claims.Cnf, Do: b.key.do, Ord: b.will.ord, Man: b.hash}
	if b.key.do == token.Create {
		adm.Leaf = a.ownLeaf(v.Claims.Cnf)
	}
	if err := v.Claims.Admit(adm); err != nil {
		return grant{}, err
	}
	if err := b.checkCapability(v.Claims); err != nil {
		return grant{}, err
	}
	if b.key.do == token.Read {
		return grant{Claims: v.Claims, Hash: v.Hash, Key: v.KeyID}, nil
	}
	p, err := s.verifyCapability(present, now, keysSoon)
	if err != nil {
		return grant{}, fmt.Errorf("verifying the capability to present: %w", err)
	}
	adm = token.Admission{Now: now, Self: peer, Peer: a.self, Leaf: a.ownLeaf(p.Claims.Cnf), Do: token.Read, Ord: b.will.ord, Man: b.hash}
	if err := p.Claims.Admit(adm); err != nil {
		return grant{}, fmt.Errorf("checking the capability to present: %w", err)
	}
	if err := b.checkCapability(p.Claims); err != nil {
		return grant{}, err
	}
	return grant{Claims: v.Claims, Hash: v.Hash, Present: present, Key: v.KeyID}, nil
}

// checkAuthority reports whether c rests on what the order at hand does.
func (w will) checkAuthority(c token.Capability) error {
	if c.Authority != w.authority {
		return problem.New(problem.WrongStatement, "The capability rests on the authority %q and the order at hand on %q", c.Authority, w.authority)
	}
	return nil
}

// checkCapability reports whether c is of this very batch.
func (b bill) checkCapability(c token.Capability) error {
	if c.Iss != b.key.iss || c.Xfr != b.key.xfr || c.Bat != b.key.bat {
		return problem.New(problem.WrongStatement, "The capability is of another broker, transfer or batch")
	}
	return b.will.checkAuthority(c)
}
