package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	defaultPage = 100
	// recordBytes is how much of a page of batches is filled before it ends; one record may be larger.
	recordBytes = 4 << 20
)

// A watch wakes those who wait for a change of one transfer.
type watch struct {
	changed chan struct{} // closed at the next change
	waiters int
}

// notify wakes those who wait for a change of a transfer.
func (b *Broker) notify(id token.TransferID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.watchers[id]; w != nil {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// until calls look, now and after each change of a transfer, until it reports true or wait is over.
func (b *Broker) until(ctx context.Context, id token.TransferID, wait time.Duration, look func() (bool, error)) error {
	if wait <= 0 {
		_, err := look()
		return err
	}
	b.mu.Lock()
	w := b.watchers[id]
	if w == nil {
		w = &watch{changed: make(chan struct{})}
		b.watchers[id] = w
	}
	w.waiters++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if w.waiters--; w.waiters == 0 {
			delete(b.watchers, id)
		}
	}()
	late := time.NewTimer(min(wait, api.MaxWait))
	defer late.Stop()
	for {
		b.mu.Lock()
		changed := w.changed // before looking, so that nothing between is missed
		b.mu.Unlock()
		if ok, err := look(); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-late.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// see returns a transfer if the caller, or an account that is linked with it, is one of its accounts. Whether there is one is not
// told to others.
func see(ctx context.Context, tx *db.Tx, peer certs.Peer, id token.TransferID) (db.Transfer, error) {
	t, err := tx.Transfer(ctx, id)
	if err == nil && !slices.Contains(t.Accounts, peer.Identity) {
		var may []token.Identity
		if may, err = sees(ctx, tx, peer); err == nil && !slices.ContainsFunc(t.Accounts, func(a token.Identity) bool { return slices.Contains(may, a) }) {
			err = problem.New(problem.NotFound, "")
		}
	}
	if problem.Of(err) == problem.NotFound {
		return db.Transfer{}, problem.New(problem.Hidden, "There is no transfer of that id that %s may see", peer.Identity)
	}
	return t, err
}

// own is see for who wants to change something: to be linked with one of the accounts is not enough.
func own(ctx context.Context, tx *db.Tx, peer certs.Peer, id token.TransferID) (db.Transfer, error) {
	t, err := see(ctx, tx, peer, id)
	if err == nil && !slices.Contains(t.Accounts, peer.Identity) {
		return db.Transfer{}, &problem.Error{
			Code: problem.NotPermitted, Detail: fmt.Sprintf("The transfer is of %v; %s may see it by a link, and a link is no authority", t.Accounts, peer.Identity),
			Remedy: "Use the certificate of one of its accounts.",
		}
	}
	return t, err
}

// Transfer returns a transfer of the caller's once its Seq is beyond after, or as it is after wait.
func (b *Broker) Transfer(ctx context.Context, peer certs.Peer, id token.TransferID, after int64, wait time.Duration) (api.Transfer, error) {
	var out api.Transfer
	err := b.until(ctx, id, wait, func() (bool, error) {
		err := b.db.Read(ctx, func(tx *db.Tx) error {
			t, err := see(ctx, tx, peer, id)
			if err != nil {
				return err
			}
			out, err = b.view(ctx, tx, t)
			return err
		})
		return out.Seq > after, err
	})
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// view is a transfer as people see it, with what agents say of running batches.
func (b *Broker) view(ctx context.Context, tx *db.Tx, t db.Transfer) (api.Transfer, error) {
	v := api.Transfer{
		ID: t.ID, Order: t.Order, Run: t.Run, State: t.State, Do: t.Do, From: t.From, To: t.To, Accounts: t.Accounts, Authority: t.Authority, Created: t.Created, Planned: t.Planned,
		Items: t.Items, Bytes: t.Bytes, BytesMoved: t.Moved, ItemsDone: t.Done(), Outcomes: map[token.Result]int64{}, Flags: []string{}, Seq: t.Seq,
	}
	for _, r := range []token.Result{token.Stored, token.Existed, token.TakenBy, token.Altered, token.Denied, token.Failed, token.Left, token.Untried} {
		if n := *t.Of(r); n > 0 {
			v.Outcomes[r] = n
		}
	}
	if t.Disputed {
		v.Flags = append(v.Flags, "disputed")
	}
	if t.Unmatched {
		v.Flags = append(v.Flags, "unmatched")
	}
	denials, err := tx.Denials(ctx, t.ID, api.MaxDenials)
	if err != nil {
		return api.Transfer{}, err
	}
	v.Denials = advised(denials)
	if t.State == api.Cancelled {
		v.Problem = endProblem(t)
	}
	if !t.Finished.IsZero() {
		v.Finished = &t.Finished
		v.Problem = endProblem(t)
		return v, nil
	}
	live, err := tx.BatchesIn(ctx, t.ID, db.Live, 1<<20)
	if err != nil {
		return api.Transfer{}, err
	}
	ready, err := tx.BatchesIn(ctx, t.ID, db.Ready, 1)
	if err != nil {
		return api.Transfer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(live) == 0 {
		v.Waiting = b.waiting[t.ID]
		if v.Waiting == "" && len(ready) > 0 {
			v.Waiting = ready[0].Note
		}
	}
	for _, bt := range live {
		b.addProgress(&v, bt)
	}
	if t.State == api.Paused {
		v.Waiting = "It is paused, and goes on when it is resumed" // whatever its agents say meanwhile
	}
	return v, nil
}

// addProgress adds what the agents of a live batch say. mu is held.
func (b *Broker) addProgress(v *api.Transfer, bt db.Batch) {
	for _, id := range []token.Identity{bt.Dst, bt.Src} {
		s := b.sessions[id]
		if s == nil || s.stream == 0 {
			v.Waiting = fmt.Sprintf("The agent %s is not connected", id) + b.turnedAway(id)
			continue
		}
		p, ok := s.progress[bt.Ref]
		if !ok {
			continue
		}
		if id == bt.Dst {
			v.BytesMoved += min(p.Bytes, bt.Bytes)
		}
		if p.Waiting != "" {
			v.Waiting = fmt.Sprintf("%s: %s", id, clip((&problem.Error{Code: p.Waiting, Detail: p.Note}).Sentence()))
			if why := b.laneReason(bt, p.Waiting); why != "" {
				v.Waiting = why
			}
		}
	}
}

// endProblem says why a transfer ended other than complete.
func endProblem(t db.Transfer) *api.Problem {
	switch t.State {
	case api.Complete, api.Queued, api.Running, api.Paused:
		return nil
	case api.Partial:
		first := (&problem.Error{Code: t.Code, Detail: t.Detail}).Sentence()
		return api.ProblemOf(problem.New(problem.Partial, "%d of %d items were not transferred; the first: %s", t.Failures(), t.Items, first))
	case api.Failed, api.Cancelled, api.Expired:
	}
	return api.ProblemOf(&problem.Error{Code: t.Code, Detail: t.Detail})
}

// pageSize is how many entries a page has of which the caller wants limit; 0 is as many as we like.
func pageSize(limit int) (int, error) {
	switch {
	case limit < 0 || limit > api.MaxPage:
		return 0, problem.New(problem.TooLarge, "A page has at most %d entries", api.MaxPage)
	case limit == 0:
		return defaultPage, nil
	}
	return limit, nil
}

// Transfers returns a page of the caller's transfers, newest first.
func (b *Broker) Transfers(ctx context.Context, peer certs.Peer, state api.State, cursor string, limit int) (api.Page[api.Transfer], error) {
	page := api.Page[api.Transfer]{Items: []api.Transfer{}}
	limit, err := pageSize(limit)
	if err != nil {
		return page, err
	}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		may, err := sees(ctx, tx, peer)
		if err != nil {
			return err
		}
		ts, err := tx.Transfers(ctx, may, state, token.TransferID(cursor), limit+1)
		if err != nil {
			return err
		}
		if len(ts) > limit {
			ts = ts[:limit]
			page.Next = string(ts[limit-1].ID)
		}
		for _, t := range ts {
			v, err := b.view(ctx, tx, t)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, v)
		}
		return nil
	})
	return page, err
}

// Events returns the events of a transfer of the caller's after the one of that number, waiting for the first.
func (b *Broker) Events(ctx context.Context, peer certs.Peer, id token.TransferID, after int64, wait time.Duration) (api.Page[api.Event], error) {
	page := api.Page[api.Event]{Items: []api.Event{}}
	err := b.until(ctx, id, wait, func() (bool, error) {
		err := b.db.Read(ctx, func(tx *db.Tx) error {
			if _, err := see(ctx, tx, peer, id); err != nil {
				return err
			}
			es, err := tx.Events(ctx, id, after, defaultPage+1)
			if len(es) > defaultPage {
				es = es[:defaultPage]
				page.Next = strconv.FormatInt(es[defaultPage-1].Seq, 10)
			}
			page.Items = append(page.Items[:0], advised(es)...)
			return err
		})
		return len(page.Items) > 0, err
	})
	if err != nil {
		return api.Page[api.Event]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}

// Order returns the order of a transfer of the caller's as it was signed.
func (b *Broker) Order(ctx context.Context, peer certs.Peer, id token.TransferID) (api.SignedOrder, error) {
	var so api.SignedOrder
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		if _, err := see(ctx, tx, peer, id); err != nil {
			return err
		}
		var err error
		so, _, err = tx.Order(ctx, id)
		return err
	})
	return so, b.deny(peer.Identity, err)
}

// Batches returns a page of the leased batches of a transfer of the caller's, with all that was signed about them.
func (b *Broker) Batches(ctx context.Context, peer certs.Peer, id token.TransferID, cursor string) (api.Page[api.BatchRecord], error) {
	page := api.Page[api.BatchRecord]{Items: []api.BatchRecord{}}
	after, err := number(cursor)
	if err != nil {
		return page, err
	}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		if _, err := see(ctx, tx, peer, id); err != nil {
			return err
		}
		for size := 0; size < recordBytes; {
			bts, err := tx.BatchesAfter(ctx, id, after, 1)
			if err != nil || len(bts) == 0 {
				page.Next = ""
				return err
			}
			after = bts[0].Bat
			page.Next = strconv.FormatInt(after, 10)
			if bts[0].Gen == 0 {
				continue // never leased: nobody signed anything
			}
			r, n, err := record(ctx, tx, bts[0])
			if err != nil {
				return err
			}
			size += n
			page.Items = append(page.Items, r)
		}
		return nil
	})
	if err != nil {
		return api.Page[api.BatchRecord]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}

func record(ctx context.Context, tx *db.Tx, bt db.Batch) (api.BatchRecord, int, error) {
	body, err := tx.Manifest(ctx, bt.Ref)
	if err != nil {
		return api.BatchRecord{}, 0, err
	}
	rs, err := tx.Receipts(ctx, bt.Ref)
	if err != nil {
		return api.BatchRecord{}, 0, err
	}
	out, size := api.BatchRecord{Bat: bt.Bat, Manifest: body, Receipts: []api.SignedReceipt{}}, len(body)
	for _, r := range rs {
		out.Receipts = append(out.Receipts, r.Signed)
		size += len(r.Signed.JWS) + len(r.Signed.Chain) + len(r.Signed.Lines)
	}
	return out, size, nil
}

func number(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || n < 0 {
		return 0, problem.New(problem.Malformed, "The cursor is not one that this broker gave")
	}
	return n, nil
}

// Items returns a page of what became of the items of a transfer of the caller's: first the names that no
// batch could hold, then batch by batch, those of one result or, if that is empty, all that are final.
func (b *Broker) Items(ctx context.Context, peer certs.Peer, id token.TransferID, result token.Result, cursor string) (api.Page[api.ItemReport], error) {
	page := api.Page[api.ItemReport]{Items: []api.ItemReport{}}
	kind, place, _ := strings.Cut(cursor, ".")
	after, err := number(place)
	if err != nil || kind != "" && kind != "u" && kind != "b" {
		return page, problem.New(problem.Malformed, "The cursor is not one that this broker gave")
	}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		if _, err := see(ctx, tx, peer, id); err != nil {
			return err
		}
		if kind != "b" {
			us, err := tx.Unplanned(ctx, id, result, after, api.MaxPage)
			if err != nil {
				return err
			}
			for _, u := range us {
				page.Items = append(page.Items, api.ItemReport{Src: token.ObjectName(u.Name), Outcome: u.Result, Code: u.Code, Detail: u.Detail})
				page.Next = "u." + strconv.FormatInt(u.N, 10)
			}
			if len(us) == api.MaxPage {
				return nil
			}
			after = 0
		}
		return batchItems(ctx, tx, id, result, after, &page)
	})
	if err != nil {
		return api.Page[api.ItemReport]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}

// batchItems adds whole batches to a page until it is full.
func batchItems(ctx context.Context, tx *db.Tx, id token.TransferID, result token.Result, after int64, page *api.Page[api.ItemReport]) error {
	for len(page.Items) < api.MaxPage {
		bts, err := tx.BatchesAfter(ctx, id, after, 1)
		if err != nil || len(bts) == 0 {
			page.Next = ""
			return err
		}
		after = bts[0].Bat
		page.Next = "b." + strconv.FormatInt(after, 10)
		if bts[0].State != db.Ended {
			continue
		}
		if err := finalItems(ctx, tx, bts[0].Ref, result, page); err != nil {
			return err
		}
	}
	return nil
}

func finalItems(ctx context.Context, tx *db.Tx, ref api.Ref, result token.Result, page *api.Page[api.ItemReport]) error {
	m, err := manifest(ctx, tx, ref)
	if err != nil {
		return err
	}
	body, err := tx.Final(ctx, ref)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(body) {
		var f final
		if err := json.Unmarshal(line, &f); err != nil {
			return fmt.Errorf("reading an outcome of batch %d of %s: %w", ref.Bat, ref.Xfr, err)
		}
		if result != "" && f.Result != result {
			continue
		}
		it := m.Items[f.Item]
		page.Items = append(page.Items, api.ItemReport{Src: it.Src, Dst: it.Dst, Size: f.Size, Outcome: f.Result, Code: f.Code, Detail: f.Detail,
			Digest: f.Digest, Batch: ref.Bat, Lost: f.Lost})
	}
	return nil
}

// Providers returns the providers of this broker and what their agents export.
func (b *Broker) Providers(ctx context.Context) (api.Page[api.ProviderInfo], error) {
	page := api.Page[api.ProviderInfo]{Items: []api.ProviderInfo{}}
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		for _, p := range b.conf.Providers {
			info := api.ProviderInfo{Name: p, Containers: []token.Container{}, Agents: []api.AgentInfo{}}
			cs, err := tx.Containers(ctx, p)
			if err != nil {
				return err
			}
			info.Containers = append(info.Containers, cs...)
			as, err := tx.Agents(ctx, p)
			if err != nil {
				return err
			}
			for _, a := range as {
				info.Agents = append(info.Agents, api.AgentInfo{ID: a.ID, Connected: b.connected(a.ID), Version: a.Version, Seen: b.lastSeen(a)})
			}
			page.Items = append(page.Items, info)
		}
		return nil
	})
	return page, err
}
