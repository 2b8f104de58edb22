package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// TestKeySetsThatAreRefused: one bad key and the whole set is refused; what was good before stays in use.
func TestKeySetsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	session := w.src.agent.sessions[0]
	data, err := w.broker.keys.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	own := strings.TrimSuffix(strings.TrimPrefix(string(data), `{"keys":[`), `]}`)
	var many []string
	for i := range token.MaxKeys + 1 {
		set, err := token.NewKeySet(w.broker.id, tokentest.Ed25519(fmt.Sprint(i)).Signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		one, err := set.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, strings.TrimSuffix(strings.TrimPrefix(string(one), `{"keys":[`), `]}`))
	}
	for _, c := range []struct {
		name, jwks string
		want       problem.Code
	}{
		{"a private key", `{"keys":[` + own + `,{"crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, problem.UnknownField},
		{"a shared secret", `{"keys":[` + own + `,{"k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T","kty":"oct"}]}`, problem.UnknownKey},
		{"an RSA key", `{"keys":[` + own + `,{"e":"AQAB","kty":"RSA","n":"AQAB"}]}`, problem.UnknownKey},
		{"a key of a curve that signs nothing", `{"keys":[` + own + `,{"crv":"X25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, problem.UnknownKey},
		{"a key with an address to fetch another from", `{"keys":[` + strings.TrimSuffix(own, "}") + `,"x5u":"https://evil.test"}]}`, problem.UnknownField},
		{"no key", `{"keys":[]}`, problem.Malformed},
		{"17 keys", `{"keys":[` + strings.Join(many, ",") + `]}`, problem.TooLarge},
		{"65 KiB", `{"keys":[` + own + `]}` + strings.Repeat(" ", 65<<10), problem.TooLarge},
		{"a page", "<html>", problem.Malformed},
	} {
		w.broker.mu.Lock()
		w.src.port.jwks = []byte(c.jwks)
		w.broker.mu.Unlock()
		wantCode(t, c.name, session.refreshKeys(t.Context(), time.Now(), 0), c.want)
		if err := session.holds(w.broker.signer.KeyID()); err != nil {
			t.Errorf("%s: the good key is gone: %v", c.name, err)
		}
	}
	wantCode(t, "what the good key has signed", w.thief(w.dst.conf.Pair).hello(s, capability), "")
}

// TestKeysCountForTwoDays while the broker does not give them, and then nothing that it signed is accepted, with the reason. A restart
// does not make them younger.
func TestKeysCountForTwoDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	w.broker.setDown(true)
	for _, restarted := range []bool{false, true} {
		if restarted {
			w.src.stop()
			w.src.start()
		}
		session, now := w.src.agent.sessions[0], time.Now()
		if _, err := session.verifyCapability(capability, now.Add(keysCount-time.Minute), keysAtMost); err != nil {
			t.Errorf("before: got %v, want it good", err)
		}
		_, err := session.verifyCapability(capability, now.Add(keysCount+time.Minute), keysAtMost)
		if problem.Of(err) != problem.UnknownKey || !strings.Contains(problem.As(err).Sentence(), "last fetched at") {
			t.Errorf("after: got %v, want %s and since when", err, problem.UnknownKey)
		}
	}
	w.broker.setDown(false)
	late := time.Now().Add(keysCount + time.Hour)
	if _, err := w.src.agent.sessions[0].verifyCapability(capability, late, keysAtMost); err != nil {
		t.Errorf("once the broker gives them: got %v, want it good", err)
	}
}

// TestWithdrawnKeyStopsBytes: what a key has signed that its broker has taken away opens nothing, also on a lane that it has opened.
func TestWithdrawnKeyStopsBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	holder, run := w.thief(w.dst.conf.Pair), wire.WantRun{Batch: s.wire(), Items: []int{0}}
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	w.broker.replaceKey()
	w.broker.revoke(1) // signed by the new key alone: the agent asks for keys
	poll(t, "the new key", func() bool { return w.src.agent.sessions[0].epoch() == 1 })
	st, err := holder.ask(run)
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.NewRunReader(st, run).Next(make([]byte, 2<<20))
	wantCode(t, "a want", err, problem.UnknownKey)
	wantCode(t, "a hello", holder.hello(s, capability), problem.UnknownKey)
}

// TestKeyIsReplacedMidway: the transfer goes on with capabilities by the new key.
func TestKeyIsReplacedMidway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.count(4, func() {
		w.broker.replaceKey()
		w.broker.revoke(1)
	})
	w.dst.conf.Rate = 8 << 20
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	w.give(s)
	checkAll(t, w.broker.receipt(token.Destination, s.ref()), token.Stored)
	w.checkCopied(s)
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	if n := w.broker.minted[s.ref()].gens; n < 2 {
		t.Errorf("got %d generations, want one by the new key", n)
	}
}

// TestShortCapabilities: a transfer that takes many lives of its capabilities comes to its end, renewed each time.
func TestShortCapabilities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.broker.life = 2 * time.Second
	lives := 5
	if testing.Short() {
		lives = 2
	}
	w.dst.conf.Rate = 4 << 20
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", lives*8<<20))
	w.give(s)
	began := time.Now()
	src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	t.Logf("%d generations in %s, of %s each", w.broker.minted[s.ref()].gens, time.Since(began).Round(time.Second/10), w.broker.life)
	if n := w.broker.minted[s.ref()].gens; n < int64(lives) {
		t.Errorf("got %d generations, want %d at least", n, lives)
	}
	if n := len(dst.claims.Caps); n < lives {
		t.Errorf("the receipt rests on %d capabilities, want %d at least", n, lives)
	}
}

// TestClocksThatDiffer: tasks are refused, the sentence says whose clock is off and how far; once it is set, work goes on.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		by   time.Duration
		want string
	}{{6 * time.Minute, "behind that of the broker"}, {-6 * time.Minute, "ahead of that of the broker"}} {
		w := newWorld(t)
		w.src.port.clock = c.by
		w.src.start()
		s := w.spec(w.order(), 1, w.random("in/a", 100))
		serve, _ := w.tasks(s)
		w.broker.give(w.src.port, serve)
		p := w.broker.refusal(serve.ID)
		if p.Code != problem.ClockSkewed || !strings.Contains(p.Detail, c.want) || !strings.Contains(p.Detail, "6m") && !strings.Contains(p.Detail, "5m59s") || !p.Retry {
			t.Errorf("got %+v, want %s and %q", p, problem.ClockSkewed, c.want)
		}
		w.broker.mu.Lock()
		w.src.port.clock = 0
		w.src.port.tasks = nil
		w.broker.mu.Unlock()
		poll(t, "the clock to be looked at again", func() bool { return w.src.agent.sessions[0].checkSkew() == nil })
		serve.ID += "-again"
		w.broker.give(w.src.port, serve)
		poll(t, "the task to be taken", func() bool { return w.src.agent.holds(s.order.ID) })
	}
}

// TestGrantsOfEarlierRuns: the journal of an agent that did not note the key yet is read.
func TestGrantsOfEarlierRuns(t *testing.T) {
	t.Parallel()
	var g grant
	if err := json.Unmarshal([]byte(`{"claims":{"exp":1},"hash":"x"}`), &g); err != nil || g.Key != "" {
		t.Errorf("got %+v, %v", g, err)
	}
	if err := new(session).holds(""); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
