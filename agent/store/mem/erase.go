package mem

import (
	"context"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Erase implements store.Store.
func (s *Store) Erase(ctx context.Context, name token.ObjectName, version token.Version) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	return s.remove(OpErase, name, version)
}

// remove takes one state of an object away.
func (s *Store) remove(op Op, name token.ObjectName, version token.Version) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	persist, err := s.verdict(op, string(name))
	if err != nil && !persist {
		return err
	}
	o := s.objects[string(name)]
	switch {
	case o == nil || o.info.Type != store.Object:
		return missing(name)
	case o.info.Version != version:
		return problem.New(problem.Changed, "%q is not the version that was to be removed.", name)
	}
	delete(s.objects, string(name))
	return err
}

// Unmake implements store.Store.
func (s *Store) Unmake(ctx context.Context, name token.ObjectName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	persist, err := s.verdict(OpUnmake, string(name))
	if err != nil && !persist {
		return err
	}
	if o := s.objects[string(name)]; o == nil || o.info.Type != store.Subtree {
		return missing(name)
	}
	for other := range s.objects {
		if strings.HasPrefix(other, string(name)+"/") {
			return problem.New(problem.NotEmpty, "The container %q is not empty.", name)
		}
	}
	delete(s.objects, string(name))
	return err
}

// Methods implements store.Store.
func (s *Store) Methods() []store.Method { return []store.Method{store.Overwrite} }

// Sanitize implements store.Store: the hook is told of each stage that is wiped.
func (s *Store) Sanitize(m store.Method) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == "" || m == store.Overwrite {
		s.wipes = m == store.Overwrite
	}
}

// Wipe implements store.Store: the bytes are nobody's once the object is gone, and there is nothing else to destroy.
func (s *Store) Wipe(ctx context.Context, w store.Wiping) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(w.Name); err != nil {
		return err
	}
	if w.Method != store.Overwrite {
		return problem.New(problem.Unsanitizable, "The store does not wipe by %q, only by %q.", w.Method, store.Overwrite)
	}
	return s.remove(OpWipe, w.Name, w.Version)
}

// wipe tells the hook of a stage that is thrown away, if it is to be wiped. The caller holds mu.
func (s *Store) wipe(stage string) {
	if s.wipes {
		_, _ = s.verdict(OpWipe, stage) // it goes in any case
	}
}
