package broker

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A memCourier keeps what was sent to each address, and fails as a test says.
type memCourier struct {
	mu   sync.Mutex
	got  map[string][]Message
	fail func(ctx context.Context, url string) error
}

func (c *memCourier) May(url string) error {
	if strings.Contains(url, "127.0.0.1") {
		return problem.New(problem.HookRefused, "Not there")
	}
	return nil
}

func (c *memCourier) Deliver(ctx context.Context, url string, m Message) error {
	c.mu.Lock()
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, url); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[url] = append(c.got[url], m)
	return nil
}

func (c *memCourier) sent(url string) []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Message(nil), c.got[url]...)
}

// hooked is a world whose broker calls webhooks. They are called by deliver alone unless run is called.
func hooked(t *testing.T) (*world, *memCourier) {
	t.Helper()
	w, c := newWorld(t), &memCourier{got: map[string][]Message{}}
	w.b.conf.Courier, w.conf.Courier = c, c
	return w, c
}

// run calls webhooks as Run does until the test ends.
func (w *world) runHooks() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.b.callHooks(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (w *world) hook(url string, kinds ...api.EventKind) api.Webhook {
	w.t.Helper()
	h, err := w.b.AddWebhook(w.t.Context(), w.me(), api.WebhookOrder{URL: url, Events: kinds}, w.now)
	w.must(err)
	return h
}

// view returns a webhook as alice sees it.
func (w *world) view(id string) api.Webhook {
	w.t.Helper()
	page, err := w.b.Webhooks(w.t.Context(), w.me())
	w.must(err)
	for _, h := range page.Items {
		if h.ID == id {
			return h
		}
	}
	w.t.Fatalf("there is no webhook %s", id)
	return api.Webhook{}
}

// callOnce sends a webhook what waits for it, as if it were at.
func (w *world) callOnce(id string, bad error, at time.Time) {
	w.t.Helper()
	w.must(w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		e, ok, err := tx.NextOut(w.t.Context(), id)
		if err != nil || !ok {
			w.t.Fatalf("nothing waits for the webhook (%v)", err)
		}
		defer func() { w.must(w.b.noteDelivery(w.t.Context(), id, e.Seq, bad, at)) }()
		return nil
	}))
}

func (w *world) poll(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestWebhookIsTold: a receiver gets the events of its account, in order, each signed, in the form of CloudEvents; of every single
// batch only if it asks.
func TestWebhookIsTold(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	usual, all := w.hook("https://usual.example/x"), w.hook("https://leases.example/", "leased", "receipt")
	w.runHooks()
	src, dst := w.pair()
	id, serve, receive := w.running(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.step()
	w.poll("the events", func() bool { return len(c.sent(usual.URL)) >= 3 && len(c.sent(all.URL)) >= 3 })
	var kinds []string
	for _, m := range c.sent(usual.URL) {
		var e struct {
			SpecVersion, ID, Source, Type, Subject, Time, DataContentType string
			Data                                                          api.Event
		}
		w.must(json.Unmarshal(m.Body, &e))
		kinds = append(kinds, e.Type)
		if e.SpecVersion != "1.0" || e.Source != string(w.b.self) || e.Subject != string(id) || e.DataContentType != "application/json" ||
			e.Data.Xfr != id || m.ID != "msg_"+usual.ID+"_"+strconv.FormatInt(e.Data.Seq, 10) || e.ID != strconv.FormatInt(e.Data.Seq, 10) {
			t.Errorf("got %s", m.Body)
		}
		w.checkSignature(m)
	}
	if got := strings.Join(kinds, " "); got != "consign.transfer.ordered consign.transfer.planned consign.transfer.complete" {
		t.Errorf("got the events %s", got)
	}
	for _, m := range c.sent(all.URL) {
		if !strings.Contains(string(m.Body), `"consign.transfer.leased"`) && !strings.Contains(string(m.Body), `"consign.transfer.receipt"`) {
			t.Errorf("got %s, which was not asked for", m.Body)
		}
	}
	w.poll("all to be noted", func() bool { return w.view(usual.ID).Pending == 0 && w.view(all.ID).Pending == 0 })
	if h := w.view(usual.ID); h.Delivered == nil || h.Problem != nil {
		t.Errorf("got %+v, want it all delivered", h)
	}
}

// checkSignature verifies a message as a receiver does.
func (w *world) checkSignature(m Message) {
	w.t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(w.b.WebhookKey().Key, "whpk_"))
	w.must(err)
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Signature, "v1a,"))
	w.must(err)
	if !ed25519.Verify(key, []byte(fmt.Sprintf("%s.%d.%s", m.ID, m.At.Unix(), m.Body)), sig) {
		w.t.Errorf("the signature of %s does not verify", m.ID)
	}
}

// TestWebhookOutlivesARestart: what was committed is delivered, also after a kill, and with the same id and key.
func TestWebhookOutlivesARestart(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	h, key := w.hook("https://a.example/"), w.b.WebhookKey()
	id := w.submit(w.order())
	w.crash()
	if w.b.WebhookKey() != key {
		t.Error("the key is another one after a restart")
	}
	w.runHooks()
	w.poll("the event", func() bool { return len(c.sent(h.URL)) == 1 })
	if m := c.sent(h.URL)[0]; !strings.Contains(string(m.Body), string(id)) || m.ID != "msg_"+h.ID+"_1" {
		t.Errorf("got %s %s", m.ID, m.Body)
	}
}

// TestOneSlowReceiver: a receiver that does not answer keeps neither others nor transfers waiting.
func TestOneSlowReceiver(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	release := make(chan struct{})
	c.fail = func(ctx context.Context, url string) error {
		if strings.Contains(url, "slow") {
			select {
			case <-ctx.Done():
			case <-release:
			}
			return problem.New(problem.Timeout, "Slow")
		}
		return nil
	}
	for i := range hooksBy - 1 {
		w.hook(fmt.Sprintf("https://slow%d.example/", i))
	}
	quick := w.hook("https://quick.example/")
	w.runHooks()
	for range 5 {
		w.submit(w.order())
	}
	w.poll("the events at the quick one", func() bool { return len(c.sent(quick.URL)) == 5 })
	close(release)
}

// TestFailingReceiver: it is tried again after growing pauses, later if it says so, and switched off after three days or when it
// is gone; its account is told, also by its other webhooks.
func TestFailingReceiver(t *testing.T) {
	t.Parallel()
	w, _ := hooked(t)
	other := w.hook("https://other.example/")
	h := w.hook("https://down.example/")
	id := w.submit(w.order())
	down := problem.New(problem.Unavailable, "The receiver of the webhook cannot be reached")
	last := time.Duration(0)
	for range 4 {
		w.callOnce(h.ID, down, w.now)
		v := w.view(h.ID)
		wait := v.Next.Sub(w.now)
		if wait <= last || v.Problem.Code != problem.Unavailable || v.Failing == nil {
			t.Errorf("got %+v, want a pause longer than %s", v, last)
		}
		last = wait
	}
	w.callOnce(h.ID, &Deferred{After: time.Hour, Err: down}, w.now)
	if got := w.view(h.ID).Next.Sub(w.now); got < time.Hour-time.Second || got > 3*time.Hour {
		t.Errorf("the receiver's own wish: got a pause of %s, want about an hour", got)
	}
	w.callOnce(h.ID, &Deferred{After: 1000 * time.Hour, Err: down}, w.now)
	if got := w.view(h.ID).Next.Sub(w.now); got > hookRetryMax+time.Second {
		t.Errorf("a wish without end: got a pause of %s, want at most %s", got, hookRetryMax)
	}
	w.callOnce(h.ID, down, w.now.Add(hookGiveUp+time.Second))
	v := w.view(h.ID)
	if v.Stopped == nil || v.Pending != 0 || v.Problem == nil {
		t.Errorf("after three days: got %+v, want it switched off", v)
	}
	e := w.follow(w.me(), 1).next()
	if e.Kind != api.HookStopped || e.Account != w.me().Identity || e.Xfr != "" || !strings.Contains(e.Note, h.ID) || strings.Contains(e.Note, "down.example") || e.Code != problem.Unavailable {
		t.Errorf("got %+v, want it said without the address", e)
	}
	if got := w.view(other.ID).Pending; got != 2 {
		t.Errorf("the other webhook: got %d events that wait, want 2", got)
	}
	w.callOnce(other.ID, errors.Join(problem.New(problem.Unavailable, "It answered with 410"), ErrGone), w.now)
	if w.view(other.ID).Stopped == nil {
		t.Error("a receiver that is gone is still on")
	}
	if got := w.transfer(id).State; got != api.Queued {
		t.Errorf("the transfer: got %s", got)
	}
}

// TestWebhookIsTested: a test says at once what became of it, and switches a webhook on again.
func TestWebhookIsTested(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	h := w.hook("https://a.example/")
	w.submit(w.order())
	w.callOnce(h.ID, errors.Join(problem.New(problem.Unavailable, "It answered with 410"), ErrGone), w.now)
	c.fail = func(context.Context, string) error { return problem.New(problem.Timeout, "Not in time") }
	got, err := w.b.TestWebhook(t.Context(), w.me(), h.ID, w.now)
	if err != nil || got.Delivered || got.Problem == nil || got.Problem.Code != problem.Timeout || w.view(h.ID).Stopped == nil {
		t.Errorf("a failure: got %+v, %v", got, err)
	}
	c.fail = nil
	if _, err := w.b.TestWebhook(t.Context(), w.me(), h.ID, w.now); problem.Of(err) != problem.Overloaded {
		t.Errorf("at once again: got %v, want %s", err, problem.Overloaded)
	}
	w.now = w.now.Add(testEvery)
	if got, err := w.b.TestWebhook(t.Context(), w.me(), h.ID, w.now); err != nil || !got.Delivered || w.view(h.ID).Stopped != nil {
		t.Errorf("a success: got %+v, %v", got, err)
	}
	m := c.sent(h.URL)[0]
	w.checkSignature(m)
	if !strings.Contains(string(m.Body), `"type":"consign.account.webhook-test"`) {
		t.Errorf("got %s", m.Body)
	}
}

// TestWebhooksOfOthers: nobody sees, tests or removes a webhook of another, nor has more than there may be.
func TestWebhooksOfOthers(t *testing.T) {
	t.Parallel()
	w, c := hooked(t)
	h := w.hook("https://a.example/")
	bob := peerOf(w.north.Issue(token.Subscriber, "bob"))
	if page, err := w.b.Webhooks(t.Context(), bob); err != nil || len(page.Items) != 0 {
		t.Errorf("got %+v, %v", page, err)
	}
	_, err := w.b.TestWebhook(t.Context(), bob, h.ID, w.now)
	for what, err := range map[string]error{"testing": err, "removing": w.b.RemoveWebhook(t.Context(), bob, h.ID, w.now)} {
		if problem.Of(err) != problem.Hidden {
			t.Errorf("%s: got %v, want %s", what, err, problem.Hidden)
		}
	}
	for i := 1; i < api.MaxHooks; i++ {
		w.hook(fmt.Sprintf("https://a.example/%d", i))
	}
	for what, o := range map[string]api.WebhookOrder{
		"one more":          {URL: "https://a.example/more"},
		"an address inside": {URL: "https://127.0.0.1/"},
		"a long address":    {URL: "https://a.example/" + strings.Repeat("a", api.MaxHookURL)},
	} {
		if _, err := w.b.AddWebhook(t.Context(), w.me(), o, w.now); problem.Of(err) != problem.HookRefused {
			t.Errorf("%s: got %v, want %s", what, err, problem.HookRefused)
		}
	}
	if _, err := w.b.AddWebhook(t.Context(), bob, api.WebhookOrder{URL: "https://b.example/", Events: []api.EventKind{"No such"}}, w.now); problem.Of(err) != problem.Malformed {
		t.Errorf("a kind that cannot be: got %v", err)
	}
	w.submit(w.order())
	w.must(w.b.RemoveWebhook(t.Context(), w.me(), h.ID, w.now))
	w.must(w.b.noteDelivery(t.Context(), h.ID, 1, nil, w.now)) // its call ends after that
	if len(c.sent(h.URL)) != 0 {
		t.Error("a removed webhook was called")
	}
}

// TestOutboxIsFull: a webhook that takes nothing while there is more and more is switched off, and keeps nothing.
func TestOutboxIsFull(t *testing.T) {
	t.Parallel()
	w, _ := hooked(t)
	h := w.hook("https://a.example/", "test")
	w.must(w.b.write(t.Context(), w.now, func(k *work) error {
		for range maxOutbox - 1 {
			seq, err := k.AddEvent(t.Context(), api.Event{At: w.now, Account: h.Account, Kind: "test"})
			if err == nil {
				err = k.Enqueue(t.Context(), h.ID, seq)
			}
			if err != nil {
				return err
			}
		}
		return k.accountEvent(t.Context(), h.Account, api.Event{Kind: "test"})
	}))
	if v := w.view(h.ID); v.Pending != maxOutbox || v.Stopped != nil {
		t.Fatalf("at the bound: got %d that wait, stopped %v", v.Pending, v.Stopped)
	}
	w.must(w.b.write(t.Context(), w.now, func(k *work) error { return k.accountEvent(t.Context(), h.Account, api.Event{Kind: "test"}) }))
	if v := w.view(h.ID); v.Pending != 0 || v.Stopped == nil || v.Problem.Code != problem.Overloaded {
		t.Errorf("beyond it: got %+v, want it switched off", v)
	}
}

// TestEventAndOutboxAreOne: an event that is not committed waits for nobody.
func TestEventAndOutboxAreOne(t *testing.T) {
	t.Parallel()
	w, _ := hooked(t)
	h := w.hook("https://a.example/")
	w.b.fault = func(at string) error {
		if at == "before commit" {
			return errors.New("the disk is gone")
		}
		return nil
	}
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order()), w.now); err == nil {
		t.Fatal("the order was accepted")
	}
	w.b.fault = func(string) error { return nil }
	if got := w.view(h.ID).Pending; got != 0 {
		t.Errorf("got %d events that wait, want none", got)
	}
}

// TestWebhookVector compares the worked example of docs/spec/webhooks.md with what is made, and verifies it as a receiver does.
func TestWebhookVector(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "spec", "webhooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(name string) string {
		_, rest, ok := strings.Cut(string(page), "```"+name+"\n")
		text, _, end := strings.Cut(rest, "\n```")
		if !ok || !end {
			t.Fatalf("the page has no block %q", name)
		}
		return text
	}
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	w := &world{t: t, b: &Broker{self: "spiffe://hub/broker/main", hookKey: ed25519.NewKeyFromSeed(seed)}}
	at := time.Date(2026, 11, 26, 14, 2, 3, 0, time.UTC)
	m, err := w.b.message("0b5f7c1e-9d0a-4f53-8a35-2f1f6c0d9c11", api.Event{
		Seq: 42, At: at, Xfr: "0192f0c1-2345-7abc-8def-0123456789ab", Kind: api.DeniedEvent, Code: problem.CertExpired,
		Note: "Agent two of south could not connect to agent one of north: the certificate of spiffe://south/agent/two (serial 5f3a0b1c…) expired on 2026-11-20T14:02:00Z, 6 days ago",
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"key": w.b.WebhookKey().Key, "webhook-id": m.ID, "webhook-timestamp": strconv.FormatInt(m.At.Unix(), 10), "body": string(m.Body), "webhook-signature": m.Signature,
	} {
		if want := block(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	w.checkSignature(m)
}
