package bucket

import (
	"context"
	"fmt"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// keys calls yield for each key that begins with prefix and comes after after, going on where an answer was lost. It is
// not an error that yield stops.
func (s *Store) keys(ctx context.Context, prefix, after string, yield func(Object) bool) error {
	l := s.loop()
	stopped := false
	for {
		err := ctx.Err()
		if err == nil {
			err = s.page(ctx, prefix, after, func(o Object) bool {
				l.renew()
				after = o.Key
				stopped = ctx.Err() != nil || !yield(o)
				return !stopped
			})
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil || stopped:
			return nil
		}
		if err = l.again(ctx, err); err != nil {
			return err
		}
	}
}

// page is Backend.List as long as something moves. What yield does is not the service's time.
func (s *Store) page(ctx context.Context, prefix, after string, yield func(Object) bool) error {
	ctx, dog := watch(ctx, s.opt.Stall)
	defer dog.end()
	dog.wake()
	return dog.why(s.b.List(ctx, prefix, after, func(o Object) bool {
		dog.sleep()
		defer dog.wake()
		return yield(o)
	}))
}

// A listing is one call of List.
type listing struct {
	s     *Store
	ctx   context.Context // of List
	yield func(store.Info, error) bool
	root  string // what every key begins with
	start string // the key after which the listing began

	seen    []string // keys of objects, each the beginning of the next and of where we are
	pending string   // a marker, until it is known that nothing lies below it
	leap    string   // where to go on instead
	some    bool     // there was a key
	done    bool     // yield has stopped, or err is set
	err     error
}

// List implements store.Lister. A page of keys is one request. A page after another name costs one more, and so does a
// marker right behind where it begins.
func (s *Store) List(ctx context.Context, prefix, after token.ObjectName, yield func(store.Info, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l := &listing{s: s, ctx: ctx, yield: yield, root: s.base}
	if prefix != "" {
		if err := s.checkName(prefix); err != nil {
			return err
		}
		l.root = s.key(prefix) + "/"
	}
	if err := l.run(string(after)); err != nil {
		return fmt.Errorf("listing %q: %w", prefix, err)
	}
	if l.some || l.done || prefix == "" {
		return nil
	}
	if l.start != "" {
		some, err := s.anyBelow(ctx, prefix)
		if err != nil {
			return fmt.Errorf("listing %q: %w", prefix, err)
		}
		if some {
			return nil
		}
	}
	return missing(prefix)
}

func (l *listing) run(after string) (err error) {
	if after != "" {
		if l.start, err = l.begin(after); err != nil {
			return err
		}
	}
	for from := l.start; ; from = l.leap {
		l.leap = ""
		if err := l.s.keys(l.ctx, l.root, from, l.key); err != nil {
			return err
		}
		if l.leap == "" || l.done {
			break
		}
	}
	if !l.done {
		l.marker("")
	}
	return l.err
}

// begin is the key behind which the name after is: the object's of that name, or else that of a marker, or of an escaped key that exists. A name that
// is none of them is taken for a key. Where an object is called as another key is escaped, going on would pass over names or repeat them, so that is
// problem.BadName.
func (l *listing) begin(after string) (string, error) {
	key := l.s.base + after
	if !strings.HasPrefix(key, l.root) {
		if key < l.root {
			return "", nil
		}
		return key, nil
	}
	if strings.HasSuffix(after, last) {
		return key, nil // a leap, and no name
	}
	if seg := after[strings.LastIndexByte(after, '/')+1:]; strings.EqualFold(seg, hidden) {
		return key + "/" + last, nil
	}
	bad, escaped := l.s.unescape(after)
	marked, err := l.s.exists(l.ctx, key+"/")
	if err != nil || !escaped && !marked {
		return key, err
	}
	there, err := l.s.exists(l.ctx, key)
	odd := false
	if err == nil && escaped && !strings.Contains(bad, "\x00") { // no service has a key with it, and some stumble over the question
		odd, err = l.s.exists(l.ctx, l.s.base+bad)
	}
	switch {
	case err != nil:
		return "", err
	case odd && (there || marked):
		return "", problem.New(problem.BadName, "Two keys are listed as %q, so the list cannot be taken up again behind it.", after)
	case odd:
		return l.s.base + bad, nil
	case marked && !there:
		return key + "/", nil
	}
	return key, nil
}

func (s *Store) exists(ctx context.Context, key string) (bool, error) {
	_, err := s.head(ctx, key)
	if problem.Of(err) == problem.Missing || problem.Of(err) == problem.BadName {
		return false, nil
	}
	return err == nil, err
}

// key takes the next key. It reports whether to go on with the one behind it.
func (l *listing) key(o Object) bool {
	l.some = true
	if !l.marker(o.Key) || o.Key == l.root {
		return !l.done
	}
	rel := o.Key[len(l.s.base):]
	if strings.HasPrefix(rel, hidden+"/") {
		l.leap = l.s.base + hidden + "/" + last
		return false
	}
	if folder := reserved(rel); folder != "" {
		l.leap = l.s.base + folder + "/" + last
		return l.tell(store.Info{Name: token.ObjectName(folder), Type: store.Special}, nil) && false
	}
	for len(l.seen) > 0 && !strings.HasPrefix(o.Key, l.seen[len(l.seen)-1]) {
		l.seen = l.seen[:len(l.seen)-1]
	}
	name := token.ObjectName(rel)
	if trimmed, ok := strings.CutSuffix(rel, "/"); ok && o.Size == 0 && l.s.checkName(token.ObjectName(trimmed)) == nil {
		return l.hold(o.Key)
	}
	if err := l.s.checkName(name); err != nil {
		return l.tell(store.Info{Name: token.ObjectName(escape(rel))}, err)
	}
	l.seen = append(l.seen, o.Key)
	return l.tell(store.Info{Name: name, Type: store.Object, Size: o.Size, Version: o.Version, Native: o.Native}, nil)
}

// hold keeps a marker until the next key, unless it stands beside an object of its name.
func (l *listing) hold(marker string) bool {
	object := strings.TrimSuffix(marker, "/")
	if n := len(l.seen); n > 0 && l.seen[n-1] == object {
		return true
	}
	if l.start >= object { // it would have come before
		there, err := l.s.exists(l.ctx, object)
		if err != nil {
			l.err, l.done = err, true
			return false
		}
		if there {
			return true
		}
	}
	l.pending = marker
	return true
}

// marker tells of the marker that was held, unless next lies below it.
func (l *listing) marker(next string) bool {
	held := l.pending
	l.pending = ""
	if held == "" || strings.HasPrefix(next, held) {
		return true
	}
	name := strings.TrimSuffix(held[len(l.s.base):], "/")
	return l.tell(store.Info{Name: token.ObjectName(name), Type: store.Subtree}, nil)
}

func (l *listing) tell(in store.Info, err error) bool {
	if l.err = l.ctx.Err(); l.err != nil || !l.yield(in, err) {
		l.done = true
	}
	return !l.done
}
