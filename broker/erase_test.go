package broker

import (
	"context"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// erasure is an order to erase a state of south:/dst/NAME, or the empty container of that name.
func (w *world) erasure(name token.ObjectName, v token.Version) token.Order {
	return w.order(func(o *token.Order) {
		o.Do, o.Scope, o.IfExists, o.From, o.Version, o.Accounts = token.Erase, token.One, "", token.Location{}, v, o.Accounts[1:]
		o.To.Name = name
	})
}

// erase asks for an erasure in the background, in the session of the account at south.
func (w *world) erase(ctx context.Context, so api.SignedOrder) chan erased {
	c := make(chan erased, 1)
	go func() {
		r, err := w.b.Lookup(ctx, peerOf(w.alice[1]), api.Lookup{Order: so}, w.now)
		if err != nil || len(r.Entries) != 1 {
			c <- erased{err: err}
			return
		}
		c <- erased{entry: r.Entries[0]}
	}()
	return c
}

// eraser connects an agent of south that lets erase, also on the broker's word.
func (w *world) eraser() *fake {
	f := w.agent(w.south, "s1", "dst")
	f.hello.Exports[0].Erase, f.hello.Exports[0].Session, f.hello.Exports[0].Owner = true, true, goneAlice
	f.connect()
	return f
}

// TestErasureIsInTheLedger: what an agent says that it has erased is a leaf, once for each order, whoever waits for it; what it did not is none.
func TestErasureIsInTheLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dst := w.eraser()
	o := w.erasure("a", "v-1")
	answer := api.TaskPage{Entries: []api.Entry{{Name: "a", Type: "object", Size: 5, Version: "v-1", Sanitized: "overwrite"}}, Last: true}
	for range 2 {
		c := w.erase(t.Context(), w.sign(o))
		k := dst.task(api.EraseTask)
		if len(k.Names) > 0 || k.Order.Session != "" {
			t.Errorf("got %+v, want the order alone", k)
		}
		dst.page(k.ID, answer)
		if got := <-c; got.err != nil || got.entry.Name != "a" || got.entry.Sanitized != "overwrite" {
			t.Errorf("got %+v, want what the agent said", got)
		}
	}
	word := w.erasure("b/c", "")
	ctx, cancel := context.WithCancel(t.Context())
	c := w.erase(ctx, unsigned(word))
	k := dst.task(api.EraseTask)
	w.checkWord(k, word)
	cancel() // nobody waits any more
	if got := <-c; problem.Of(got.err) != problem.Timeout {
		t.Errorf("got %+v, want %q", got, problem.Timeout)
	}
	dst.page(k.ID, api.TaskPage{Entries: []api.Entry{{Name: "b/c", Type: "container"}}, Last: true})
	w.poll("the leaf of what nobody waits for", func() bool { return len(w.leavesOf(db.EraseLeaf)) == 2 })
	for i, want := range []string{
		`{"agent":"spiffe://south/agent/s1","authority":"order","by":"spiffe://south/subscriber/alice","container":"dst","kind":"object","method":"overwrite","name":"a","ord":`,
		`{"agent":"spiffe://south/agent/s1","authority":"session","by":"spiffe://south/subscriber/alice","container":"dst","kind":"container","method":"","name":"b/c","ord":`,
	} {
		if got := w.leavesOf(db.EraseLeaf)[i]; !strings.HasPrefix(got, want) {
			t.Errorf("got the leaf %s, want it to begin with %s", got, want)
		}
	}
	for name, p := range map[string]api.TaskPage{
		"another name": {Entries: []api.Entry{{Name: "x", Type: "object"}}, Last: true}, "nothing": {Last: true},
		"a name that could not be": {Entries: []api.Entry{{Name: "a", Code: problem.Changed}}, Last: true},
	} {
		c := w.erase(t.Context(), w.sign(w.erasure("a", "v-2")))
		dst.page(dst.task(api.EraseTask).ID, p)
		if got := <-c; problem.Of(got.err) != problem.PeerMisbehaved {
			t.Errorf("%s: got %+v, want %q", name, got, problem.PeerMisbehaved)
		}
	}
	c = w.erase(t.Context(), w.sign(w.erasure("a", "v-3")))
	dst.page(dst.task(api.EraseTask).ID, api.TaskPage{Entries: []api.Entry{}, Last: true, Problem: &api.Problem{Code: problem.OnHold, Detail: "It is held"}})
	if got := <-c; problem.Of(got.err) != problem.OnHold {
		t.Errorf("got %+v, want %q", got, problem.OnHold)
	}
}

// TestErasureThatIsRefused: nothing is asked of an agent that does not let erase, that is away, or of a name that a transfer is about to publish.
func TestErasureThatIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	refuse := func(when string, o token.Order, want problem.Code) {
		t.Helper()
		if got := <-w.erase(t.Context(), w.sign(o)); problem.Of(got.err) != want {
			t.Errorf("%s: got %v, want %q", when, got.err, want)
		}
	}
	refuse("without the right", w.erasure("a", "v"), problem.PolicyRefused)
	dst.leave()
	dst.hello.Exports[0].Erase = true
	dst.connect()
	refuse("in a container that is nobody's, where nobody may delete", w.erasure("a", "v"), problem.NotPermitted)
	dst.leave()
	dst.hello.Exports[0].Owner = goneAlice
	dst.connect()
	if got := <-w.erase(t.Context(), unsigned(w.erasure("a", "v"))); problem.Of(got.err) != problem.PolicyRefused {
		t.Errorf("on our word: got %+v, want %q", got, problem.PolicyRefused)
	}
	w.running(src, dst)
	refuse("what is about to be published", w.erasure("copy/a", "v"), problem.Claimed)
	refuse("a container in which something is about to be", w.erasure("copy", ""), problem.Claimed)
	dst.leave()
	refuse("with nobody there", w.erasure("x", "v"), problem.AgentAbsent)
	if _, err := w.b.Submit(t.Context(), peerOf(w.alice[1]), w.sign(w.erasure("a", "v")), w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("as a transfer: got %v, want %q", err, problem.WrongStatement)
	}
	if _, err := w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: w.sign(w.erasure("a", "v"))}, w.now); problem.Of(err) != problem.NotPermitted {
		t.Errorf("handed in by somebody else: got %v, want %q", err, problem.NotPermitted)
	}
	if n := w.leaves(db.EraseLeaf); n != 0 {
		t.Errorf("got %d leaves, want none", n)
	}
}
