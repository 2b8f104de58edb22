package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a broker with two providers and one person, in a time of its own.
type world struct {
	t     *testing.T
	north *certstest.CA
	south *certstest.CA
	conf  Config
	now   time.Time
	b     *Broker
	alice [2]*certstest.Leaf // at north, at south
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, north: certstest.New(t, "north"), south: certstest.New(t, "south"), now: time.Now()}
	hub := certstest.New(t, "hub")
	long := certstest.Valid(w.now.Add(-time.Hour), w.now.Add(96*time.Hour))
	w.alice = [2]*certstest.Leaf{w.north.Issue(token.Subscriber, "alice", long), w.south.Issue(token.Subscriber, "alice", long)}
	w.conf = Config{
		Identity: hub.Issue(token.Broker, "main").Pair(), Trust: certstest.Trust(w.north, w.south, hub),
		Providers: []token.Provider{"north", "south"}, State: filepath.Join(t.TempDir(), "state"), LookupWait: 2 * time.Second,
	}
	if err := Init(t.Context(), w.conf.State); err != nil {
		t.Fatalf("preparing the broker: %v", err)
	}
	w.open()
	t.Cleanup(func() {
		w.audit()
		if err := w.b.Close(); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	})
	return w
}

func (w *world) open() {
	w.t.Helper()
	b, err := Open(context.Background(), w.conf, w.now)
	if err != nil {
		w.t.Fatalf("opening the broker: %v", err)
	}
	w.b = b
}

// crash ends the broker as a kill would, and starts it anew.
func (w *world) crash() {
	w.t.Helper()
	if err := w.b.db.Abandon(); err != nil {
		w.t.Fatalf("abandoning the database: %v", err)
	}
	w.open()
}

// audit checks what must hold after every test, whatever happened in it.
func (w *world) audit() {
	w.t.Helper()
	err := w.b.db.Read(context.Background(), func(tx *db.Tx) error {
		ctx := context.Background()
		want := int64(0)
		if err := tx.Leaves(ctx, 0, func(idx int64, l db.Leaf) error {
			if idx != want || len(l.Body) == 0 {
				w.t.Errorf("got leaf %d of %d bytes, want leaf %d", idx, len(l.Body), want)
			}
			want++
			return nil
		}); err != nil {
			return err
		}
		if n, err := tx.Strays(ctx); err != nil || n != 0 {
			w.t.Errorf("got %d reservations without a live batch (%v), want none", n, err)
		}
		ts, err := tx.Unfinished(ctx, "", 1000)
		if err != nil {
			return err
		}
		for _, t := range ts {
			w.auditTransfer(ctx, tx, t)
		}
		return nil
	})
	if err != nil {
		w.t.Errorf("auditing: %v", err)
	}
}

// auditTransfer checks that the counters are the sum of the outcomes, and that no item is lost or there twice.
func (w *world) auditTransfer(ctx context.Context, tx *db.Tx, t db.Transfer) {
	w.t.Helper()
	var got db.Counts
	seen := map[token.ObjectName]int{}
	open := int64(0)
	us, err := tx.Unplanned(ctx, t.ID, "", 0, 1<<20)
	if err != nil {
		w.t.Errorf("auditing: %v", err)
	}
	for _, u := range us {
		*got.Of(u.Result)++
	}
	bts, err := tx.BatchesAfter(ctx, t.ID, 0, 1<<20)
	if err != nil {
		w.t.Errorf("auditing: %v", err)
	}
	for _, bt := range bts {
		m, err := manifest(ctx, tx, bt.Ref)
		if err != nil {
			w.t.Errorf("auditing: %v", err)
			continue
		}
		if bt.State != db.Ended {
			open += int64(len(m.Items))
			for _, it := range m.Items {
				seen[it.Src]++
			}
			continue
		}
		page := api.Page[api.ItemReport]{}
		if err := finalItems(ctx, tx, bt.Ref, "", &page); err != nil {
			w.t.Errorf("auditing: %v", err)
		}
		for _, it := range page.Items {
			*got.Of(it.Outcome)++
			seen[it.Src]++
		}
	}
	for name, n := range seen {
		if n != 1 {
			w.t.Errorf("transfer %s has item %q %d times, want once", t.ID, name, n)
		}
	}
	if got != t.Counts {
		w.t.Errorf("transfer %s: got outcomes %+v, the counters say %+v", t.ID, got, t.Counts)
	}
	if open+got.Done() != t.Items {
		w.t.Errorf("transfer %s: %d items open and %d final, want %d in all", t.ID, open, got.Done(), t.Items)
	}
}

func (w *world) step() {
	w.t.Helper()
	if err := w.b.step(w.t.Context(), w.now); err != nil {
		w.t.Fatalf("a step: %v", err)
	}
}

func peerOf(l *certstest.Leaf) certs.Peer {
	id, err := certs.IdentityOf(l.Chain[0])
	if err != nil {
		panic(err)
	}
	return certs.Peer{Identity: id, Leaf: l.Chain.LeafHash(), Chain: l.Chain, NotAfter: l.Chain[0].NotAfter}
}

func (w *world) me() certs.Peer { return peerOf(w.alice[0]) }

// order is a tree copy from north:/src to south:/dst/copy, changed as the caller wishes.
func (w *world) order(change ...func(*token.Order)) token.Order {
	w.t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		w.t.Fatal(err)
	}
	o := token.Order{
		Accounts: []token.Identity{"spiffe://north/subscriber/alice", "spiffe://south/subscriber/alice"}, Do: token.Copy, Scope: token.Tree,
		Iat: w.now.Unix(), Exp: w.now.Add(48 * time.Hour).Unix(), ID: token.TransferID(id.String()), IfExists: token.Fail,
		From: token.Location{Provider: "north", Container: "src"}, To: token.Location{Provider: "south", Container: "dst", Name: "copy"},
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

// one makes an order of a single object.
func one(o *token.Order) { o.Scope, o.From.Name, o.To.Name = token.One, "a", "b" }

func (w *world) sign(o token.Order, by ...*certstest.Leaf) api.SignedOrder {
	w.t.Helper()
	var so api.SignedOrder
	if len(by) == 0 {
		for _, a := range o.Accounts {
			by = append(by, w.alice[map[token.Provider]int{"north": 0, "south": 1}[a.Provider()]])
		}
	}
	for _, l := range by {
		s, err := token.NewSigner(l.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		jws, err := s.Order(o)
		if err != nil {
			w.t.Fatalf("signing an order: %v", err)
		}
		so.JWS, so.Chains = append(so.JWS, jws), append(so.Chains, string(l.Chain.PEM()))
	}
	return so
}

func (w *world) submit(o token.Order) token.TransferID {
	w.t.Helper()
	if _, err := w.b.Submit(w.t.Context(), w.me(), w.sign(o), w.now); err != nil {
		w.t.Fatalf("submitting: %v", err)
	}
	return o.ID
}

func (w *world) transfer(id token.TransferID) api.Transfer {
	w.t.Helper()
	t, err := w.b.Transfer(w.t.Context(), w.me(), id, 0, 0)
	if err != nil {
		w.t.Fatalf("reading transfer %s: %v", id, err)
	}
	return t
}

// fake is an agent in memory. Its lines come over the public method Tasks, as over the wire.
type fake struct {
	w     *world
	leaf  *certstest.Leaf
	peer  certs.Peer
	hello api.Hello
	stop  context.CancelFunc
	done  chan struct{}

	mu    sync.Mutex
	lines []api.Line
	lists []token.Revocation
	pages []api.KeptPage // of holds
	more  chan struct{}
}

func (w *world) agent(ca *certstest.CA, name string, c token.Container) *fake {
	w.t.Helper()
	leaf := ca.Issue(token.Agent, name, certstest.Valid(w.now.Add(-time.Hour), w.now.Add(96*time.Hour)))
	return &fake{w: w, leaf: leaf, peer: peerOf(leaf), hello: api.Hello{
		Version: "test", Listen: []string{name + ".example:7443"}, Slots: 4,
		Exports: []api.Export{{Container: c, Read: true, Create: true, PartSize: token.ChunkSize, MaxParts: 10000}},
	}}
}

// pair returns a connected agent of each provider.
func (w *world) pair() (src, dst *fake) {
	src, dst = w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.connect()
	dst.connect()
	return src, dst
}

func (f *fake) connect() api.Welcome {
	f.w.t.Helper()
	welcome, err := f.w.b.Hello(f.w.t.Context(), f.peer, f.hello, f.w.now)
	if err != nil {
		f.w.t.Fatalf("hello of %s: %v", f.peer.Identity, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.mu.Lock()
	f.lines, f.lists, f.pages, f.more = nil, nil, nil, make(chan struct{}, 1024)
	f.mu.Unlock()
	f.stop, f.done = cancel, make(chan struct{})
	b, done := f.w.b, f.done
	up := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		err := b.Tasks(ctx, f.peer, func(l api.Line) error {
			once.Do(func() { close(up) })
			f.mu.Lock()
			defer f.mu.Unlock()
			if l.Revocation != "" {
				f.lists = append(f.lists, f.w.list(l.Revocation))
				l.Ping = true // no work
			}
			if l.Kept != nil {
				f.pages = append(f.pages, *l.Kept)
				l.Ping = true // no work either
			}
			if !l.Ping {
				f.lines = append(f.lines, l)
				f.more <- struct{}{}
			}
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) && problem.Of(err) != problem.LeaseLost {
			f.w.t.Errorf("the task stream of %s: %v", f.peer.Identity, err)
		}
	}()
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		f.w.t.Fatalf("the task stream of %s did not open", f.peer.Identity)
	}
	f.w.t.Cleanup(f.leave)
	return welcome
}

// list verifies a list of revocations as an agent would.
func (w *world) list(jws string) token.Revocation {
	w.t.Helper()
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
	if err != nil {
		w.t.Error(err)
	}
	v, err := token.VerifyRevocation(jws, keys)
	if err != nil {
		w.t.Errorf("a list of revocations: %v", err)
	}
	return v.Claims
}

// leave closes the task stream and waits for it.
func (f *fake) leave() {
	f.stop()
	<-f.done
}

// next returns the next line, stepping the broker until there is one.
func (f *fake) next() api.Line {
	f.w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		f.mu.Lock()
		if len(f.lines) > 0 {
			l := f.lines[0]
			f.lines = f.lines[1:]
			f.mu.Unlock()
			return l
		}
		f.mu.Unlock()
		f.w.step()
		select {
		case <-f.more:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			f.w.t.Fatalf("%s got nothing to do", f.peer.Identity)
		}
	}
}

func (f *fake) task(kind api.TaskKind) api.Task {
	f.w.t.Helper()
	l := f.next()
	if l.Task == nil || l.Task.Kind != kind {
		f.w.t.Fatalf("%s got %s, want a task to %s", f.peer.Identity, show(l), kind)
	}
	return *l.Task
}

func show(l api.Line) string {
	switch {
	case l.Task != nil:
		return fmt.Sprintf("a task to %s", l.Task.Kind)
	case l.Drop != nil:
		return fmt.Sprintf("a drop of batch %d", l.Drop.Bat)
	}
	return "a ping"
}

func object(name string, size int64) api.Entry {
	return api.Entry{Name: token.ObjectName(name), Type: "object", Size: size, Version: token.Version("v-" + name)}
}

// list answers the next list task with one last page.
func (f *fake) list(es ...api.Entry) {
	f.w.t.Helper()
	k := f.task(api.ListTask)
	f.page(k.ID, api.TaskPage{Entries: es, Last: true})
}

func (f *fake) page(id string, p api.TaskPage) api.TaskPageAnswer {
	f.w.t.Helper()
	a, err := f.w.b.PostPage(f.w.t.Context(), f.peer, id, p, f.w.now)
	if err != nil {
		f.w.t.Fatalf("posting a page: %v", err)
	}
	return a
}

func (f *fake) manifest(k api.Task) token.Manifest {
	f.w.t.Helper()
	m, _, err := token.ParseManifest(k.Manifest)
	if err != nil {
		f.w.t.Fatalf("the manifest of a task: %v", err)
	}
	return m
}

// digest is a digest that depends on the text alone.
func digest(text string) token.Digest {
	return token.Digest("blake3:" + strings.Repeat(fmt.Sprintf("%02x", len(text)%256), 32))
}

func good(i int, it token.Item, side token.Side) token.Outcome {
	o := token.Outcome{Item: int64(i), Outcome: token.Stored, Size: it.Size, Digest: digest(string(it.Src)), Hash: valueDigest(it.Hash), Version: "v", Lost: []string{}}
	if side == token.Source {
		o.Outcome, o.Hash = token.Sent, ""
	}
	return o
}

// valueDigest is some output of a value hash; none of none.
func valueDigest(h token.ValueHash) token.ValueDigest {
	if h == "" {
		return ""
	}
	return token.ValueDigest(string(h) + ":" + strings.Repeat("0f", h.Size()))
}

func bad(i int, r token.Result, code problem.Code) token.Outcome {
	return token.Outcome{Item: int64(i), Outcome: r, Code: string(code), Detail: "As the test says", Lost: []string{}}
}

// receipt signs what the agent says of a task's batch; outcomes nil means that all went well.
func (f *fake) receipt(k api.Task, outcomes []token.Outcome, change ...func(*token.Receipt)) api.SignedReceipt {
	f.w.t.Helper()
	side := token.Destination
	if k.Kind == api.ServeTask {
		side = token.Source
	}
	m := f.manifest(k)
	if outcomes == nil {
		for i, it := range m.Items {
			outcomes = append(outcomes, good(i, it, side))
		}
	}
	var lines [][]byte
	var text bytes.Buffer
	total := int64(0)
	for _, o := range outcomes {
		line, err := token.MarshalOutcome(o)
		if err != nil {
			f.w.t.Fatalf("an outcome: %v", err)
		}
		lines = append(lines, line)
		text.Write(append(line, '\n'))
		if o.Outcome == token.Stored || o.Outcome == token.Sent {
			total += o.Size
		}
	}
	root, err := token.OutcomesRoot(lines)
	if err != nil {
		f.w.t.Fatal(err)
	}
	cap, err := payloadHash(k.Capability)
	if err != nil {
		f.w.t.Fatal(err)
	}
	at := f.w.now.Unix()
	r := token.Receipt{
		Aud: f.w.b.self, Authority: token.ByOrder, Bat: k.Bat, Bytes: total, Caps: []token.Hash{cap}, Started: at, Finished: at, Iat: at,
		Iss: f.peer.Identity, Man: token.HashOf(k.Manifest), N: int64(len(lines)), Ord: m.Ord, Part: 1, Last: true, Root: root, Side: side, Xfr: m.Xfr,
	}
	if side == token.Destination {
		r.CreateBy = token.GuardStore
	}
	for _, c := range change {
		c(&r)
	}
	s, err := token.NewSigner(f.leaf.Key)
	if err != nil {
		f.w.t.Fatal(err)
	}
	jws, err := s.Receipt(r)
	if err != nil {
		f.w.t.Fatalf("signing a receipt: %v", err)
	}
	return api.SignedReceipt{JWS: jws, Chain: string(f.leaf.Chain.PEM()), Lines: text.String()}
}

func (f *fake) post(sr api.SignedReceipt) {
	f.w.t.Helper()
	if _, err := f.w.b.PostReceipt(f.w.t.Context(), f.peer, sr, f.w.now); err != nil {
		f.w.t.Fatalf("posting a receipt of %s: %v", f.peer.Identity, err)
	}
}

// batch takes both tasks of the next batch.
func batch(src, dst *fake) (serve, receive api.Task) {
	src.w.t.Helper()
	receive = dst.task(api.ReceiveTask)
	serve = src.task(api.ServeTask)
	if receive.Bat != serve.Bat {
		src.w.t.Fatalf("got batch %d for the destination and %d for the source", receive.Bat, serve.Bat)
	}
	return serve, receive
}

// want checks how a transfer ended.
func (w *world) want(id token.TransferID, s api.State, outcomes map[token.Result]int64) api.Transfer {
	w.t.Helper()
	w.step()
	t := w.transfer(id)
	if t.State != s || fmt.Sprint(t.Outcomes) != fmt.Sprint(outcomes) {
		w.t.Errorf("got %s %v (waiting %q, problem %+v), want %s %v", t.State, t.Outcomes, t.Waiting, t.Problem, s, outcomes)
	}
	w.checkTotals(id)
	return t
}

// checkTotals audits one transfer, finished or not.
func (w *world) checkTotals(id token.TransferID) {
	w.t.Helper()
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		t, err := tx.Transfer(w.t.Context(), id)
		if err == nil {
			w.auditTransfer(w.t.Context(), tx, t)
		}
		return err
	}); err != nil {
		w.t.Errorf("auditing %s: %v", id, err)
	}
}
