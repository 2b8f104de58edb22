package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxRefused = 1024           // refused tasks that a session remembers, so as to log each once
	maxTasks   = 2 * maxLookups // tasks that are carried out or wait for that
	maxWord    = 1024           // bytes of what a task says in one word: its id, its kind, its peer
)

// take carries a task out in a goroutine of its own, unless the same one is under way. While there are maxTasks, it waits: a
// broker that gives more is not read any further. A task with a word that no broker of ours would write is thrown away, since
// words are remembered, logged and answered with.
func (s *session) take(ctx context.Context, t api.Task) {
	if max(len(t.ID), len(t.Kind), len(t.Peer.ID)) > maxWord {
		s.log.Warn("a task is thrown away: its id, kind or peer is too long")
		return
	}
	s.mu.Lock()
	known := s.running[t.ID]
	s.running[t.ID] = true
	s.mu.Unlock()
	if known {
		return
	}
	select {
	case s.pending <- struct{}{}:
	case <-ctx.Done():
		s.forget(t.ID)
		return
	}
	s.a.tasks.Go(func() {
		defer func() {
			s.forget(t.ID)
			<-s.pending
		}()
		s.carryOut(s.a.runCtx, t)
	})
}

// forget lets a task of that id be taken again.
func (s *session) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
}

// carryOut verifies a task and does it. A refusal is told to the broker and logged once.
func (s *session) carryOut(ctx context.Context, t api.Task) {
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-ctx.Done():
		return
	}
	err := s.dispatch(ctx, t)
	if err == nil || ctx.Err() != nil {
		return
	}
	s.logRefusal(t, err)
	switch t.Kind {
	case api.ListTask, api.StatTask, api.MakeTask, api.EraseTask, api.WithdrawTask:
		_, err = s.ctl.PostPage(ctx, t.ID, api.TaskPage{Entries: []api.Entry{}, Last: true, Problem: api.ProblemOf(err)})
	default:
		err = s.ctl.Refuse(ctx, t.ID, api.Refusal{Problem: *api.ProblemOf(err)})
	}
	if err != nil && ctx.Err() == nil {
		s.log.Debug("the broker did not take a refusal", zap.String("task", t.ID), zap.Error(err))
	}
}

func (s *session) logRefusal(t api.Task, err error) {
	s.mu.Lock()
	again := s.refused[t.ID]
	if len(s.refused) >= maxRefused {
		clear(s.refused)
	}
	s.refused[t.ID] = true
	s.mu.Unlock()
	s.a.metrics.refusals.WithLabelValues(string(problem.Of(err))).Inc()
	if !again {
		s.log.Warn("task refused", zap.String("task", t.ID), zap.String("kind", string(t.Kind)), zap.String("code", string(problem.Of(err))), zap.Error(err))
	}
}

// dispatch applies every rule to t, binds its order to this broker, and does it. Receiving and
// serving go on after it has returned.
func (s *session) dispatch(ctx context.Context, t api.Task) error {
	now := time.Now()
	if s.a.redelivered(s, t) {
		return nil
	}
	if err := s.checkSkew(); err != nil {
		return err
	}
	if t.Kind == api.WithdrawTask {
		return s.withdraw(ctx, t, now)
	}
	w, err := s.verifyOrder(t.Order, now)
	if err != nil {
		return err
	}
	if w, err = w.at(t.Run, now); err != nil {
		return err
	}
	if err := w.checkKind(t.Kind, s.a.self.Provider()); err != nil {
		return err
	}
	switch t.Kind {
	case api.ReceiveTask, api.ServeTask:
		return s.admit(t, w, now)
	}
	if err := w.checkNames(t.Kind, t.Names); err != nil {
		return err
	}
	do := token.Read
	switch t.Kind {
	case api.MakeTask:
		do = token.Create
	case api.EraseTask:
		do = token.Erase
	}
	e, _, err := s.a.export(s.id(), w, do)
	if err != nil {
		return err
	}
	l := &lookup{s: s, task: t, will: w, do: do, store: e.Store}
	if err := l.obey(); err != nil {
		return err
	}
	if err := s.a.bind(w, s.id(), now); err != nil {
		return err
	}
	return l.run(ctx)
}

// admit takes a receive or serve task: it is verified, then durable, then under way.
func (s *session) admit(t api.Task, w will, now time.Time) error {
	do := token.Create
	if t.Kind == api.ServeTask {
		do = token.Read
	}
	b, err := s.a.verifyBatch(s, t, w, do, now)
	if err != nil {
		return err
	}
	if s.a.spent.has(b.key) {
		return problem.New(problem.CapSpent, "Batch %d of transfer %s was already carried out by this agent", b.key.bat, b.key.xfr)
	}
	if err := s.a.bind(w, s.id(), now); err != nil {
		return err
	}
	if do == token.Create {
		if err := s.a.names.checkNew(b); err != nil {
			return err
		}
	}
	return s.a.begin(s, t, b, now)
}
