package broker

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// unsigned is an order as a client that cannot sign hands it in.
func unsigned(o token.Order) api.SignedOrder { return api.SignedOrder{Claims: &o} }

// trusting lets both agents take this broker's word, and links the accounts.
func (w *world) trusting() (src, dst *fake) {
	src, dst = w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	for _, f := range []*fake{src, dst} {
		f.hello.Exports[0].Session = true
		f.connect()
	}
	w.mustLink(w.alice[0], w.alice[1])
	return src, dst
}

func bySession(r *token.Receipt) { r.Authority = token.BySession }

// checkWord fails unless a task carries the word of this broker for o, and nothing else.
func (w *world) checkWord(k api.Task, o token.Order) {
	w.t.Helper()
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.VerifySessionOrder(k.Order.Session, keys, w.b.self)
	if err != nil || v.Claims.ID != o.ID || len(k.Order.JWS) > 0 || len(k.Order.Chains) > 0 || k.Order.Claims != nil {
		w.t.Errorf("got the order %+v (%v), want the broker's word for %s alone", k.Order, err, o.ID)
	}
}

// TestSessionOrderIsCarriedOut: who cannot sign has a copy made on the broker's word, and everything says so.
func TestSessionOrderIsCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.trusting()
	o := w.order()
	got, err := w.b.Submit(t.Context(), w.me(), unsigned(o), w.now)
	if err != nil || got.Authority != token.BySession {
		t.Fatalf("got %+v and %v, want a transfer by session", got, err)
	}
	if again, err := w.b.Submit(t.Context(), w.me(), unsigned(o), w.now.Add(72*time.Hour)); err != nil || again.ID != o.ID {
		t.Errorf("the same once more, after its end: got %+v and %v, want the transfer as it is", again, err)
	}
	k := src.task(api.ListTask)
	w.checkWord(k, o)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10)}, Last: true})
	serve, receive := batch(src, dst)
	for _, task := range []api.Task{serve, receive} {
		w.checkWord(task, o)
		keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
		if err != nil {
			t.Fatal(err)
		}
		c, err := token.VerifyCapability(task.Capability, keys)
		if err != nil || c.Claims.Authority != token.BySession {
			t.Errorf("got the capability %+v and %v, want one by session", c.Claims, err)
		}
	}
	if _, err := w.b.PostReceipt(t.Context(), dst.peer, dst.receipt(receive, nil), w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("a receipt that claims a signed order: got %v, want %q", err, problem.WrongStatement)
	}
	dst.post(dst.receipt(receive, nil, bySession))
	src.post(src.receipt(serve, nil, bySession))
	w.want(o.ID, api.Complete, map[token.Result]int64{token.Stored: 1})
	so, err := w.b.Order(t.Context(), w.me(), o.ID)
	if err != nil || so.Session == "" || so.Claims == nil || so.Claims.ID != o.ID || len(so.JWS) > 0 {
		t.Errorf("got %+v and %v, want the claims and the broker's word", so, err)
	}
}

// TestSessionOrderAfterARestart: the word is given again, with the key that is in use then.
func TestSessionOrderAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.trusting()
	o := w.order()
	if _, err := w.b.Submit(t.Context(), w.me(), unsigned(o), w.now); err != nil {
		t.Fatal(err)
	}
	src.leave()
	old := w.b.signer().KeyID()
	w.nextKey()
	w.step()
	w.now = w.now.Add(w.b.conf.KeyAhead)
	w.step()
	w.crash()
	if w.b.signer().KeyID() == old {
		t.Fatal("the new key does not sign")
	}
	src.connect()
	k := src.task(api.ListTask)
	if k.Order.Session == "" || !strings.Contains(header(t, k.Order.Session), w.b.signer().KeyID()) {
		t.Errorf("got the header %s, want the key %s", header(t, k.Order.Session), w.b.signer().KeyID())
	}
}

// TestSessionOrderIsRefused: each thing that is wrong with an order that nobody signed, early and with its reason.
func TestSessionOrderIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair() // which take nobody's word
	mallory := peerOf(w.north.Issue(token.Subscriber, "mallory"))
	signed := w.sign(w.order())
	notLinked := func(when string) {
		t.Helper()
		says := "spiffe://south/subscriber/alice is not linked to spiffe://north/subscriber/alice"
		if _, err := w.b.Submit(t.Context(), w.me(), unsigned(w.order()), w.now); problem.Of(err) != problem.NotLinked || !strings.Contains(problem.As(err).Sentence(), says) {
			t.Errorf("an order of an account that is not linked, %s: got %v, want %q", when, err, problem.NotLinked)
		}
	}
	notLinked("before it was")
	w.mustLink(w.alice[0], w.alice[1])
	for _, tt := range []struct {
		name string
		so   api.SignedOrder
		by   string
		want problem.Code
		says string
	}{
		{"of somebody else", unsigned(w.order()), "mallory", problem.NotPermitted, "mallory"},
		{"that no agent takes", unsigned(w.order()), "", problem.PolicyRefused, `"src"`},
		{"with a signature beside it", api.SignedOrder{JWS: signed.JWS, Chains: signed.Chains, Claims: unsigned(w.order()).Claims}, "", problem.Malformed, "signed by nobody"},
		{"with a broker's word", api.SignedOrder{Session: "x.y.z"}, "", problem.WrongStatement, "taken from nobody"},
		{"with a broker's word beside claims", api.SignedOrder{Session: "x.y.z", Claims: unsigned(w.order()).Claims}, "", problem.WrongStatement, "taken from nobody"},
		{"that is a standing one", unsigned(w.order(func(o *token.Order) { o.Period = 3600 })), "", problem.Malformed, "standing"},
		{"that has ended", unsigned(w.order(func(o *token.Order) { o.Iat, o.Exp = o.Iat-7200, o.Iat-3600 })), "", problem.OrderExpired, ""},
		{"that is not well formed", unsigned(w.order(func(o *token.Order) { o.From.Name = "a/../b" })), "", problem.BadName, ""},
		{"for another provider", unsigned(w.order(func(o *token.Order) { o.To.Provider, o.Accounts[1] = "west", "spiffe://west/subscriber/alice" })), "", problem.UnknownProvider, "west"},
	} {
		peer := w.me()
		if tt.by != "" {
			peer = mallory
		}
		_, err := w.b.Submit(t.Context(), peer, tt.so, w.now)
		if problem.Of(err) != tt.want || !strings.Contains(problem.As(err).Sentence(), tt.says) {
			t.Errorf("an order %s: got %v, want %q with %q", tt.name, err, tt.want, tt.says)
		}
	}
	src.hello.Exports[0].Session = true // and the destination not
	src.leave()
	src.connect()
	if _, err := w.b.Submit(t.Context(), w.me(), unsigned(w.order()), w.now); problem.Of(err) != problem.PolicyRefused || !strings.Contains(problem.As(err).Sentence(), `"dst"`) {
		t.Errorf("where one agent of two takes it: got %v, want %q that names the container", err, problem.PolicyRefused)
	}
	dst.leave()
	w.meet(w.alice[0])
	thief := w.subscriber(w.north, "alice") // with a key of its own
	w.meet(thief)
	if _, err := w.b.Submit(t.Context(), peerOf(thief), unsigned(w.order()), w.now); problem.Of(err) != problem.NotLinked {
		t.Errorf("in the session of a new key that nobody has acknowledged: got %v, want %q", err, problem.NotLinked)
	}
	if _, err := w.b.Unlink(t.Context(), w.me(), "spiffe://south/subscriber/alice", w.now); err != nil {
		t.Fatal(err)
	}
	notLinked("after it was")
}

// TestSessionOrderBeforeItsAgents: an order that came before any agent ends with the reason once those who come do not take it.
func TestSessionOrderBeforeItsAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustLink(w.alice[0], w.alice[1])
	o := w.order()
	if _, err := w.b.Submit(t.Context(), w.me(), unsigned(o), w.now); err != nil {
		t.Fatal(err)
	}
	w.step()
	w.pair()
	got := w.want(o.ID, api.Failed, map[token.Result]int64{})
	if got.Problem == nil || got.Problem.Code != problem.PolicyRefused || !strings.Contains(got.Problem.Detail, "session") {
		t.Errorf("got the problem %+v, want %q that names the setting", got.Problem, problem.PolicyRefused)
	}
}

// TestSessionLookup: a listing on the broker's word goes to an agent that takes it.
func TestSessionLookup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.trusting()
	o := w.order(func(o *token.Order) {
		o.Do, o.IfExists, o.To, o.Accounts = token.List, "", token.Location{}, o.Accounts[:1]
	})
	done := make(chan error, 1)
	var got api.LookupResult
	go func() {
		var err error
		got, err = w.b.Lookup(context.Background(), w.me(), api.Lookup{Order: unsigned(o)}, w.now)
		done <- err
	}()
	k := src.task(api.ListTask)
	w.checkWord(k, o)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10)}, Last: true})
	if err := <-done; err != nil || len(got.Entries) != 1 {
		t.Errorf("got %+v and %v, want one entry", got, err)
	}
}

// TestBatchesKeepToThePolicy: batches are cut as small as the agents' local policy wants them, so that none is refused for its size.
func TestBatchesKeepToThePolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.hello.Exports[0].MaxItems, dst.hello.Exports[0].MaxBytes = 2, 100
	src.connect()
	dst.connect()
	id := w.submit(w.order())
	src.list(object("a", 60), object("b", 60), object("c", 1), object("d", 1), object("e", 500))
	sizes := map[int64][]int64{}
	for range 4 {
		receive := dst.task(api.ReceiveTask)
		for _, it := range dst.manifest(receive).Items {
			sizes[receive.Bat] = append(sizes[receive.Bat], it.Size)
		}
	}
	for bat, of := range sizes {
		total := int64(0)
		for _, n := range of {
			total += n
		}
		if len(of) > 2 || len(of) > 1 && total > 100 {
			t.Errorf("batch %d: got items of %v bytes, want at most 2 and 100 bytes", bat, of)
		}
	}
	if got := w.transfer(id).Items; got != 5 {
		t.Errorf("got %d items, want 5", got)
	}
}

// header is the protected header of a statement.
func header(t *testing.T, jws string) string {
	t.Helper()
	part, _, _ := strings.Cut(jws, ".")
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSessionNamesAnAccountThatEnded: a link outlives an account. Whoever has the other one cannot go on acting in the name of an account that
// its own provider has let end, and which nobody could use with its own key any more.
func TestSessionNamesAnAccountThatEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	until := func(end time.Duration, opts ...certstest.Option) *certstest.Leaf {
		return w.south.Issue(token.Subscriber, "alice", append(opts, certstest.Valid(w.now.Add(-time.Hour), w.now.Add(end)))...)
	}
	key := w.alice[1].Key
	w.alice[1] = until(2*time.Hour, certstest.ForKey(key))
	w.trusting()
	submit := func() error { _, err := w.b.Submit(t.Context(), w.me(), unsigned(w.order()), w.now); return err }
	if err := submit(); err != nil {
		t.Fatalf("while both are good: %v", err)
	}
	w.now = w.now.Add(3 * time.Hour)
	err := submit()
	if problem.Of(err) != problem.CertExpired || !strings.Contains(problem.As(err).Sentence(), "spiffe://south/subscriber/alice") || problem.As(err).Remedy == "" {
		t.Errorf("once the other has ended: got %v, want %s with its name and a remedy", err, problem.CertExpired)
	}
	w.meet(until(time.Hour)) // a thief's, or a new key that nobody has acknowledged
	if err := submit(); problem.Of(err) != problem.CertExpired {
		t.Errorf("after a call with an unsettled key: got %v, want %s", err, problem.CertExpired)
	}
	w.meet(until(time.Hour, certstest.ForKey(key)))
	if err := submit(); err != nil {
		t.Errorf("once it has called with a good certificate: %v", err)
	}
}
