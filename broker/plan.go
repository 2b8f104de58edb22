package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// maxManifest keeps the canonical manifest well below token.MaxManifestSize, whatever it holds.
	maxManifest = token.MaxManifestSize - 64<<10
	// itemOverhead is more than what an item's canonical form has beside its texts.
	itemOverhead = 160
	// openFor is how long a batch stays open for more items while agents have nothing to do.
	openFor = time.Second
)

// Types of an entry, as agent/store names them.
const (
	objectType    = "object"
	containerType = "container"
)

// manifest returns the manifest of a batch.
func manifest(ctx context.Context, tx *db.Tx, ref api.Ref) (token.Manifest, error) {
	body, err := tx.Manifest(ctx, ref)
	if err != nil {
		return token.Manifest{}, err
	}
	m, _, err := token.ParseManifest(body)
	if err != nil {
		return token.Manifest{}, fmt.Errorf("reading the manifest of batch %d of %s: %w", ref.Bat, ref.Xfr, err)
	}
	return m, nil
}

// setItems gives a batch that is not live its items, and writes it.
func (b *Broker) setItems(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, items []token.Item) error {
	body, man, err := token.MarshalManifest(token.Manifest{Bat: bt.Bat, Items: items, Iss: b.self, Ord: t.Ord, Xfr: t.ID})
	if err != nil {
		return fmt.Errorf("making the manifest of batch %d of %s: %w", bt.Bat, t.ID, err)
	}
	bt.Man, bt.Items, bt.Bytes = man, int64(len(items)), 0
	for _, it := range items {
		bt.Bytes += it.Size
	}
	if err := w.PutBatch(ctx, *bt); err != nil {
		return err
	}
	if err := w.hold(ctx, t, bt.Ref, items); err != nil {
		return err
	}
	return w.PutManifest(ctx, bt.Ref, body)
}

// addBatch writes items as a new batch of the transfer, like bt in all else.
func (b *Broker) addBatch(ctx context.Context, w *work, t *db.Transfer, bt db.Batch, items []token.Item) error {
	bt.Xfr, bt.Bat, bt.Created = t.ID, t.NextBat, w.now
	t.NextBat++
	return b.setItems(ctx, w, t, &bt, items)
}

// A planner takes a page of a listing into a transfer, in one transaction.
type planner struct {
	b       *Broker
	w       *work
	t       *db.Transfer
	o       token.Order
	part    func(size int64) (int64, error)
	most    bounds
	open    db.Batch // Bat is 0 while there is none
	items   []token.Item
	bytes   int64
	text    int64 // bound of the manifest's size
	names   map[token.ObjectName]bool
	odd     []db.Unplanned
	folders []token.ObjectName
	full    bool // a limit of the order is reached

	gate    *gate                      // nil for who adds nothing
	sources map[token.ObjectName]error // of the page: what may not be copied, and why
	compare map[token.ObjectName]error // of the page: names of the destination that the source may not be compared with, and why
	refused []db.Unplanned             // names that the gate refused; they are in odd too
}

func (p *planner) load(ctx context.Context) error {
	open, err := p.w.BatchesIn(ctx, p.t.ID, db.Filling, 1)
	p.names = map[token.ObjectName]bool{}
	if err != nil || len(open) == 0 {
		return err
	}
	p.open = open[0]
	m, err := manifest(ctx, p.w.Tx, p.open.Ref)
	if err != nil {
		return err
	}
	for _, it := range m.Items {
		p.push(it)
	}
	return nil
}

func (p *planner) push(it token.Item) {
	p.items = append(p.items, it)
	p.names[it.Dst] = true
	p.bytes += it.Size
	p.text += weight(it)
}

// weight bounds the canonical size of an item: any byte of a name may become six.
func weight(it token.Item) int64 {
	n := int64(itemOverhead + len(it.Digest))
	for _, s := range []string{string(it.Src), string(it.Dst), string(it.Version)} {
		for i := range len(s) {
			if c := s[i]; c < ' ' || c == '"' || c == '\\' {
				n += 5
			}
			n++
		}
	}
	return n
}

// close ends the open batch: it is ready for agents.
func (p *planner) close(ctx context.Context) error {
	if len(p.items) == 0 {
		return nil
	}
	if err := p.save(ctx, db.Ready); err != nil {
		return err
	}
	p.open, p.items, p.bytes, p.text = db.Batch{}, nil, 0, 0
	clear(p.names)
	return nil
}

func (p *planner) save(ctx context.Context, s db.BatchState) error {
	if len(p.items) == 0 {
		return nil
	}
	if err := p.stamped(ctx); err != nil {
		return err
	}
	p.open.State = s
	if p.open.Bat == 0 {
		return p.b.addBatch(ctx, p.w, p.t, p.open, p.items)
	}
	return p.b.setItems(ctx, p.w, p.t, &p.open, p.items)
}

// report notes a name that no batch can hold.
func (p *planner) report(name string, r token.Result, code problem.Code, detail string) {
	if l := p.o.Limits; l.Items > 0 && p.t.Items+1 > l.Items {
		p.full = true // a source that tells of nothing but faults is bounded by it too
		return
	}
	p.odd = append(p.odd, db.Unplanned{Name: name, Result: r, Code: code, Detail: clip(detail)})
	p.t.Items++
	*p.t.Of(r)++
	if r != token.Left {
		blame(p.t, code, clip(detail))
	}
}

// add takes one entry of a listing.
func (p *planner) add(ctx context.Context, e api.Entry) error {
	dst, err := p.o.Destination(e.Name)
	switch {
	case problem.Of(err) == problem.OrderNotCovered:
		return nil // filtered out
	case p.bar(e.Name):
		return nil
	case err != nil:
		p.report(clip(string(e.Name)), token.Failed, problem.Of(err), problem.As(err).Sentence())
		return nil
	case e.Code != "":
		r := token.ResultOf(e.Code)
		if p.t.Of(r) == nil || r == token.Untried {
			r = token.Failed
		}
		p.report(string(e.Name), r, e.Code, e.Detail)
		return nil
	case e.Type == containerType:
		if why := p.gate.landings[dst].makes; why != nil {
			p.refuse(e.Name, why)
			return nil
		}
		p.folders = append(p.folders, dst)
		return nil
	case e.Type != objectType:
		p.report(string(e.Name), token.Left, problem.Skipped, fmt.Sprintf("It is a %s, not an object", kindText(e.Type)))
		return nil
	}
	if why := p.denies(e.Name, dst); why != nil {
		p.refuse(e.Name, why)
		return nil
	}
	part, err := p.part(e.Size)
	it := token.Item{Digest: p.o.Digest, Dst: dst, Hash: p.gate.hash(dst), Part: part, Size: e.Size, Src: e.Name, Version: e.Version}
	if err == nil {
		err = it.Check()
	}
	if err != nil {
		p.report(string(e.Name), token.Failed, problem.Of(err), problem.As(err).Sentence())
		return nil
	}
	return p.addItem(ctx, it)
}

func (p *planner) addItem(ctx context.Context, it token.Item) error {
	if l := p.o.Limits; l.Items > 0 && p.t.Items+1 > l.Items || l.Bytes > 0 && p.t.Bytes+it.Size > l.Bytes {
		p.full = true
		return nil
	}
	if why, err := p.gate.room(ctx, p.w, it.Dst, it.Size); err != nil || why != nil {
		if err == nil {
			p.refuse(it.Src, why)
		}
		return err
	}
	if n := int64(len(p.items)); n > 0 && (n >= p.most.items || p.bytes+it.Size > p.most.bytes || p.text+weight(it) > maxManifest || p.names[it.Dst]) {
		if err := p.close(ctx); err != nil {
			return err
		}
	}
	p.push(it)
	p.t.Items++
	p.t.Bytes += it.Size
	return nil
}

// takePlan takes a page of the source's listing into the transfer and reports whether more is wanted now.
func (b *Broker) takePlan(ctx context.Context, w *work, t *db.Transfer, page api.TaskPage) (bool, error) {
	if page.Problem != nil {
		return false, b.planFailed(ctx, w, t, page.Problem)
	}
	v, _, err := order(ctx, w.Tx, t.ID)
	if err != nil {
		return false, err
	}
	if v.Claims.Scope == token.One {
		if err := describesOne(t, page); err != nil {
			return false, b.giveUp(ctx, w, t, problem.As(err))
		}
	}
	es, err := w.Exporters(ctx, t.To.Provider, t.To.Container)
	if err != nil {
		return false, err
	}
	most, err := batchBounds(ctx, w.Tx, t)
	if err != nil {
		return false, err
	}
	p := &planner{b: b, w: w, t: t, o: v.Claims, part: partSize(es), most: most}
	if p.gate, err = b.gateOf(ctx, w.Tx, *t, w.now); err != nil {
		return false, err
	}
	if err := p.load(ctx); err != nil {
		return false, err
	}
	if why, err := p.ask(ctx, page.Entries); err != nil || why != nil {
		if err == nil {
			err = p.barred(ctx, why)
		}
		return false, err
	}
	for _, e := range page.Entries {
		if err := p.add(ctx, e); err != nil {
			return false, err
		}
		if p.full {
			break
		}
		t.Resume = e.Name
	}
	return p.finish(ctx, page.Last)
}

// finish writes what the page came to.
func (p *planner) finish(ctx context.Context, last bool) (bool, error) {
	t, w := p.t, p.w
	ready, err := w.CountIn(ctx, t.ID, db.Ready)
	if err != nil {
		return false, err
	}
	live, err := w.CountIn(ctx, t.ID, db.Live)
	if err != nil {
		return false, err
	}
	more := !last && !p.full && ready < int64(p.b.conf.MaxReady)
	keepOpen := more && ready+live >= 2 // else agents have little to do: a small batch now is better than a full one later
	if keepOpen {
		err = p.save(ctx, db.Filling)
	} else {
		err = p.close(ctx)
	}
	if err != nil {
		return false, err
	}
	if err := w.AddUnplanned(ctx, t.ID, p.odd); err != nil {
		return false, err
	}
	if err := errors.Join(p.namesDenied(ctx), p.namesRefused(ctx), w.keep(ctx, &p.gate.trail)); err != nil {
		return false, err
	}
	if err := w.AddFolders(ctx, t.ID, p.folders); err != nil {
		return false, err
	}
	if t.State == api.Queued {
		t.State = api.Running
	}
	t.PlanTries = 0
	c := change{event: "planning", note: fmt.Sprintf("%d items found so far", t.Items)}
	if p.full {
		blame(t, problem.OrderNotCovered, "A limit of the order was reached before the end of the source")
	}
	if last || p.full {
		t.Planned = true
		c = change{event: "planned", note: fmt.Sprintf("%d items found", t.Items)}
	}
	_, err = w.record(ctx, t, c)
	return more, err
}

// kindText names a type that an agent said, for people.
func kindText(t string) string {
	if t == "special" {
		return "special file"
	}
	return clip(t)
}

// describesOne reports why a page is not the description of the one object that an order names.
func describesOne(t *db.Transfer, page api.TaskPage) error {
	if len(page.Entries) != 1 || page.Entries[0].Name != t.From.Name {
		return problem.New(problem.Missing, "There is no object %q at the source", t.From.Name)
	}
	switch e := page.Entries[0]; {
	case e.Code != "":
		return problem.New(e.Code, "%s", clip(e.Detail))
	case e.Type == containerType:
		return problem.New(problem.Missing, "%q is a container, not an object; copy it with everything below it", t.From.Name)
	case e.Type != objectType:
		return problem.New(problem.Skipped, "%q is a %s, not an object", t.From.Name, kindText(e.Type))
	}
	return nil
}

// planFailed takes in that the source could not be listed: it is tried again later, or the plan ends
// here, with what was found before.
func (b *Broker) planFailed(ctx context.Context, w *work, t *db.Transfer, p *api.Problem) error {
	detail := clip(p.Detail)
	if why := (&problem.Error{Code: p.Code, Detail: detail}); problem.Lookup(p.Code).Retry == problem.Never {
		pl := &planner{b: b, w: w, t: t}
		if err := pl.load(ctx); err != nil {
			return err
		}
		if err := pl.close(ctx); err != nil {
			return err
		}
		blame(t, why.Code, why.Sentence())
		t.Planned = true
		if problem.Denial(why.Code) {
			return w.denied(ctx, t, why.Code, fmt.Sprintf("The source could not be listed: %s", within(why.Sentence())))
		}
		return w.event(ctx, t, api.Event{Kind: "planned", Code: why.Code, Note: why.Sentence()})
	}
	t.PlanAfter = w.now.Add(backoff(t.PlanTries))
	t.PlanTries++
	why, id := problem.As(&problem.Error{Code: p.Code, Detail: detail}).Sentence(), t.ID
	w.then(func() { b.await(id, why) })
	if problem.Denial(p.Code) {
		note := fmt.Sprintf("The source cannot be listed yet: %s", within(problem.As(&problem.Error{Code: p.Code, Detail: detail}).Sentence()))
		if err := b.deniedOnce(ctx, w, t, "plan "+string(p.Code), p.Code, note); err != nil {
			return err
		}
	}
	_, err := w.record(ctx, t, change{event: "plan-failed", note: why})
	return err
}

// giveUp ends a transfer whose items can never be moved: nothing new is planned or begun.
func (b *Broker) giveUp(ctx context.Context, w *work, t *db.Transfer, why *problem.Error) error {
	blame(t, why.Code, why.Sentence())
	t.Planned = true
	if err := w.DropTasks(ctx, t.ID); err != nil {
		return err
	}
	if err := b.closeWaiting(ctx, w, t, why.Code, why.Sentence()); err != nil {
		return err
	}
	if problem.Denial(why.Code) {
		return w.denied(ctx, t, why.Code, why.Sentence())
	}
	return w.event(ctx, t, api.Event{Kind: "planned", Code: why.Code, Note: why.Sentence()})
}

// assign gives a task to the first agent that may do it and is connected, unless such an agent has it
// already and has been heard of it within the lease, and reports whether somebody has it.
func (b *Broker) assign(ctx context.Context, k db.Task, l token.Location, fit func(db.Exporter) bool, now time.Time) (bool, error) {
	given := false
	err := b.write(ctx, now, func(w *work) error {
		given = false
		t, err := w.Transfer(ctx, k.Xfr)
		if err != nil {
			return err
		}
		wanted, err := stillWanted(ctx, w, k)
		if err != nil || !wanted {
			given = true // by somebody, a moment ago
			return err
		}
		old, err := w.TasksFor(ctx, k.Xfr)
		if err != nil {
			return err
		}
		for _, o := range old {
			if o.Bat == k.Bat && o.Kind == k.Kind && b.connected(o.Agent) && now.Sub(o.Created) < b.conf.LeaseGrace {
				given = true
				return nil
			}
		}
		es, err := w.Exporters(ctx, l.Provider, l.Container)
		if err != nil {
			return err
		}
		for _, e := range es {
			if !fit(e) || !takes(e, t.Authority) || !b.connected(e.ID) {
				continue
			}
			given = true
			k.ID, k.Agent, k.Created = uuid.NewString(), e.ID, now
			w.then(func() { b.post(k.Agent, outgoing{row: k.ID}) })
			return w.AddTask(ctx, k)
		}
		return nil
	})
	if err == nil && given {
		b.log.Debug("task assigned", zap.String("xfr", string(k.Xfr)), zap.String("kind", string(k.Kind)))
	}
	return given, err
}

// stillWanted reports whether the result of a task has not come yet. The caller looked before it began to write,
// and a result that is taken twice would plan every item twice.
func stillWanted(ctx context.Context, w *work, k db.Task) (bool, error) {
	t, err := w.Transfer(ctx, k.Xfr)
	if err != nil || t.Ending != "" {
		return false, err
	}
	switch k.Kind {
	case db.PlanTask:
		return !t.Planned, nil
	case db.RepinTask:
		bt, err := w.Batch(ctx, api.Ref{Xfr: k.Xfr, Bat: k.Bat})
		return bt.State == db.Repin, err
	case db.MakeTask:
		some, err := w.Folders(ctx, k.Xfr, 1)
		return len(some) > 0, err
	}
	return false, nil
}
