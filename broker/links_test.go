package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// subscriber issues an account for longer than any of these tests lasts.
func (w *world) subscriber(ca *certstest.CA, name string, opts ...certstest.Option) *certstest.Leaf {
	w.t.Helper()
	return ca.Issue(token.Subscriber, name, append([]certstest.Option{certstest.Valid(w.now.Add(-time.Hour), w.now.Add(80*24*time.Hour))}, opts...)...)
}

// meet has an account call, and returns of how many changes of keys it is told.
func (w *world) meet(l *certstest.Leaf) int {
	w.t.Helper()
	n, err := w.b.Meet(w.t.Context(), peerOf(l), w.now)
	if err != nil {
		w.t.Fatalf("meeting %s: %v", peerOf(l).Identity, err)
	}
	return n
}

// link makes the statement of two accounts over a challenge that the first one gets, changed as the caller wishes.
func (w *world) link(a, b *certstest.Leaf, change ...func(*token.Link)) (token.Link, api.SignedLink) {
	w.t.Helper()
	c, err := w.b.LinkChallenge(peerOf(a), w.now)
	if err != nil {
		w.t.Fatalf("a challenge: %v", err)
	}
	l := token.Link{Accounts: []token.Identity{peerOf(a).Identity, peerOf(b).Identity}, Aud: w.b.self, Challenge: c.Challenge, Iat: w.now.Unix(), Exp: w.now.Add(5 * time.Minute).Unix()}
	by := []*certstest.Leaf{a, b}
	if l.Accounts[0] > l.Accounts[1] {
		slices.Reverse(l.Accounts)
		slices.Reverse(by)
	}
	for _, fn := range change {
		fn(&l)
	}
	return l, w.signLink(l, by, by)
}

func (w *world) signLink(l token.Link, keys, chains []*certstest.Leaf) api.SignedLink {
	w.t.Helper()
	var sl api.SignedLink
	for i, k := range keys {
		s, err := token.NewSigner(k.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		jws, err := s.Link(l)
		if err != nil {
			w.t.Fatalf("signing a link: %v", err)
		}
		sl.JWS, sl.Chains = append(sl.JWS, jws), append(sl.Chains, string(chains[i].Chain.PEM()))
	}
	return sl
}

func (w *world) mustLink(a, b *certstest.Leaf) {
	w.t.Helper()
	_, sl := w.link(a, b)
	if _, err := w.b.Link(w.t.Context(), peerOf(a), sl, w.now); err != nil {
		w.t.Fatalf("linking: %v", err)
	}
}

// accountEvents returns the events of an account.
func (w *world) accountEvents(id token.Identity) []api.Event {
	w.t.Helper()
	var out []api.Event
	err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		es, err := tx.Events(w.t.Context(), "", 0, 1000)
		for _, e := range es {
			if e.Account == id {
				out = append(out, e)
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// TestLinkedAccountsSee: each of two linked accounts sees the transfers of the other, and can change none; unlinked they see nothing.
func TestLinkedAccountsSee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.submit(w.order())
	carol, dave := w.subscriber(w.south, "carol"), w.subscriber(w.south, "dave")
	sees := func(l *certstest.Leaf) string {
		var got []string
		for name, call := range map[string]func() error{
			"transfer": func() error { _, err := w.b.Transfer(t.Context(), peerOf(l), id, 0, 0); return err },
			"events":   func() error { _, err := w.b.Events(t.Context(), peerOf(l), id, 0, 0); return err },
			"items":    func() error { _, err := w.b.Items(t.Context(), peerOf(l), id, "", ""); return err },
			"order":    func() error { _, err := w.b.Order(t.Context(), peerOf(l), id); return err },
			"batches":  func() error { _, err := w.b.Batches(t.Context(), peerOf(l), id, ""); return err },
		} {
			err := call()
			if err == nil {
				got = append(got, name)
			} else if problem.Of(err) != problem.Hidden {
				t.Errorf("%s: got %v, want that there is nothing", name, err)
			}
		}
		page, err := w.b.Transfers(t.Context(), peerOf(l), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) > 0 {
			got = append(got, fmt.Sprintf("%d listed", len(page.Items)))
		}
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	if got := sees(carol); got != "" {
		t.Errorf("before the link carol sees %s", got)
	}
	w.mustLink(w.alice[0], carol)
	w.mustLink(w.alice[0], carol) // again: no news
	if got := sees(carol); got != "1 listed batches events items order transfer" {
		t.Errorf("linked, carol sees %s", got)
	}
	if got := sees(w.alice[0]); !strings.HasPrefix(got, "1 listed") {
		t.Errorf("alice sees %s", got)
	}
	if got := sees(dave); got != "" {
		t.Errorf("dave, who is not linked, sees %s", got)
	}
	if got := sees(w.subscriber(w.south, "carol")); got == "" {
		t.Error("a certificate of carol's that the broker has not met as a change: it sees nothing")
	}
	for name, call := range map[string]func() error{
		"cancel": func() error { _, err := w.b.Cancel(t.Context(), peerOf(carol), id, w.now); return err },
		"pause":  func() error { _, err := w.b.Pause(t.Context(), peerOf(carol), id, w.now); return err },
		"resume": func() error { _, err := w.b.Resume(t.Context(), peerOf(carol), id, w.now); return err },
	} {
		if err := call(); problem.Of(err) != problem.NotPermitted || !strings.Contains(err.Error(), "a link is no authority") {
			t.Errorf("%s by a linked account: got %v, want a refusal", name, err)
		}
	}
	for other, want := range map[token.Identity]bool{"spiffe://south/subscriber/carol": true, "spiffe://south/subscriber/alice": false, "spiffe://north/subscriber/alice": true} {
		if got, err := w.b.linked(t.Context(), peerOf(w.alice[0]), other); err != nil || got != want {
			t.Errorf("alice and %s: got %v, %v, want %v", other, got, err, want)
		}
	}
	if n := len(w.leavesOf(db.LinkLeaf)); n != 1 {
		t.Errorf("got %d leaves of links, want 1", n)
	}
	w.crash()
	if got := sees(carol); got == "" {
		t.Error("the link is gone after a restart")
	}
	if _, err := w.b.Unlink(t.Context(), peerOf(dave), "spiffe://north/subscriber/alice", w.now); problem.Of(err) != problem.NotLinked {
		t.Errorf("unlinking what is not linked: got %v, want account-not-linked", err)
	}
	if a, err := w.b.Unlink(t.Context(), peerOf(carol), "spiffe://north/subscriber/alice", w.now); err != nil || len(a.Linked) != 0 {
		t.Errorf("unlinking: got %+v, %v", a, err)
	}
	if got := sees(carol); got != "" {
		t.Errorf("unlinked, carol sees %s", got)
	}
	if es := w.accountEvents("spiffe://north/subscriber/alice"); len(es) != 2 || es[0].Kind != api.AccountLinked || es[1].Kind != api.AccountUnlinked {
		t.Errorf("events of alice: got %+v", es)
	}
}

// TestLinkedStreams: the event stream of an account shows the events of linked accounts, for as long as they are.
func TestLinkedStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	carol := w.subscriber(w.south, "carol")
	first, second := w.order(), w.order(func(o *token.Order) { o.To.Name = "other" })
	w.submit(first)
	// behind returns the events up to now, or the first ones up to a transfer's.
	behind := func(until token.TransferID) (kinds []api.EventKind) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		pings := 0
		err := w.b.Follow(ctx, peerOf(carol), 0, func(l api.EventLine) error {
			if l.Event != nil {
				kinds = append(kinds, l.Event.Kind)
			} else if pings++; pings == 2 && until == "" {
				cancel()
			}
			if l.Event != nil && l.Event.Xfr == until {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("following: %v, after %v", err, kinds)
		}
		return kinds
	}
	if got := behind(""); len(got) != 0 {
		t.Errorf("before the link carol is told %v", got)
	}
	done := make(chan []api.EventKind, 1)
	go func() { done <- behind(second.ID) }() // is waited for below: the link widens the stream that is open
	w.mustLink(w.alice[0], carol)
	w.submit(second)
	if got := <-done; !slices.Contains(got, "ordered") {
		t.Errorf("linked, carol is told %v", got)
	}
	if _, err := w.b.Unlink(t.Context(), peerOf(w.alice[0]), peerOf(carol).Identity, w.now); err != nil {
		t.Fatal(err)
	}
	if got := behind(""); !slices.Equal(got, []api.EventKind{api.AccountLinked, api.AccountUnlinked}) {
		t.Errorf("unlinked, carol is told %v", got)
	}
}

// TestLinkSomebodyElsesAccount: nobody is linked who has not signed for it with the key of the account.
func TestLinkSomebodyElsesAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	eve, mallory := w.subscriber(w.north, "eve"), w.subscriber(w.south, "mallory")
	victim := w.alice[1]
	fake := certstest.NewUnconstrained(t, "south")
	forged := w.subscriber(fake, "alice")
	foreign := w.subscriber(w.north, "x", certstest.As("spiffe://south/subscriber/alice"))
	statement := func(change ...func(*token.Link)) token.Link {
		l, _ := w.link(eve, victim, change...)
		return l
	}
	for name, tt := range map[string]struct {
		by   *certstest.Leaf
		link func() api.SignedLink
		want problem.Code
	}{
		"signed by eve alone": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve}, []*certstest.Leaf{eve})
		}, problem.BadSignature},
		"signed twice by eve": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve, eve}, []*certstest.Leaf{eve, eve})
		}, problem.CertMismatch},
		"with the victim's chain": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve, eve}, []*certstest.Leaf{eve, victim})
		}, problem.UnknownKey},
		"with another account at south": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve, mallory}, []*certstest.Leaf{eve, mallory})
		}, problem.CertMismatch},
		"with a forged authority": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve, forged}, []*certstest.Leaf{eve, forged})
		}, problem.CertUnknown},
		"with north's word for south": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{eve, foreign}, []*certstest.Leaf{eve, foreign})
		}, problem.CertUnknown},
		"the other way round": {eve, func() api.SignedLink {
			l := statement()
			return w.signLink(l, []*certstest.Leaf{victim, eve}, []*certstest.Leaf{victim, eve})
		}, problem.CertMismatch},
		"handed in by a third": {mallory, func() api.SignedLink { _, sl := w.link(w.alice[0], victim); return sl }, problem.NotPermitted},
		"with eve's challenge": {w.alice[0], func() api.SignedLink {
			l := statement()
			_, sl := w.link(w.alice[0], victim, func(o *token.Link) { o.Challenge = l.Challenge })
			return sl
		}, problem.LinkRefused},
		"with a challenge of its own": {w.alice[0], func() api.SignedLink {
			_, sl := w.link(w.alice[0], victim, func(o *token.Link) { o.Challenge = token.HashOf(nil) })
			return sl
		}, problem.LinkRefused},
		"for another broker": {w.alice[0], func() api.SignedLink {
			_, sl := w.link(w.alice[0], victim, func(o *token.Link) { o.Aud = "spiffe://hub/broker/other" })
			return sl
		}, problem.LinkRefused},
		"for later": {w.alice[0], func() api.SignedLink {
			_, sl := w.link(w.alice[0], victim, func(o *token.Link) { o.Iat += 120; o.Exp += 120 })
			return sl
		}, problem.LinkRefused},
		"from before": {w.alice[0], func() api.SignedLink {
			_, sl := w.link(w.alice[0], victim, func(o *token.Link) { o.Iat -= 600; o.Exp -= 600 })
			return sl
		}, problem.LinkRefused},
		"of a provider that is not there": {eve, func() api.SignedLink { _, sl := w.link(eve, w.subscriber(certstest.New(t, "west"), "eve")); return sl }, problem.UnknownProvider},
	} {
		a, err := w.b.Link(t.Context(), peerOf(tt.by), tt.link(), w.now)
		if problem.Of(err) != tt.want || a.ID != "" {
			t.Errorf("%s: got %+v, %v, want %s", name, a, err, tt.want)
		}
	}
	so := w.sign(w.order())
	_, sl := w.link(w.alice[0], victim)
	if _, err := w.b.Link(t.Context(), w.me(), api.SignedLink{JWS: so.JWS, Chains: so.Chains}, w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("an order in the place of a link: got %v, want wrong-statement", err)
	}
	if _, err := w.b.Submit(t.Context(), w.me(), api.SignedOrder{JWS: sl.JWS, Chains: sl.Chains}, w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("a link in the place of an order: got %v, want wrong-statement", err)
	}
	for _, l := range []*certstest.Leaf{eve, victim, w.alice[0]} {
		if a, err := w.b.Account(t.Context(), peerOf(l)); err != nil || len(a.Linked) != 0 {
			t.Errorf("%s: got %+v, %v, want no link", a.ID, a.Linked, err)
		}
	}
}

// TestReplayOfALink: a link that was made works once, whatever became of it.
func TestReplayOfALink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, sl := w.link(w.alice[0], w.alice[1])
	if _, err := w.b.Link(t.Context(), peerOf(w.alice[0]), sl, w.now); err != nil {
		t.Fatal(err)
	}
	if _, err := w.b.Unlink(t.Context(), peerOf(w.alice[1]), peerOf(w.alice[0]).Identity, w.now); err != nil {
		t.Fatal(err)
	}
	again := func(when string) {
		t.Helper()
		if _, err := w.b.Link(t.Context(), peerOf(w.alice[0]), sl, w.now); problem.Of(err) != problem.LinkRefused {
			t.Errorf("replayed %s: got %v, want link-refused", when, err)
		}
	}
	again("after it was removed")
	w.crash()
	again("after a restart")
	_, sl = w.link(w.alice[0], w.alice[1])
	w.now = w.now.Add(token.MaxLinkLife)
	again("too late")
	for range maxChallengesBy {
		if _, err := w.b.LinkChallenge(peerOf(w.alice[0]), w.now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.b.LinkChallenge(peerOf(w.alice[0]), w.now); problem.Of(err) != problem.Overloaded {
		t.Errorf("challenges without end: got %v, want overloaded", err)
	}
	if _, err := w.b.LinkChallenge(peerOf(w.alice[1]), w.now); err != nil {
		t.Errorf("another account meanwhile: %v", err)
	}
}

// TestThiefCannotSilenceTheNotice: somebody gets a certificate in alice's name for a key of his own. Everybody whom it concerns is told, he gains
// nothing of the linked account, and nothing that he does ends the notice.
func TestThiefCannotSilenceTheNotice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	carol := w.subscriber(w.south, "carol")
	secret := w.submit(w.order(func(o *token.Order) { o.Accounts[1] = "spiffe://south/subscriber/alice" }))
	w.meet(w.alice[0])
	w.meet(carol)
	w.mustLink(w.alice[0], carol)
	theirs := w.order(func(o *token.Order) {
		o.Accounts = []token.Identity{"spiffe://north/subscriber/bob", "spiffe://south/subscriber/carol"}
	})
	bob := w.subscriber(w.north, "bob")
	if _, err := w.b.Submit(t.Context(), peerOf(carol), w.sign(theirs, bob, carol), w.now); err != nil {
		t.Fatal(err)
	}

	thief := w.subscriber(w.north, "alice") // a key of his own
	if n := w.meet(thief); n != 1 {
		t.Errorf("the thief is told of %d changes, want 1", n)
	}
	told := func(l *certstest.Leaf) []api.KeyChange {
		t.Helper()
		n := w.meet(l)
		a, err := w.b.Account(t.Context(), peerOf(l))
		if err != nil || n != len(a.Changes) {
			t.Fatalf("the notices of %s: got %d and %+v, %v", a.ID, n, a.Changes, err)
		}
		return a.Changes
	}
	for _, l := range []*certstest.Leaf{w.alice[0], carol} {
		cs := told(l)
		if len(cs) != 1 || cs[0].Account != "spiffe://north/subscriber/alice" || cs[0].From != w.alice[0].Chain.KeyHash() || cs[0].To != thief.Chain.KeyHash() {
			t.Fatalf("%s is told %+v, want the change", peerOf(l).Identity, cs)
		}
		es := w.accountEvents(peerOf(l).Identity)
		if i := slices.IndexFunc(es, func(e api.Event) bool { return e.Kind == api.KeyChanged }); i < 0 || !strings.Contains(es[i].Note, "If that was not you, tell the provider") {
			t.Errorf("events of %s: got %+v, want one of the change", peerOf(l).Identity, es)
		}
	}
	if len(told(bob)) != 0 {
		t.Error("somebody who is not linked is told")
	}
	n := told(carol)[0].N
	if _, err := w.b.Transfer(t.Context(), peerOf(thief), secret, 0, 0); err != nil {
		t.Errorf("what is alice's own, her authority vouches for: %v", err)
	}
	if _, err := w.b.Transfer(t.Context(), peerOf(thief), theirs.ID, 0, 0); problem.Of(err) != problem.Hidden {
		t.Errorf("a transfer of the linked account: got %v, want nothing", err)
	}
	if a, err := w.b.Account(t.Context(), peerOf(thief)); err != nil || a.Settled || len(a.Linked) != 0 {
		t.Errorf("what the thief is told: got %+v, %v, want no links", a, err)
	}
	if ok, err := w.b.linked(t.Context(), peerOf(thief), peerOf(carol).Identity); ok || err != nil {
		t.Errorf("in a session the thief acts for carol (%v)", err)
	}
	refused := func(what string, err error, want problem.Code) {
		t.Helper()
		if problem.Of(err) != want {
			t.Errorf("%s: got %v, want %s", what, err, want)
		}
	}
	ack := func(l *certstest.Leaf) error {
		_, err := w.b.Acknowledge(t.Context(), peerOf(l), api.Acknowledgement{Change: n, Verdict: api.Mine}, w.now)
		return err
	}
	refused("acknowledged by the thief", ack(thief), problem.NotPermitted)
	refused("acknowledged by a stranger", ack(bob), problem.Hidden)
	second := w.subscriber(w.north, "alice")
	w.meet(second)
	refused("acknowledged by another new key of the thief", ack(second), problem.NotPermitted)
	mallory := w.subscriber(w.south, "mallory")
	_, sl := w.link(thief, mallory)
	_, err := w.b.Link(t.Context(), peerOf(thief), sl, w.now)
	refused("an account of the thief linked", err, problem.LinkRefused)
	refused("acknowledged by that account", ack(mallory), problem.Hidden)
	if _, err := w.b.Unlink(t.Context(), peerOf(thief), peerOf(carol).Identity, w.now); err != nil {
		t.Errorf("unlinking: %v", err)
	}
	w.crash()
	for _, l := range []*certstest.Leaf{w.alice[0], carol} {
		if len(told(l)) != 2 {
			t.Errorf("after all this %s is told of %d changes, want 2", peerOf(l).Identity, len(told(l)))
		}
	}
	w.now = w.now.Add(aloneAfter - time.Second)
	refused("a second too early", ack(thief), problem.NotPermitted)
	if err := ack(carol); err != nil { // it was alice with a new computer, after all
		t.Errorf("acknowledged by the account that was linked: %v", err)
	}
	if err := ack(carol); err != nil {
		t.Errorf("again, because the answer was lost: %v", err)
	}
	if len(told(w.alice[0])) != 1 {
		t.Error("the acknowledged change is told on")
	}
}

// TestThiefLeavesTheWebhooksAlone: the owner's webhook is told of the new key, whatever it was asked to be told of, before and after the thief has
// tried to take it away; and the thief gets none that would stay when his certificate is gone.
func TestThiefLeavesTheWebhooksAlone(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	w.meet(w.alice[0])
	h := w.hook("https://alice.example/", "complete")
	thief := w.subscriber(w.north, "alice")
	w.meet(thief)
	if err := w.b.RemoveWebhook(t.Context(), peerOf(thief), h.ID, w.now); problem.Of(err) != problem.NotPermitted {
		t.Errorf("removing the owner's webhook: got %v, want a refusal", err)
	}
	if _, err := w.b.AddWebhook(t.Context(), peerOf(thief), api.WebhookOrder{URL: "https://thief.example/"}, w.now); problem.Of(err) != problem.NotPermitted {
		t.Errorf("adding one: got %v, want a refusal", err)
	}
	w.runHooks()
	w.poll("the notice", func() bool { return len(c.sent(h.URL)) == 1 })
	if m := c.sent(h.URL)[0]; !strings.Contains(string(m.Body), `"consign.account.key-changed"`) || !strings.Contains(string(m.Body), string(thief.Chain.KeyHash())) {
		t.Errorf("got %s", m.Body)
	}
	if err := w.b.RemoveWebhook(t.Context(), w.me(), h.ID, w.now); err != nil {
		t.Errorf("removed by the owner: %v", err)
	}
}

// TestNewKeyOfALoneAccount: who has lost the old key and has no linked account waits, and then goes on.
func TestNewKeyOfALoneAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.meet(w.alice[0])
	fresh := w.subscriber(w.north, "alice")
	w.meet(fresh)
	a, err := w.b.Account(t.Context(), peerOf(fresh))
	if err != nil || len(a.Changes) != 1 || a.Settled {
		t.Fatalf("got %+v, %v", a, err)
	}
	w.now = a.Changes[0].Alone
	if a, err = w.b.Acknowledge(t.Context(), peerOf(fresh), api.Acknowledgement{Change: a.Changes[0].N, Verdict: api.Mine}, w.now); err != nil || !a.Settled || len(a.Changes) != 0 {
		t.Errorf("acknowledged by itself: got %+v, %v", a, err)
	}
	if n := w.meet(w.alice[0]) + w.meet(fresh) + w.meet(w.alice[0]); n != 0 {
		t.Errorf("two devices that are known, one after another: got %d notices", n)
	}
	if got := w.leavesOf(db.IdentityKeyLeaf); len(got) != 2 || !strings.Contains(got[0], `"from":"`+string(w.alice[0].Chain.KeyHash())) || !strings.Contains(got[1], `"acknowledged":1`) {
		t.Errorf("leaves: got %v", got)
	}
}

// TestOldKeyAcknowledgesTheNew: the ordinary case.
func TestOldKeyAcknowledgesTheNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.meet(w.alice[0])
	fresh := w.subscriber(w.north, "alice")
	if _, err := w.b.Submit(t.Context(), peerOf(w.alice[1]), w.sign(w.order(), fresh, w.alice[1]), w.now); err != nil {
		t.Fatalf("the authority vouches for the new key: %v", err) // and the key of an order is met, whoever hands it in
	}
	if w.meet(w.alice[0]) != 1 {
		t.Fatal("the new key of an order was not noticed")
	}
	if _, err := w.b.Acknowledge(t.Context(), peerOf(w.alice[0]), api.Acknowledgement{Change: 1, Verdict: api.Mine}, w.now); err != nil {
		t.Fatal(err)
	}
	if a, err := w.b.Account(t.Context(), peerOf(fresh)); err != nil || !a.Settled || len(a.Changes) != 0 {
		t.Errorf("got %+v, %v", a, err)
	}
}

// TestKeysWithoutEnd: an authority that makes a new key for each call fills no table, and what it does is told.
func TestKeysWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.meet(w.alice[0])
	for range maxKeys + 10 {
		w.now = w.now.Add(time.Second)
		w.meet(w.subscriber(w.north, "alice"))
	}
	before := len(w.leavesOf(db.IdentityKeyLeaf))
	w.now = w.now.Add(time.Hour)
	w.meet(w.alice[0])
	if after := len(w.leavesOf(db.IdentityKeyLeaf)); after != before {
		t.Error("the owner's key was forgotten for those of a thief")
	}
	err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		ks, err := tx.IdentityKeys(t.Context(), "spiffe://north/subscriber/alice")
		if len(ks) != maxKeys {
			t.Errorf("keys: got %d, want %d", len(ks), maxKeys)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := w.b.Account(t.Context(), peerOf(w.alice[0])); err != nil || len(a.Changes) != api.MaxChanges {
		t.Errorf("got %d changes, %v, want %d", len(a.Changes), err, api.MaxChanges)
	}
}

// TestDisownedKey: what was not the owner's is told no more, and can do as little as before.
func TestDisownedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.meet(w.alice[0])
	w.mustLink(w.alice[0], w.alice[1])
	thief := w.subscriber(w.north, "alice")
	w.meet(thief)
	say := func(l *certstest.Leaf, v api.Verdict) error {
		_, err := w.b.Acknowledge(t.Context(), peerOf(l), api.Acknowledgement{Change: 1, Verdict: v}, w.now)
		return err
	}
	if err := say(thief, api.NotMine); problem.Of(err) != problem.NotPermitted {
		t.Errorf("disowned by itself: got %v, want a refusal", err)
	}
	if err := say(w.alice[1], "perhaps"); problem.Of(err) != problem.Malformed {
		t.Errorf("another verdict: got %v, want malformed", err)
	}
	if err := say(w.alice[1], api.NotMine); err != nil {
		t.Fatal(err)
	}
	if n := w.meet(w.alice[0]) + w.meet(w.alice[1]) + w.meet(thief); n != 0 {
		t.Errorf("got %d notices of what was judged", n)
	}
	w.now = w.now.Add(aloneAfter)
	if err := say(thief, api.Mine); problem.Of(err) != problem.NotPermitted {
		t.Errorf("acknowledged by itself at last: got %v, want a refusal", err)
	}
	if a, err := w.b.Account(t.Context(), peerOf(thief)); err != nil || a.Settled || len(a.Linked) != 0 {
		t.Errorf("got %+v, %v, want a key that does nothing by links", a, err)
	}
	if err := say(w.alice[0], api.Mine); err != nil { // a mistake is mended
		t.Fatal(err)
	}
	if a, err := w.b.Account(t.Context(), peerOf(thief)); err != nil || !a.Settled {
		t.Errorf("got %+v, %v, want a settled key", a, err)
	}
}

// TestKeyOfAnAgentChanges: it is noted for ever, and holds nothing up.
func TestKeyOfAnAgentChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.north.Issue(token.Agent, "n1"), w.north.Issue(token.Agent, "n1")
	for _, l := range []*certstest.Leaf{one, two, one} {
		if n := w.meet(l); n != 0 {
			t.Errorf("got %d notices", n)
		}
	}
	if got := w.leavesOf(db.IdentityKeyLeaf); len(got) != 1 || !strings.Contains(got[0], `"id":"spiffe://north/agent/n1"`) {
		t.Errorf("leaves: got %v, want one", got)
	}
	if es := w.accountEvents("spiffe://north/agent/n1"); len(es) != 1 || es[0].Kind != api.KeyChanged {
		t.Errorf("events: got %+v", es)
	}
	if n, err := w.b.Meet(t.Context(), certs.Peer{Identity: w.b.self}, w.now); n != 0 || err != nil {
		t.Errorf("a broker: got %d, %v", n, err)
	}
}
