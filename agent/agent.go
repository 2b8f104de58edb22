// Package agent is the daemon of a storage provider: it takes tasks from
// brokers, receives objects from agents of other providers, serves objects to
// them, and signs receipts for both.
//
// It guarantees four things. Nothing is done for a task before the subscriber's
// order, its chain, every name of the task and the broker's capability were
// verified here, against this agent's own trust bundles and local policy: a
// broker is believed in nothing but its own signature, and gives its word in the place of a subscriber's only where local policy
// names it. No byte leaves or is
// accepted without a capability that is valid now, names both peers and is
// presented by the holder of its key. Whatever was verified and durable is never
// asked for again: a restart opens the journals and goes on, and recovery is the
// ordinary path run again. A receipt is signed once, is durable before it is
// sent, and is sent until the broker has it or has ended the batch.
//
// It does not decide what may be transferred (that is the order), nor retry an
// item that failed for good (that is the broker). Every failure is a
// *problem.Error, reported as an item's outcome, a refusal, or the reason for
// which a batch waits.
//
// A store that does not answer ends nothing: the batch waits and says why. What it has lost of what the
// journal claims is fetched anew.
//
// Memory is bounded by lanes, wanters and slots, by one manifest a batch, by stageMemory a batch where a store keeps small
// stages in memory, and by aheadMemory a batch of whose large items a hash is asked for beside BLAKE3; it does not grow with the number or size of objects.
//
// Where things are: a session is what we have with one broker (session, brokerkeys, revoke, reports), and tasks arrive through it.
// verify and word judge what a task carries, localpolicy what the operator lets it do, and memory, share and withdraw remember what
// was used or ended. A batch (batch, roll) is received (receive, lanes, wanter, fetch, fill, digest, sums, publish; renew, blame when something fails) or
// served (serve, offer, lobby), and is settled (settle, receipt). list answers lookups. replay reads a journal again and survey compares it
// with the store; janitor and collect look after what was left.
//
// Lock order: Agent.mu, then a receiver's or server's, then its batch's mu; none is held across I/O. A piece's staging, then its
// writing, come before all of them, and a receiver's syncing before a piece's; those are.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxLeaves = 4               // of our own recent certificates that a capability may be bound to
	drainTime = 5 * time.Second // that what is under way may take when the agent stops
	readParts = 10_000          // parts of an object that a container which is only read may be said to have

	batchesDir = "batches" // of the state directory: journals
)

// control is what an agent asks of a broker; *api.Client is one. Every failure is a *problem.Error.
type control interface {
	Hello(ctx context.Context, hello api.Hello) (api.Welcome, error)
	Tasks(ctx context.Context, fn func(api.Line) error) error
	PostPage(ctx context.Context, taskID string, page api.TaskPage) (api.TaskPageAnswer, error)
	Refuse(ctx context.Context, taskID string, refusal api.Refusal) error
	Revocations(ctx context.Context, after int64) (api.Revocations, error)
	Beat(ctx context.Context, beat api.Beat) (api.BeatAnswer, error)
	Renew(ctx context.Context, ref api.Ref) (api.Renewal, error)
	PostReceipt(ctx context.Context, receipt api.SignedReceipt) (api.ReceiptAnswer, error)
	Keys(ctx context.Context) ([]byte, error)
	Report(ctx context.Context, reports api.Reports) error
	PutKept(ctx context.Context, mark api.KeptMark) error
}

// An Agent is one agent of one provider. Make it with Open and call Run once, or Close
// if it is not to run.
type Agent struct {
	conf     Config
	self     token.Identity
	log      *zap.Logger
	metrics  *metrics
	boot     string
	traits   map[token.Container]store.Traits
	unsafe   map[token.Container]bool // does not create exclusively, and is used all the same
	endpoint *link.Endpoint
	rules    atomic.Pointer[rulebook]

	receiving, sending *rate.Limiter // of all batches; nil is no limit

	buffers chan []byte   // free buffers of a chunk, its frame and slack
	served  chan struct{} // a place for each want of a peer that is being answered

	state, batchDir, nameDir, keyDir disk.FS
	lock                             io.Closer // of the state directory; nil in a test's

	orders    orders
	withdrawn withdrawals
	spent     spent
	names     names
	stages    *journal.Set // what the stores note
	kept      map[token.Identity]*kept
	wiping    sync.Map // of store.BatchID: what is being wiped
	sessions  []*session

	tasks  sync.WaitGroup  // goroutines of tasks, batches and lanes
	guards sync.WaitGroup  // of open lanes
	runCtx context.Context // ends when Run is asked to stop
	ioCtx  context.Context // ends drainTime later

	mu      sync.Mutex // guards all below
	batches map[batchKey]*batch
	servers map[batchKey]*server // those of batches that can be served now
	arrived chan struct{}        // closed and replaced when servers changes
	pools   map[token.Identity]*pool
	leaves  []token.Hash // of our own certificates, newest last
	callers map[token.Identity]*guest
}

// Open checks conf, opens the state directory, probes the stores that are exported to create in,
// and binds the listening address. It fails with problem.BadConfig, with problem.NotExclusive if a store
// does not create exclusively and its export does not allow that, or with what the disk, store or network said. No goroutine runs yet.
func Open(ctx context.Context, conf Config) (*Agent, error) {
	if err := conf.Check(); err != nil {
		return nil, err
	}
	conf.Lanes = orDefault(conf.Lanes, DefaultLanes)
	conf.WantersPerLane = orDefault(conf.WantersPerLane, DefaultWantersPerLane)
	conf.Slots = orDefault(conf.Slots, DefaultSlots)
	if conf.Version == "" {
		conf.Version = "dev"
	}
	a := &Agent{
		conf: conf, self: conf.Pair.Identity(), log: conf.Logger, boot: conf.hooks.boot, traits: map[token.Container]store.Traits{}, unsafe: map[token.Container]bool{},
		batches: map[batchKey]*batch{}, servers: map[batchKey]*server{}, arrived: make(chan struct{}),
		pools: map[token.Identity]*pool{}, callers: map[token.Identity]*guest{},
		buffers: make(chan []byte, 2*conf.Slots*conf.Lanes*conf.WantersPerLane), served: make(chan struct{}, maxServed),
	}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	a.receiving, a.sending = newLimiter(conf.Rate), newLimiter(conf.Rate)
	book, err := newRulebook(a.self.Provider(), conf.Exports, conf.Groups)
	if err != nil {
		return nil, err
	}
	a.rules.Store(book)
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func (a *Agent) open(ctx context.Context) error {
	var err error
	if a.metrics, err = newMetrics(a.conf.Metrics, a); err != nil {
		return err
	}
	if a.boot == "" {
		if a.boot, err = journal.BootID(); err != nil {
			return err
		}
	}
	if err := a.openState(); err != nil {
		return err
	}
	if err := a.openStores(ctx); err != nil {
		return err
	}
	if err := a.listen(); err != nil {
		return err
	}
	for _, b := range a.conf.Brokers {
		a.sessions = append(a.sessions, newSession(a, b))
	}
	return a.recallBatches()
}

// openStores gives every store that is exported to create in its memory, and measures it.
func (a *Agent) openStores(ctx context.Context) error {
	for _, e := range a.conf.Exports {
		if !e.Creates() {
			a.traits[e.Container] = store.Traits{PartSize: token.ChunkSize, MaxParts: readParts}
			continue
		}
		e.Store.Keep(newNotes(a.stages, e.Container))
		t, err := e.Store.Probe(ctx)
		if problem.Of(err) == problem.NotExclusive && e.Unsafe {
			a.log.Warn("THE STORE DOES NOT CREATE EXCLUSIVELY and is used all the same, as its export allows: what another writer makes at the same "+
				"moment may be overwritten; receipts of this container say create_only: agent", zap.String("container", string(e.Container)), zap.Error(err))
			a.unsafe[e.Container] = true
			a.metrics.unsafe.Inc()
			err = nil
		}
		if err != nil {
			return fmt.Errorf("probing the store of container %q: %w", e.Container, err)
		}
		a.traits[e.Container] = t
	}
	return nil
}

// openState opens the directories and sets that outlive us.
func (a *Agent) openState() error {
	a.state = a.conf.hooks.state
	if a.state == nil {
		if err := os.MkdirAll(a.conf.State, 0o700); err != nil {
			return problem.Wrap(err, problem.BadConfig, "The state directory cannot be made")
		}
		lock, err := disk.Lock(filepath.Join(a.conf.State, "lock"))
		if errors.Is(err, disk.ErrLocked) {
			return problem.Wrap(err, problem.BadConfig, "Another agent is using this state directory; stop it first")
		}
		if err != nil {
			return problem.Wrap(err, problem.BadConfig, "The state directory cannot be locked")
		}
		a.lock = lock
		fsys, err := disk.Open(a.conf.State)
		if err != nil {
			return problem.Wrap(err, problem.BadConfig, "The state directory cannot be opened")
		}
		a.state = fsys
	}
	for name, dir := range map[string]*disk.FS{batchesDir: &a.batchDir, "names": &a.nameDir, "keys": &a.keyDir} {
		if err := a.state.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making %q in the state directory: %w", name, err)
		}
		d, err := a.state.OpenDir(name)
		if err != nil {
			return fmt.Errorf("opening %q in the state directory: %w", name, err)
		}
		*dir = d
	}
	if err := a.state.Sync(); err != nil {
		return fmt.Errorf("syncing the state directory: %w", err)
	}
	var err error
	if a.orders.set, err = journal.OpenSet(a.state, "orders", a.boot, time.Now()); err != nil {
		return err
	}
	a.orders = newOrders(a.orders.set)
	if a.withdrawn.set, err = journal.OpenSet(a.state, "withdrawn", a.boot, time.Now()); err != nil {
		return err
	}
	a.withdrawn = newWithdrawals(a.withdrawn.set)
	if a.spent.set, err = journal.OpenSet(a.state, "spent", a.boot, time.Now()); err != nil {
		return err
	}
	if a.stages, err = journal.OpenSet(a.state, stagesFile, a.boot, time.Now()); err != nil {
		return err
	}
	a.names = names{dir: a.nameDir, mu: new(sync.Mutex)}
	return a.openKept()
}

// openKept reads what each broker has told us of holds and retentions.
func (a *Agent) openKept() error {
	a.kept = map[token.Identity]*kept{}
	for _, b := range a.conf.Brokers {
		set, err := journal.OpenSet(a.state, "kept-"+short(string(b.ID)), a.boot, time.Now())
		if err != nil {
			return err
		}
		k, err := openKept(set)
		if err != nil {
			return errors.Join(err, set.Close())
		}
		a.kept[b.ID] = k
	}
	a.sanitize(a.conf.Exports)
	return nil
}

// listen binds the socket that all lanes share.
func (a *Agent) listen() error {
	key, err := a.resetKey()
	if err != nil {
		return err
	}
	a.endpoint, err = link.ListenQUIC(link.Config{Addr: a.conf.Listen, ResetKey: key, Permit: func(addr netip.AddrPort) error {
		return a.conf.Dial.Permits(addr.Addr())
	}})
	if err != nil {
		return err
	}
	if a.conf.Listen == "" {
		return nil
	}
	if len(a.conf.Advertise) == 0 {
		if udp, ok := a.endpoint.Addr().(*net.UDPAddr); ok && udp.IP.IsUnspecified() {
			return problem.New(problem.BadConfig, "The agent listens on every address; say which one peers dial (advertise)")
		}
	}
	return a.endpoint.Serve(a.watchedServer(certs.PeerServer(a.conf.Pair, a.conf.Trust, wire.ALPN)))
}

// resetKey is kept over restarts so that peers notice one at once.
func (a *Agent) resetKey() (key [32]byte, err error) {
	data, err := readFile(a.state, "reset-key", int64(len(key)))
	if err == nil && len(data) == len(key) {
		return [32]byte(data), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return key, fmt.Errorf("reading the reset key: %w", err)
	}
	rand.Read(key[:])
	return key, writeFile(a.state, "reset-key", key[:])
}

// recallBatches enlists what earlier runs left unfinished.
func (a *Agent) recallBatches() error {
	var files []string
	if err := a.batchDir.Names(func(name string) bool { files = append(files, name); return true }); err != nil {
		return fmt.Errorf("listing journals: %w", err)
	}
	slices.Sort(files)
	for _, file := range files {
		b, err := a.recall(file)
		switch {
		case err != nil:
			a.log.Error("a journal of an unfinished batch is left alone", zap.String("journal", file), zap.Error(err))
		case b == nil:
			if err := journal.Remove(a.batchDir, file); err != nil {
				return err
			}
		default:
			a.limit(b)
			a.batches[b.key] = b
			if a.withdrawn.check(b.will.Order) != nil { // and the process was killed before it was stopped
				b.drop()
			}
		}
	}
	return nil
}

// Addr is the UDP address that lanes are made over.
func (a *Agent) Addr() net.Addr { return a.endpoint.Addr() }

// advertised is where peers can dial us; nil if they cannot.
func (a *Agent) advertised() []string {
	switch {
	case a.conf.Listen == "":
		return nil
	case len(a.conf.Advertise) > 0:
		return a.conf.Advertise
	}
	return []string{a.endpoint.Addr().String()}
}

// Run does the agent's work until ctx ends, then stops in order: no new want is
// asked or served, what is under way may finish for a few seconds, journals are left intact. It
// returns nil after an orderly stop and releases all that Open took. It must be called at most once.
func (a *Agent) Run(ctx context.Context) error {
	io, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-io.Done():
		case <-time.After(a.quickly(drainTime)):
			stop()
		}
	})()
	a.runCtx, a.ioCtx = ctx, io
	a.sweep(ctx)
	for _, s := range a.sessions {
		s.enforce() // what a list said before we were stopped
	}
	for _, b := range a.recalled() {
		a.tasks.Go(func() { b.live(ctx) })
	}
	for _, s := range a.sessions {
		a.tasks.Go(func() { s.run(ctx) })
		a.tasks.Go(func() { s.tend(ctx) })
		a.tasks.Go(func() { s.tellReports(ctx) })
		a.tasks.Go(func() { s.watch(ctx) })
	}
	if a.conf.Listen != "" {
		a.tasks.Go(func() { a.acceptLanes(ctx) })
	}
	a.tasks.Go(func() { a.keepHouse(ctx) })
	a.tasks.Wait()
	return a.Close()
}

// Close releases all that Open took. It is for an Agent that is not to run; Run does it by itself.
func (a *Agent) Close() error {
	var errs []error
	a.mu.Lock()
	pools := a.pools
	a.pools = map[token.Identity]*pool{}
	a.mu.Unlock()
	for _, p := range pools {
		p.close()
	}
	if a.endpoint != nil {
		errs = append(errs, a.endpoint.Close())
	}
	a.guards.Wait()
	for _, set := range []*journal.Set{a.orders.set, a.withdrawn.set, a.spent.set, a.stages} {
		if set != nil {
			errs = append(errs, set.Close())
		}
	}
	for _, k := range a.kept {
		errs = append(errs, k.set.Close())
	}
	for _, d := range []disk.FS{a.batchDir, a.nameDir, a.keyDir} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	if a.state != nil && a.conf.hooks.state == nil {
		errs = append(errs, a.state.Close())
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
	}
	return errors.Join(errs...)
}
