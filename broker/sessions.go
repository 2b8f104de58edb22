package broker

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of what an agent may say of itself.
const (
	maxExports  = 256
	maxListen   = 16
	maxSlots    = 64
	maxHeld     = 4096
	maxAddress  = 256
	maxVersion  = 128
	defaultSlot = 4

	// silentAfter is how long a connected agent may say nothing before its stream is closed.
	silentAfter = 60 * time.Second
)

// A session is what is known of an agent that said hello since the start. Broker.mu guards it.
type session struct {
	id       token.Identity
	leaf     token.Hash // of the certificate of its newest call
	listen   []string
	slots    int
	stream   int64     // number of the open task stream; 0 is none
	gone     time.Time // since when there is none
	heard    time.Time
	out      []outgoing
	ready    chan struct{} // holds one: out has grown, or the stream is another's
	progress map[api.Ref]api.Progress
	keeping  keeping
}

// outgoing is something to be sent on a task stream. Exactly one member is set.
type outgoing struct {
	revoked bool      // the newest list of revocations
	kept    bool      // what is new in the log of holds and retentions
	batch   api.Ref   // its present state decides what is sent
	row     string    // id of a task row
	task    *api.Task // of a lookup

	withdrawn token.TransferID // an order that was withdrawn
}

// Hello takes in what an agent says of itself.
func (b *Broker) Hello(ctx context.Context, peer certs.Peer, h api.Hello, now time.Time) (api.Welcome, error) {
	if err := b.checkHello(peer, h); err != nil {
		return api.Welcome{}, b.deny(peer.Identity, err)
	}
	if h.Slots == 0 {
		h.Slots = defaultSlot
	}
	w := api.Welcome{Broker: b.self, Time: now.Unix(), Drop: []api.Ref{}}
	var keeps keeping
	err := b.write(ctx, now, func(tx *work) error {
		w.Drop = []api.Ref{}
		for _, ref := range h.Held {
			over, err := b.over(ctx, tx.Tx, peer.Identity, ref, now)
			if err != nil {
				return err
			}
			if over {
				w.Drop = append(w.Drop, ref)
			}
		}
		if err := b.putAgent(ctx, tx, db.Agent{ID: peer.Identity, Version: h.Version, Slots: h.Slots, Listen: h.Listen, Seen: now}, h.Exports); err != nil {
			return err
		}
		if err := b.ownRoots(ctx, tx, peer.Identity, h.Exports); err != nil {
			return err
		}
		var err error
		keeps, w.Kept, err = b.keepHello(ctx, tx, peer.Identity, h.Kept)
		return err
	})
	if err != nil {
		return api.Welcome{}, err
	}
	b.mu.Lock()
	delete(b.turned, peer.Identity)
	s := b.sessions[peer.Identity]
	if s == nil {
		s = &session{id: peer.Identity, gone: now, ready: make(chan struct{}, 1), progress: map[api.Ref]api.Progress{}}
		b.sessions[peer.Identity] = s
	}
	s.leaf, s.listen, s.slots, s.heard, s.keeping = peer.Leaf, h.Listen, h.Slots, now, keeps
	b.mu.Unlock()
	return w, nil
}

func (b *Broker) checkHello(peer certs.Peer, h api.Hello) error {
	switch {
	case !slices.Contains(b.conf.Providers, peer.Identity.Provider()):
		return problem.New(problem.UnknownProvider, "The broker does not know the provider %q", peer.Identity.Provider())
	case len(h.Exports) > maxExports || len(h.Listen) > maxListen || len(h.Held) > maxHeld || len(h.Version) > maxVersion:
		return problem.New(problem.TooLarge, "The hello has more than %d exports, %d addresses or %d held batches", maxExports, maxListen, maxHeld)
	case h.Slots < 0 || h.Slots > maxSlots:
		return problem.New(problem.Malformed, "The hello's slots are not 0 to %d", maxSlots)
	}
	for _, l := range h.Listen {
		if len(l) > maxAddress {
			return problem.New(problem.TooLarge, "An address of the hello is longer than %d bytes", maxAddress)
		}
	}
	seen := map[token.Container]bool{}
	for _, e := range h.Exports {
		if err := token.CheckContainer(e.Container); err != nil {
			return err
		}
		if seen[e.Container] || min(e.PartSize, e.MaxParts, e.MaxItems, e.MaxBytes) < 0 {
			return problem.New(problem.Malformed, "The hello names the container %q twice, or with a negative size", e.Container)
		}
		seen[e.Container] = true
		if err := checkSaid(e); err != nil {
			return err
		}
	}
	return nil
}

// endWithin is how long the source's receipt may come after the destination's before the source is told to end the batch: the
// destination may have been killed before it could say so.
const endWithin = 30 * time.Second

// over reports whether an agent's held batch has ended and nothing more is wanted of it but, at most, its receipt.
func (b *Broker) over(ctx context.Context, tx *db.Tx, agent token.Identity, ref api.Ref, now time.Time) (bool, error) {
	bt, err := tx.Batch(ctx, ref)
	if problem.Of(err) == problem.NotFound {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if bt.Src == agent && bt.SrcDone.IsZero() && !bt.DstDone.IsZero() && now.Sub(bt.DstDone) >= endWithin {
		return true, nil
	}
	return bt.State != db.Live || !bt.Dropped.IsZero() || bt.Src != agent && bt.Dst != agent, nil
}

// Beat takes in an agent's sign of life and answers which of its batches are over.
func (b *Broker) Beat(ctx context.Context, peer certs.Peer, beat api.Beat, now time.Time) (api.BeatAnswer, error) {
	if len(beat.Running) > maxHeld {
		return api.BeatAnswer{}, problem.New(problem.TooLarge, "The beat names more than %d batches", maxHeld)
	}
	answer := api.BeatAnswer{Drop: []api.Ref{}, Time: now.Unix()}
	progress := make(map[api.Ref]api.Progress, len(beat.Running))
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		for _, p := range beat.Running {
			over, err := b.over(ctx, tx, peer.Identity, p.Ref, now)
			if err != nil {
				return err
			}
			if over {
				answer.Drop = append(answer.Drop, p.Ref)
				continue
			}
			p.Bytes, p.Items, p.Note = max(p.Bytes, 0), max(p.Items, 0), clip(p.Note)
			progress[p.Ref] = p
		}
		return nil
	})
	if err != nil {
		return api.BeatAnswer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[peer.Identity]; s != nil {
		s.leaf, s.heard, s.progress = peer.Leaf, now, progress
	}
	return answer, nil
}

// clip bounds a sentence of an agent's and takes out what a terminal would act on.
func clip(s string) string {
	out := make([]rune, 0, min(len(s), token.MaxDetailSize))
	for _, r := range s {
		if len(string(out)) >= token.MaxDetailSize-4 {
			break
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

// Tasks sends an agent its work through send, all that is live first and then what comes, and a
// ping where there was nothing to say, until ctx ends, send fails, or the agent opens another stream or falls silent. send is called by
// this goroutine alone. The agent must have said hello.
func (b *Broker) Tasks(ctx context.Context, peer certs.Peer, send func(api.Line) error) error {
	n, s, err := b.attach(ctx, peer)
	if err != nil {
		return err
	}
	defer b.detach(s, n)
	b.wake()
	ping := time.NewTicker(api.PingEvery)
	defer ping.Stop()
	if err := send(api.Line{Ping: true}); err != nil { // the agent learns at once that it is heard
		return err
	}
	for _, first := range []outgoing{{revoked: true}, {kept: true}} { // before any task
		if err := b.deliver(ctx, s, first, send); err != nil {
			return err
		}
	}
	for {
		out, mine := b.take(s, n)
		if !mine {
			return problem.New(problem.LeaseLost,
				"The agent has opened another task stream, or was silent too long; if that comes again and again, two processes run with its identity")
		}
		for _, o := range out {
			if err := b.deliver(ctx, s, o, send); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ready:
		case <-ping.C:
			if err := send(api.Line{Ping: true}); err != nil {
				return err
			}
		}
	}
}

// attach makes a stream the agent's only one and queues everything that the agent has to do.
func (b *Broker) attach(ctx context.Context, peer certs.Peer) (int64, *session, error) {
	now := time.Now()
	var out []outgoing
	err := b.write(ctx, now, func(w *work) error {
		out = nil
		live, err := w.LiveOf(ctx, peer.Identity)
		if err != nil {
			return err
		}
		for _, bt := range live {
			out = append(out, outgoing{batch: bt.Ref})
		}
		rows, err := w.TasksOf(ctx, peer.Identity)
		if err != nil {
			return err
		}
		for _, k := range rows { // a new id each time, so that what an earlier life still posts is told from this one's
			k.ID, k.LastPage = uuid.NewString(), ""
			if err := w.AddTask(ctx, k); err != nil {
				return err
			}
			out = append(out, outgoing{row: k.ID})
		}
		ns, err := w.Notices(ctx, peer.Identity)
		if err != nil {
			return err
		}
		for _, n := range ns {
			if err := w.PutNotice(ctx, n, now); err != nil {
				return err
			}
			out = append(out, outgoing{withdrawn: n.Target})
		}
		return w.SeeAgent(ctx, peer.Identity, now)
	})
	if err != nil {
		return 0, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[peer.Identity]
	if s == nil {
		return 0, nil, problem.New(problem.LeaseLost, "The broker has started anew; say hello first")
	}
	b.streams++
	s.stream, s.leaf, s.heard, s.out = b.streams, peer.Leaf, now, out
	for _, l := range b.lookups {
		if l.agent == s.id {
			s.out = append(s.out, outgoing{task: l.task})
		}
	}
	poke(s.ready)
	b.log.Info("agent connected", zap.String("agent", string(s.id)), zap.Int("tasks", len(s.out)))
	return s.stream, s, nil
}

func (b *Broker) detach(s *session, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.stream == n {
		s.stream, s.gone, s.out, s.progress = 0, time.Now(), nil, map[api.Ref]api.Progress{}
		b.log.Info("agent disconnected", zap.String("agent", string(s.id)))
	}
}

// take returns what is to be sent, and whether the stream is still the agent's.
func (b *Broker) take(s *session, n int64) ([]outgoing, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.stream != n {
		poke(s.ready) // for the stream that is
		return nil, false
	}
	out := s.out
	s.out = nil
	return out, true
}

// post queues something for an agent, if it is connected; else it gets everything when it is.
func (b *Broker) post(agent token.Identity, o outgoing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[agent]; s != nil && s.stream != 0 {
		s.out = append(s.out, o)
		poke(s.ready)
	}
}

// postBoth tells both agents of a batch how it stands.
func (b *Broker) postBoth(bt db.Batch) {
	for _, a := range []token.Identity{bt.Src, bt.Dst} {
		b.post(a, outgoing{batch: bt.Ref})
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// dropSilent closes the streams of agents that have not been heard of, and forgets those that knock no more.
func (b *Broker) dropSilent(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, r := range b.turned {
		if now.Sub(r.at) >= tellAgain {
			delete(b.turned, id)
		}
	}
	for _, s := range b.sessions {
		if s.stream != 0 && now.Sub(s.heard) > silentAfter {
			b.log.Warn("an agent is connected but silent; its stream is closed", zap.String("agent", string(s.id)))
			s.stream, s.gone, s.progress = 0, now, map[api.Ref]api.Progress{}
			poke(s.ready)
		}
	}
}

// heard notes a call of an agent.
func (b *Broker) heard(peer certs.Peer, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[peer.Identity]; s != nil {
		s.leaf, s.heard = peer.Leaf, now
	}
}

// connected reports whether an agent's task stream is open.
func (b *Broker) connected(id token.Identity) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[id]
	return s != nil && s.stream != 0
}

// absent returns for how long an agent has had no task stream; 0 if it has one.
func (b *Broker) absent(id token.Identity, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch s := b.sessions[id]; {
	case s == nil:
		return max(now.Sub(b.booted), 1)
	case s.stream == 0:
		return max(now.Sub(s.gone), 1)
	}
	return 0
}

// lastSeen is when an agent last was here. What is durable of that is its last connection; what memory knows is later.
func (b *Broker) lastSeen(a db.Agent) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := a.Seen
	if s := b.sessions[a.ID]; s != nil {
		for _, at := range []time.Time{s.heard, s.gone} {
			if at.After(seen) {
				seen = at
			}
		}
	}
	return seen
}

// leafOf returns the certificate to which an agent's capabilities are bound.
func (b *Broker) leafOf(id token.Identity) token.Hash {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[id]; s != nil {
		return s.leaf
	}
	return ""
}

// deliver sends one thing as it stands now; what is over is not sent.
func (b *Broker) deliver(ctx context.Context, s *session, o outgoing, send func(api.Line) error) error {
	if o.task != nil {
		return send(api.Line{Task: o.task})
	}
	if o.revoked {
		if l := b.Revocations(0); l.JWS != "" {
			return send(api.Line{Revocation: l.JWS})
		}
		return nil
	}
	if o.kept {
		page, err := b.keptPage(ctx, s)
		if err != nil || page == nil {
			return err
		}
		return send(api.Line{Kept: page})
	}
	var task *api.Task
	var drop *api.Ref
	var err error
	switch {
	case o.row != "":
		task, err = b.rowTask(ctx, s.id, o.row)
	case o.withdrawn != "":
		task, err = b.noticeTask(ctx, s.id, o.withdrawn)
	default:
		task, drop, err = b.batchTask(ctx, s.id, o.batch)
	}
	switch {
	case err != nil:
		return err
	case task != nil:
		return send(api.Line{Task: task})
	case drop != nil:
		return send(api.Line{Drop: drop})
	}
	return nil
}

// rowTask spells the task of a row; nil if it is over or another's.
func (b *Broker) rowTask(ctx context.Context, agent token.Identity, id string) (*api.Task, error) {
	var task *api.Task
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		k, ok, err := tx.Task(ctx, id)
		if err != nil || !ok || k.Agent != agent {
			return err
		}
		v, so, err := order(ctx, tx, k.Xfr)
		if err != nil {
			return err
		}
		t, err := tx.Transfer(ctx, k.Xfr)
		if err != nil {
			return err
		}
		if so, err = b.carried(so); err != nil {
			return err
		}
		task = &api.Task{ID: k.ID, Order: so, Run: t.Run}
		switch k.Kind {
		case db.PlanTask:
			task.Kind, task.After = api.ListTask, t.Resume
			if v.Claims.Scope == token.One {
				task.Kind, task.Names = api.StatTask, []token.ObjectName{t.From.Name}
			}
		case db.RepinTask:
			task.Kind = api.StatTask
			task.Names, err = repinNames(ctx, tx, api.Ref{Xfr: k.Xfr, Bat: k.Bat})
		case db.MakeTask:
			task.Kind = api.MakeTask
			task.Names, err = tx.Folders(ctx, k.Xfr, api.MaxNames)
		}
		return err
	})
	return task, err
}

// batchTask spells an agent's part of a batch: a task while it is live, a drop when it is to stop.
func (b *Broker) batchTask(ctx context.Context, agent token.Identity, ref api.Ref) (*api.Task, *api.Ref, error) {
	now := time.Now()
	var bt db.Batch
	var t db.Transfer
	var so api.SignedOrder
	var man []byte
	paused := false
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		var err error
		if bt, err = tx.Batch(ctx, ref); err != nil {
			return err
		}
		if t, err = tx.Transfer(ctx, ref.Xfr); err != nil {
			return err
		}
		paused = t.State == api.Paused
		if so, _, err = tx.Order(ctx, ref.Xfr); err != nil {
			return err
		}
		if so, err = b.carried(so); err != nil {
			return err
		}
		man, err = tx.Manifest(ctx, ref)
		return err
	})
	switch {
	case err != nil:
		return nil, nil, err
	case bt.Src != agent && bt.Dst != agent:
		return nil, nil, nil
	case bt.State != db.Live || !bt.Dropped.IsZero():
		return nil, &ref, nil
	case paused:
		return nil, nil, nil // what it has, it keeps
	case bt.Dst == agent && !bt.DstDone.IsZero(), bt.Src == agent && !bt.SrcDone.IsZero():
		return nil, nil, nil
	}
	if bt.Src == agent && bt.Cnf == "" {
		return nil, nil, nil // its key was replaced: the source follows the destination
	}
	if bt.Dst == agent && (bt.Cnf != b.leafOf(agent) || bt.CapExp.Sub(now) < b.conf.CapabilityLife/3) {
		bt, err = b.remint(ctx, ref, b.leafOf(agent), now)
		if code := problem.Of(err); code == problem.LeaseLost || code == problem.OrderExpired || code == problem.CapRevoked {
			return nil, nil, nil // step ends it
		}
		if err != nil {
			return nil, nil, err
		}
	}
	task := &api.Task{Order: so, Run: t.Run, Bat: bt.Bat, Manifest: man}
	if bt.Dst == agent {
		task.ID, task.Kind, task.Capability, task.Present = taskID(ref, token.Destination), api.ReceiveTask, bt.CapCreate, bt.CapRead
		task.Peer = api.Peer{ID: bt.Src, Listen: b.listenOf(ctx, bt.Src)}
	} else {
		task.ID, task.Kind, task.Capability, task.Rate = taskID(ref, token.Source), api.ServeTask, bt.CapRead, bt.Rate
		task.Peer = api.Peer{ID: bt.Dst, Listen: b.listenOf(ctx, bt.Dst)}
	}
	return task, nil, nil
}

// listenOf returns where an agent said that it can be dialled.
func (b *Broker) listenOf(ctx context.Context, id token.Identity) []string {
	out := []string{}
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		as, err := tx.Agents(ctx, id.Provider())
		for _, a := range as {
			if a.ID == id {
				out = append(out, a.Listen...)
			}
		}
		return err
	})
	if err != nil {
		b.log.Error("reading an agent's addresses", zap.String("agent", string(id)), zap.Error(err))
	}
	return out
}
