package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A memBroker is a broker in memory: it hands out what a test gives it and keeps what agents
// hand in, after verifying it as a broker would.
type memBroker struct {
	t      testing.TB
	id     token.Identity
	key    ed25519.PrivateKey
	signer token.Signer
	keys   token.KeySet
	trust  *certs.Trust
	life   time.Duration

	mu       sync.Mutex // guards all below
	down     bool
	agents   map[token.Identity]*port
	pages    map[string][]api.TaskPage
	refusals map[string]api.Problem
	receipts map[string]receipt // by side, xfr and bat
	minted   map[api.Ref]*mint
	more     func(task string, pages int) bool
	reports  []report
	changed  chan struct{}
	list     string // the newest list of revocations
	polls    int    // for one
}

// A report is one that was made, and by whom.
type report struct {
	from token.Identity
	api.Report
}

// A receipt is one that was posted, with what was in it.
type receipt struct {
	signed api.SignedReceipt
	claims token.Receipt
	outs   []token.Outcome
}

// A mint is a batch, for renewals.
type mint struct {
	c    token.Capability // of generation 0, to read
	src  *port
	dst  *port
	gens int64
}

// A port is one agent's connection to a memBroker.
type port struct {
	b      *memBroker
	pair   *certs.Pair
	id     token.Identity
	tasks  []api.Task
	drops  []api.Ref
	wake   chan struct{}
	beats  []api.Progress
	hello  api.Hello
	deaf   bool           // its task stream brings no revocations
	blind  bool           // nor does a poll
	clock  time.Duration  // how far the broker's clock seems to be ahead
	jwks   []byte         // instead of the broker's own keys
	log    []api.KeptPage // of holds, each sent once a stream
	newest int64          // that its hello is told of
	marks  []int64        // up to which it has said that the log is durable
}

func newMemBroker(t testing.TB, id token.Identity, trust *certs.Trust) *memBroker {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.NewKeySet(id, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &memBroker{t: t, id: id, key: key, signer: signer, keys: keys, trust: trust, life: 15 * time.Minute, agents: map[token.Identity]*port{},
		pages: map[string][]api.TaskPage{}, refusals: map[string]api.Problem{}, receipts: map[string]receipt{}, minted: map[api.Ref]*mint{}, changed: make(chan struct{})}
}

// port returns the connection of the agent with that certificate.
func (b *memBroker) port(pair *certs.Pair) *port {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.agents[pair.Identity()]
	if p == nil {
		p = &port{b: b, id: pair.Identity(), wake: make(chan struct{}, 1)}
		b.agents[p.id] = p
	}
	p.pair = pair
	return p
}

// revoke signs a list of revocations with the next epoch and sends it to every agent.
func (b *memBroker) revoke(epoch int64, es ...token.Revoked) {
	b.t.Helper()
	slices.SortFunc(es, func(x, y token.Revoked) int { return strings.Compare(string(x.Xfr), string(y.Xfr)) })
	b.publish(b.signList(token.Revocation{Epoch: epoch, Iat: time.Now().Unix(), Iss: b.id, Revoked: es}))
}

func (b *memBroker) signList(r token.Revocation) string {
	b.t.Helper()
	b.mu.Lock()
	signer := b.signer
	b.mu.Unlock()
	jws, err := signer.Revocation(r)
	if err != nil {
		b.t.Fatalf("signing a list of revocations: %v", err)
	}
	return jws
}

// publish sends a list to every agent as it is.
func (b *memBroker) publish(jws string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = jws
	for _, p := range b.agents {
		p.poke()
	}
}

// note wakes those who wait for something to be handed in. The caller holds mu.
func (b *memBroker) note() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *memBroker) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	for _, p := range b.agents {
		p.poke()
	}
}

func (b *memBroker) up() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return problem.New(problem.Unavailable, "The test has stopped the broker")
	}
	return nil
}

// give hands a task to an agent now and at each of its hellos.
func (b *memBroker) give(p *port, t api.Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.tasks = append(p.tasks, t)
	p.poke()
}

// end tells an agent that a batch has ended.
func (b *memBroker) end(p *port, ref api.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.drops = append(p.drops, ref)
	p.tasks = slices.DeleteFunc(p.tasks, func(t api.Task) bool { return t.Bat == ref.Bat && strings.Contains(t.ID, string(ref.Xfr)) })
	p.poke()
}

// await polls what was handed in until ok says that it is enough.
func (b *memBroker) await(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		b.mu.Lock()
		done, changed := ok(), b.changed
		b.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			b.mu.Lock()
			refused := maps.Clone(b.refusals)
			b.mu.Unlock()
			b.t.Fatalf("waited in vain for %s; refusals: %v", what, refused)
		}
	}
}

func receiptName(side token.Side, ref api.Ref) string {
	return fmt.Sprintf("%s %s %d", side, ref.Xfr, ref.Bat)
}

// receipt waits for one side's receipt of a batch.
func (b *memBroker) receipt(side token.Side, ref api.Ref) receipt {
	b.t.Helper()
	name := receiptName(side, ref)
	b.await("the receipt "+name, func() bool { _, ok := b.receipts[name]; return ok })
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.receipts[name]
}

// hasWithin waits for a receipt at most so long, and reports whether it came.
func (b *memBroker) hasWithin(d time.Duration, side token.Side, ref api.Ref) bool {
	late := time.After(d)
	for {
		b.mu.Lock()
		_, ok := b.receipts[receiptName(side, ref)]
		changed := b.changed
		b.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-late:
			return false
		}
	}
}

// refusal waits for a task to be refused.
func (b *memBroker) refusal(id string) api.Problem {
	b.t.Helper()
	b.await("the refusal of "+id, func() bool { _, ok := b.refusals[id]; return ok })
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refusals[id]
}

// listing waits for the last page of a task and returns all entries and the problem.
func (b *memBroker) listing(id string) ([]api.Entry, *api.Problem) {
	b.t.Helper()
	b.await("the last page of "+id, func() bool { ps := b.pages[id]; return len(ps) > 0 && ps[len(ps)-1].Last })
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []api.Entry
	for _, p := range b.pages[id] {
		all = append(all, p.Entries...)
	}
	return all, b.pages[id][len(b.pages[id])-1].Problem
}

func (p *port) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *port) Hello(_ context.Context, h api.Hello) (api.Welcome, error) {
	if err := p.b.up(); err != nil {
		return api.Welcome{}, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.hello = h
	p.b.note()
	return api.Welcome{Broker: p.b.id, Time: time.Now().Add(p.clock).Unix(), Drop: []api.Ref{}, Kept: p.newest}, nil
}

// keep sends a page of the log of holds to an agent.
func (b *memBroker) keep(p *port, page api.KeptPage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.log, p.newest = append(p.log, page), max(p.newest, page.Seq)
	p.poke()
}

// kept waits until an agent has said that the log is durable up to a number.
func (b *memBroker) kept(p *port, seq int64) {
	b.t.Helper()
	b.await(fmt.Sprintf("the log of holds to be kept up to %d", seq), func() bool { return slices.Contains(p.marks, seq) })
}

func (p *port) PutKept(_ context.Context, m api.KeptMark) error {
	if err := p.b.up(); err != nil {
		return err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.marks = append(p.marks, m.Seq)
	p.b.note()
	return nil
}

func (p *port) Tasks(ctx context.Context, fn func(api.Line) error) error {
	sent, dropped, told, kept := map[string]bool{}, 0, "", 0
	for {
		if err := p.b.up(); err != nil {
			return err
		}
		p.b.mu.Lock()
		tasks := slices.DeleteFunc(slices.Clone(p.tasks), func(t api.Task) bool { return sent[t.ID] })
		drops := slices.Clone(p.drops[min(dropped, len(p.drops)):])
		dropped = len(p.drops)
		pages := slices.Clone(p.log[kept:])
		kept = len(p.log)
		list := p.b.list
		if p.deaf || p.blind {
			list = told
		}
		p.b.mu.Unlock()
		if list != told {
			told = list
			if err := fn(api.Line{Revocation: list}); err != nil {
				return err
			}
		}
		for _, page := range pages {
			if err := fn(api.Line{Kept: &page}); err != nil {
				return err
			}
		}
		for _, t := range tasks {
			sent[t.ID] = true
			if err := fn(api.Line{Task: &t}); err != nil {
				return err
			}
		}
		for _, d := range drops {
			if err := fn(api.Line{Drop: &d}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.wake:
		}
	}
}

func (p *port) PostPage(_ context.Context, id string, page api.TaskPage) (api.TaskPageAnswer, error) {
	if err := p.b.up(); err != nil {
		return api.TaskPageAnswer{}, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	page.Entries = slices.Clone(page.Entries)
	p.b.pages[id] = append(p.b.pages[id], page)
	p.b.note()
	more := p.b.more == nil || p.b.more(id, len(p.b.pages[id]))
	return api.TaskPageAnswer{More: more}, nil
}

func (p *port) Refuse(_ context.Context, id string, r api.Refusal) error {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.refusals[id] = r.Problem
	p.b.note()
	return nil
}

func (p *port) Beat(_ context.Context, beat api.Beat) (api.BeatAnswer, error) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.beats = beat.Running
	p.b.note()
	return api.BeatAnswer{Drop: []api.Ref{}, Time: time.Now().Add(p.clock).Unix()}, nil
}

func (p *port) Report(_ context.Context, rs api.Reports) error {
	if err := p.b.up(); err != nil {
		return err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	for _, r := range rs.Reports {
		p.b.reports = append(p.b.reports, report{p.id, r})
	}
	p.b.note()
	return nil
}

// Revocations does not look at the epoch, as a broker that means ill would not.
func (p *port) Revocations(context.Context, int64) (api.Revocations, error) {
	if err := p.b.up(); err != nil {
		return api.Revocations{}, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.polls++
	if p.blind {
		return api.Revocations{}, nil
	}
	return api.Revocations{JWS: p.b.list}, nil
}

func (p *port) Keys(context.Context) ([]byte, error) {
	if err := p.b.up(); err != nil {
		return nil, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.jwks != nil {
		return p.jwks, nil
	}
	return p.b.keys.JWKS()
}

// replaceKey has the broker sign with a new key, and publish no other.
func (b *memBroker) replaceKey() {
	b.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	signer, err := token.NewSigner(key)
	if err != nil {
		b.t.Fatal(err)
	}
	keys, err := token.NewKeySet(b.id, key.Public())
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.key, b.signer, b.keys = key, signer, keys
}

func (p *port) Renew(_ context.Context, ref api.Ref) (api.Renewal, error) {
	if err := p.b.up(); err != nil {
		return api.Renewal{}, err
	}
	p.b.mu.Lock()
	m := p.b.minted[ref]
	p.b.mu.Unlock()
	if m == nil {
		return api.Renewal{}, problem.New(problem.LeaseLost, "No such batch")
	}
	read, create := p.b.mintGeneration(m, p.b.life)
	return api.Renewal{Capability: create, Present: read}, nil
}

func (p *port) PostReceipt(_ context.Context, r api.SignedReceipt) (api.ReceiptAnswer, error) {
	if err := p.b.up(); err != nil {
		return api.ReceiptAnswer{}, err
	}
	chain, err := certs.ParseChain([]byte(r.Chain))
	if err != nil {
		return api.ReceiptAnswer{}, err
	}
	id, err := p.b.trust.Verify(chain, time.Now())
	if err != nil || id != p.id {
		return api.ReceiptAnswer{}, problem.New(problem.CertMismatch, "The receipt is of %s: %v", id, err)
	}
	v, err := token.VerifyReceipt(r.JWS, chain.Leaf().PublicKey)
	if err != nil {
		return api.ReceiptAnswer{}, err
	}
	var lines [][]byte
	for line := range strings.SplitSeq(strings.TrimSuffix(r.Lines, "\n"), "\n") {
		lines = append(lines, []byte(line))
	}
	outs, err := v.Claims.Outcomes(lines)
	if err != nil {
		return api.ReceiptAnswer{}, err
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	ref := api.Ref{Xfr: v.Claims.Xfr, Bat: v.Claims.Bat}
	p.b.receipts[receiptName(v.Claims.Side, ref)] = receipt{r, v.Claims, outs}
	p.tasks = slices.DeleteFunc(p.tasks, func(t api.Task) bool { return t.Bat == ref.Bat && strings.Contains(t.ID, string(ref.Xfr)) })
	p.b.note()
	return api.ReceiptAnswer{Leaf: 1}, nil
}

// mintGeneration signs the next pair of capabilities of a batch.
func (b *memBroker) mintGeneration(m *mint, life time.Duration) (read, create string) {
	b.t.Helper()
	b.mu.Lock()
	m.gens++
	c := m.c
	c.Gen = m.gens
	c.Cnf = m.dst.pair.LeafHash()
	b.mu.Unlock()
	c.Iat = time.Now().Unix()
	c.Exp = c.Iat + int64(life/time.Second)
	return b.sign(c), b.sign(mirrored(c))
}

// mirrored is the right to create that belongs to a right to read.
func mirrored(c token.Capability) token.Capability {
	c.Do, c.Aud, c.Peer = token.Create, c.Peer, c.Aud
	return c
}

func (b *memBroker) sign(c token.Capability) string {
	b.t.Helper()
	b.mu.Lock()
	signer := b.signer
	b.mu.Unlock()
	s, err := signer.Capability(c)
	if err != nil {
		b.t.Fatalf("signing a capability: %v", err)
	}
	return s
}
