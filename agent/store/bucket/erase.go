package bucket

import (
	"context"
	"fmt"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Erase implements store.Store. An object that is gone after an answer was lost was erased.
func (s *Store) Erase(ctx context.Context, name token.ObjectName, version token.Version) error {
	if err := s.checkName(name); err != nil {
		return err
	}
	if version == "" {
		return problem.New(problem.Changed, "%q has another version.", name)
	}
	lost := false
	err := s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		err := s.b.Delete(ctx, s.key(name), version)
		if lost && problem.Of(err) == problem.Missing {
			return nil
		}
		lost = lost || isAway(err)
		return err
	})
	if err != nil {
		return fmt.Errorf("erasing %q: %w", name, err)
	}
	return nil
}

// Unmake implements store.Store: it removes the marker that Make wrote, if it is the only key there. A key that comes in between is not touched,
// and is enough for the subtree to be there again.
func (s *Store) Unmake(ctx context.Context, name token.ObjectName) error {
	if err := s.checkName(name + "/x"); err != nil {
		return err
	}
	marker := s.key(name) + "/"
	var found Object
	some, more := false, false
	err := s.keys(ctx, marker, "", func(o Object) bool {
		if o.Key == marker && o.Size == 0 {
			found, some = o, true
			return true
		}
		more = true
		return false
	})
	switch {
	case err != nil:
		return fmt.Errorf("removing %q: %w", name, err)
	case more:
		return problem.New(problem.NotEmpty, "The container %q is not empty.", name)
	case !some:
		return problem.New(problem.Missing, "There is no container %q.", name)
	}
	lost := false
	err = s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		err := s.b.Delete(ctx, marker, found.Version)
		if lost && problem.Of(err) == problem.Missing {
			return nil
		}
		lost = lost || isAway(err)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing %q: %w", name, err)
	}
	return nil
}

// Methods implements store.Store. No service says what becomes of bytes that it was told to delete.
func (s *Store) Methods() []store.Method { return nil }

// Sanitize implements store.Store.
func (s *Store) Sanitize(store.Method) {}

// Wipe implements store.Store.
func (s *Store) Wipe(_ context.Context, w store.Wiping) error {
	return problem.New(problem.Unsanitizable, "An object store cannot promise that bytes are wiped by %q.", w.Method)
}
