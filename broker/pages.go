package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// PostPage takes a page of the result of a list, stat or make task in. The page and the place in the
// listing are committed together, so that a crash of anyone goes on from there. It fails with
// problem.LeaseLost if the task is over or another's.
func (b *Broker) PostPage(ctx context.Context, peer certs.Peer, id string, page api.TaskPage, now time.Time) (api.TaskPageAnswer, error) {
	b.heard(peer, now)
	if len(page.Entries) > api.MaxPage {
		return api.TaskPageAnswer{}, problem.New(problem.TooLarge, "The page has more than %d entries", api.MaxPage)
	}
	if strings.HasPrefix(id, noticePrefix) {
		return b.noticed(ctx, peer.Identity, id, page, now)
	}
	if strings.HasPrefix(id, adoptPrefix) {
		return b.adoptPage(ctx, peer.Identity, id, page, now)
	}
	if a, ok := b.lookupPage(peer.Identity, id, page); ok {
		return a, nil
	}
	body, err := json.Marshal(page)
	if err != nil {
		return api.TaskPageAnswer{}, fmt.Errorf("naming a page: %w", err)
	}
	hash := token.HashOf(body)
	if err := b.gatherPage(id, &page); err != nil {
		return api.TaskPageAnswer{}, err
	}
	more := false
	err = b.write(ctx, now, func(w *work) error {
		more = false
		k, ok, err := w.Task(ctx, id)
		if err != nil {
			return err
		}
		if !ok || k.Agent != peer.Identity {
			return problem.New(problem.LeaseLost, "Nobody waits for this result any more")
		}
		if k.LastPage == hash {
			more = !page.Last // the answer was lost
			return nil
		}
		t, err := w.Transfer(ctx, k.Xfr)
		if err != nil {
			return err
		}
		whole := page.Last || page.Problem != nil
		switch {
		case k.Kind == db.PlanTask:
			more, err = b.takePlan(ctx, w, &t, page)
		case !whole:
			more = true
			w.then(func() { b.keepPage(id, page) })
		case k.Kind == db.RepinTask:
			err = b.takeRepin(ctx, w, &t, api.Ref{Xfr: k.Xfr, Bat: k.Bat}, page)
		case k.Kind == db.MakeTask:
			err = b.takeMade(ctx, w, &t, page)
		}
		if err != nil {
			return err
		}
		if !more {
			w.then(func() { b.keepPage(id, api.TaskPage{}) })
			return w.DropTask(ctx, id)
		}
		return w.SetLastPage(ctx, id, hash, now)
	})
	if err != nil {
		return api.TaskPageAnswer{}, err
	}
	b.wake()
	return api.TaskPageAnswer{More: more}, nil
}

// gatherPage puts the earlier pages of a stat or make task before a new one. They are in memory alone: whoever
// starts anew sends the whole result again, under another task id.
func (b *Broker) gatherPage(id string, page *api.TaskPage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	early := b.partial[id]
	if len(early)+len(page.Entries) > api.MaxNames && len(early) > 0 {
		return problem.New(problem.TooLarge, "The result has more than %d entries", api.MaxNames)
	}
	page.Entries = append(early[:len(early):len(early)], page.Entries...)
	return nil
}

// keepPage keeps what a task has so far; nothing if the page is empty.
func (b *Broker) keepPage(id string, page api.TaskPage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(page.Entries) == 0 {
		delete(b.partial, id)
		return
	}
	b.partial[id] = page.Entries
}

// dropPages forgets the pages of tasks that are over or another's, so that who never sends the last one costs nothing.
func (b *Broker) dropPages(ctx context.Context) error {
	b.mu.Lock()
	ids := slices.Collect(maps.Keys(b.partial))
	b.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return b.db.Read(ctx, func(tx *db.Tx) error {
		for _, id := range ids {
			_, ok, err := tx.Task(ctx, id)
			if err != nil {
				return err
			}
			if !ok {
				b.keepPage(id, api.TaskPage{})
			}
		}
		return nil
	})
}
