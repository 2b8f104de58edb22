package broker

import (
	"context"
	"slices"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// repinNames returns the sources of a batch that is to be described anew.
func repinNames(ctx context.Context, tx *db.Tx, ref api.Ref) ([]token.ObjectName, error) {
	m, err := manifest(ctx, tx, ref)
	if err != nil {
		return nil, err
	}
	names := make([]token.ObjectName, len(m.Items))
	for i, it := range m.Items {
		names[i] = it.Src
	}
	return names, nil
}

// takeRepin gives the items of a batch the versions that their sources have now.
func (b *Broker) takeRepin(ctx context.Context, w *work, t *db.Transfer, ref api.Ref, page api.TaskPage) error {
	bt, err := w.Batch(ctx, ref)
	if err != nil || bt.State != db.Repin {
		return err
	}
	if p := page.Problem; p != nil && problem.Lookup(p.Code).Retry == problem.Later {
		bt.Attempts++
		bt.NotBefore = w.now.Add(backoff(bt.Attempts))
		return w.PutBatch(ctx, bt)
	}
	m, err := manifest(ctx, w.Tx, ref)
	if err != nil {
		return err
	}
	now := make(map[token.ObjectName]api.Entry, len(page.Entries))
	for _, e := range page.Entries {
		now[e.Name] = e
	}
	es, err := w.Exporters(ctx, t.To.Provider, t.To.Container)
	if err != nil {
		return err
	}
	part := partSize(es)
	g, err := b.gateOf(ctx, w.Tx, *t, w.now)
	if err != nil {
		return err
	}
	var again []token.Item
	var verdicts []verdict
	for i, it := range m.Items {
		e, ok := now[it.Src]
		fresh := it
		fresh.Size, fresh.Version = e.Size, e.Version
		fresh.Part, err = part(e.Size)
		if ok && e.Code == "" && e.Type == objectType && err == nil && fresh.Check() == nil {
			if why, err := g.room(ctx, w, it.Dst, fresh.Size-it.Size); err != nil {
				return err
			} else if why != nil {
				verdicts = append(verdicts, deniedVerdict(int64(i), it, why))
				continue
			}
			t.Bytes += fresh.Size - it.Size
			again = append(again, fresh)
			verdicts = append(verdicts, verdict{item: int64(i), next: elsewhere})
			continue
		}
		verdicts = append(verdicts, gone(i, it, e, page.Problem))
	}
	if len(again) > 0 {
		if err := b.addBatches(ctx, w, t, db.Batch{State: db.Ready, Tries: bt.Tries, Attempts: bt.Attempts, Repins: bt.Repins}, again); err != nil {
			return err
		}
	}
	return b.end(ctx, w, t, &bt, m, verdicts)
}

// gone is the verdict on an item whose source cannot be pinned any more.
func gone(i int, it token.Item, e api.Entry, p *api.Problem) verdict {
	code, detail := problem.Missing, "The source object is gone"
	switch {
	case e.Code != "":
		code, detail = e.Code, clip(e.Detail)
	case p != nil:
		code, detail = p.Code, clip(p.Detail)
	}
	r := token.ResultOf(code)
	if r == token.Untried || r == token.Left || r == token.TakenBy {
		r = token.Failed
	}
	return verdict{item: int64(i), result: r, code: code, detail: detail, size: it.Size}
}

// addBatches is addBatch for items that may have grown beyond one batch.
func (b *Broker) addBatches(ctx context.Context, w *work, t *db.Transfer, like db.Batch, items []token.Item) error {
	most, err := batchBounds(ctx, w.Tx, t)
	if err != nil {
		return err
	}
	from, bytes := 0, int64(0)
	for i, it := range items {
		if i > from && (bytes+it.Size > most.bytes || int64(i-from) >= most.items) {
			if err := b.addBatch(ctx, w, t, like, items[from:i]); err != nil {
				return err
			}
			from, bytes = i, 0
		}
		bytes += it.Size
	}
	return b.addBatch(ctx, w, t, like, items[from:])
}

// takeMade takes in which of the empty containers were made.
func (b *Broker) takeMade(ctx context.Context, w *work, t *db.Transfer, page api.TaskPage) error {
	if p := page.Problem; p != nil {
		if problem.Lookup(p.Code).Retry == problem.Later {
			return b.planFailed(ctx, w, t, p)
		}
		names, err := w.Folders(ctx, t.ID, api.MaxNames)
		if err != nil {
			return err
		}
		page.Entries = nil
		for _, n := range names {
			page.Entries = append(page.Entries, api.Entry{Name: n, Code: p.Code, Detail: p.Detail})
		}
	}
	pl := &planner{b: b, w: w, t: t}
	asked, err := w.Folders(ctx, t.ID, api.MaxNames)
	if err != nil {
		return err
	}
	for _, e := range page.Entries {
		if e.Code == "" {
			if slices.Contains(asked, e.Name) {
				if err := b.addMade(ctx, w, t.To, t.Accounts, []api.Entry{e}); err != nil {
					return err
				}
			}
			continue
		}
		r := token.ResultOf(e.Code)
		if t.Of(r) == nil || r == token.Untried || r == token.Left {
			r = token.Failed
		}
		pl.report(clip(string(e.Name)), r, e.Code, e.Detail)
	}
	if err := w.AddUnplanned(ctx, t.ID, pl.odd); err != nil {
		return err
	}
	if err := w.DropFolders(ctx, t.ID, api.MaxNames); err != nil {
		return err
	}
	t.PlanTries = 0
	_, err = w.record(ctx, t, change{event: "made", note: "Empty containers were made"})
	return err
}
