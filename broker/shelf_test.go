package broker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A shelf is an agent of south whose container dst is in memory, and which answers lookups by itself, on the broker's word.
type shelf struct {
	*fake
	asked chan api.TaskKind // what it was asked, as far as it fits

	mu    sync.Mutex
	names map[token.ObjectName]string // objects and subtrees with their types
}

// shelf connects a shelf; a name that ends in "/" is a subtree's.
func (w *world) shelf(names ...string) *shelf {
	w.t.Helper()
	s := &shelf{fake: w.agent(w.south, "s1", "dst"), names: map[token.ObjectName]string{}, asked: make(chan api.TaskKind, 64)}
	s.hello.Exports[0].Session, s.hello.Exports[0].Erase = true, true
	for _, n := range names {
		kind := typeObject
		if strings.HasSuffix(n, "/") {
			kind = typeSubtree
		}
		s.names[token.ObjectName(strings.TrimSuffix(n, "/"))] = kind
	}
	w.b.conf.LookupWait = time.Minute // a loaded machine is no reason to fail
	s.connect()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.more:
				s.answer()
			}
		}
	}()
	w.t.Cleanup(func() { stop(); <-ended })
	return s
}

// answer answers the next task.
func (s *shelf) answer() {
	s.fake.mu.Lock()
	l := s.lines[0]
	s.lines = s.lines[1:]
	s.fake.mu.Unlock()
	if l.Task == nil {
		return
	}
	select {
	case s.asked <- l.Task.Kind:
	default:
	}
	keys, err := token.ParseKeySet(s.w.b.Keys(), s.w.b.self)
	if err != nil {
		s.w.t.Error(err)
		return
	}
	v, err := token.VerifySessionOrder(l.Task.Order.Session, keys, s.w.b.self)
	if err != nil {
		s.w.t.Errorf("the order of a task to %s: %v", l.Task.Kind, err)
		return
	}
	page := s.carryOut(v.Claims, *l.Task)
	page.Last = true
	if _, err := s.w.b.PostPage(context.Background(), s.peer, l.Task.ID, page, s.w.now); err != nil {
		s.w.t.Errorf("posting a page: %v", err)
	}
}

func (s *shelf) carryOut(o token.Order, k api.Task) api.TaskPage {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, kind := o.To.Name, s.names[o.To.Name]
	switch o.Do {
	case token.List:
		return api.TaskPage{Entries: s.level(o.From.Name, k)}
	case token.Stat:
		if at, kind = o.From.Name, s.names[o.From.Name]; kind == "" {
			return api.TaskPage{Entries: []api.Entry{{Name: at, Code: problem.Missing, Detail: "There is nothing"}}}
		}
		return api.TaskPage{Entries: []api.Entry{{Name: at, Type: kind, Size: 4}}}
	case token.Make:
		s.names[at] = typeSubtree
		return api.TaskPage{Entries: []api.Entry{{Name: at, Type: typeSubtree, Made: kind == ""}}}
	case token.Erase:
		return s.erase(at, kind)
	}
	return api.TaskPage{Problem: &api.Problem{Code: problem.WrongStatement}}
}

func (s *shelf) erase(at token.ObjectName, kind string) api.TaskPage {
	if kind != typeSubtree {
		return api.TaskPage{Problem: &api.Problem{Code: problem.Missing, Detail: "There is no container"}}
	}
	for n := range s.names {
		if strings.HasPrefix(string(n), string(at)+"/") {
			return api.TaskPage{Problem: &api.Problem{Code: problem.Conflict, Detail: "The container is not empty"}}
		}
	}
	delete(s.names, at)
	return api.TaskPage{Entries: []api.Entry{{Name: at, Type: typeSubtree}}}
}

// level is a page of the names directly below root.
func (s *shelf) level(root token.ObjectName, k api.Task) []api.Entry {
	var keys []string
	for n, kind := range s.names {
		rest, ok := string(n), true
		if root != "" {
			rest, ok = strings.CutPrefix(rest, string(root)+"/")
		}
		if !ok || strings.Contains(rest, "/") {
			continue
		}
		key := string(n)
		if kind == typeSubtree {
			key += "/"
		}
		if key > string(k.After) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	out := []api.Entry{}
	for _, key := range keys[:min(len(keys), int(k.Limit))] {
		n := token.ObjectName(strings.TrimSuffix(key, "/"))
		out = append(out, api.Entry{Name: n, Type: s.names[n], Size: 4})
	}
	return out
}

// has returns what is there under a name.
func (s *shelf) has(n token.ObjectName) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[n]
}

// drop takes a name away behind everybody's back.
func (s *shelf) drop(n token.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, n)
}
