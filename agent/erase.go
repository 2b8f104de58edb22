package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// What the mark of an erasure says.
const (
	eraseBegun = "begun" // it may have happened
	eraseDone  = "done"  // it has, and is never done again for the same order
)

// eraseKey is the key of an erasure among what is spent. No batch has it.
func eraseKey(w will) string { return "erase " + string(w.ord) }

// erasing is how what is left of a Wipe is called until it is over; it is among our own stages, so that the janitor finds it.
func (w will) erasing(iss, self token.Identity) store.BatchID {
	return store.BatchID("erase-" + short(string(w.ord)) + short(string(w.ID)) + "-" + short(string(self)) + short(string(iss)))
}

// erase erases what the order names: one state of one object or one empty container. There are three outcomes: an entry that
// tells what was erased, also if that was so before for the same order; a problem, and nothing is erased; or a problem after which it may or may
// not be, and the same order tells.
func (l *lookup) erase(ctx context.Context) error {
	w, kind, marks := l.will, acl.Container, l.s.a.spent.set
	if w.Version != "" {
		kind = acl.Object
	}
	mark, _ := marks.Get(eraseKey(w))
	if size, method, done := readErased(mark); done {
		return l.add(ctx, erased(w, size, method))
	}
	method, err := l.s.mayErase(l.s.a.exportOf(w.To.Container), w.To.Name, kind, time.Now())
	if err != nil {
		return err
	}
	if err := l.s.a.untouched(w.To.Container, w.To.Name, kind); err != nil {
		return err
	}
	var size int64
	if mark == "" {
		if size, err = l.there(ctx); err != nil {
			return err
		}
		if _, err := marks.Claim(eraseKey(w), eraseBegun, endOf(w.Order)); err != nil {
			return fmt.Errorf("marking an erasure: %w", err)
		}
	}
	err = l.remove(ctx, method)
	switch code := problem.Of(err); {
	case mark == eraseBegun && (code == problem.Missing || code == problem.Changed):
		// By us, before we could say so: what the order names was there when it was begun.
	case code == problem.Missing, code == problem.Changed, code == problem.NotEmpty, code == problem.Claimed:
		if mark == "" { // and nobody else has begun it: the name was not touched
			err = errors.Join(err, marks.Remove(eraseKey(w)))
		}
		return outdated(err)
	case err != nil:
		return diskProblem(err)
	}
	if err := marks.Put(eraseKey(w), eraseDone+fmt.Sprintf(" %d %s", size, method), endOf(w.Order)); err != nil { // Durable from here.
		return fmt.Errorf("marking an erasure: %w", err)
	}
	l.s.log.Info("erased", zap.String("container", string(w.To.Container)), zap.String("name", string(w.To.Name)), zap.Stringer("kind", kind),
		zap.String("for", string(w.account)), zap.String("authority", string(w.authority)), zap.String("method", string(method)))
	return l.add(ctx, erased(w, size, string(method)))
}

// there returns the size of what is to be erased, if it is there in the state that the order names.
func (l *lookup) there(ctx context.Context) (int64, error) {
	w, want := l.will, store.Object
	if w.Version == "" {
		want = store.Subtree
	}
	info, err := l.store.Stat(ctx, w.To.Name)
	if err == nil && info.Type != want {
		err = problem.New(problem.Missing, "There is no %s %q", want, w.To.Name)
	}
	if err != nil || want == store.Subtree {
		return 0, diskProblem(err)
	}
	r, err := l.store.Open(ctx, w.To.Name, w.Version)
	if err != nil {
		return 0, diskProblem(outdated(err))
	}
	info, err = r.Info(ctx)
	return info.Size, diskProblem(outdated(errors.Join(err, r.Close())))
}

// outdated gives a changed object the kind that it has for who wants to erase it: nobody reads it, and nothing is planned again.
func outdated(err error) error {
	if problem.Of(err) != problem.Changed {
		return err
	}
	return problem.Wrap(err, problem.Outdated, "%s", problem.As(err).Detail)
}

// readErased reads the mark of an erasure that is over.
func readErased(mark string) (size int64, method string, done bool) {
	rest, done := strings.CutPrefix(mark, eraseDone+" ")
	first, method, _ := strings.Cut(rest, " ")
	size, err := strconv.ParseInt(first, 10, 64)
	return size, method, done && err == nil
}

// erased is what is told of an erasure.
func erased(w will, size int64, method string) api.Entry {
	e := api.Entry{Name: w.To.Name, Type: string(store.Subtree), Version: w.Version, Sanitized: method}
	if w.Version != "" {
		e.Type, e.Size = string(store.Object), size
	}
	return e
}

// remove calls the store.
func (l *lookup) remove(ctx context.Context, method store.Method) error {
	w := l.will
	switch {
	case w.Version == "":
		return l.store.Unmake(ctx, w.To.Name)
	case method == "":
		return l.store.Erase(ctx, w.To.Name, w.Version)
	}
	id := w.erasing(l.s.id(), l.s.a.self)
	l.s.a.wiping.Store(id, true) // the janitor leaves it alone
	defer l.s.a.wiping.Delete(id)
	return l.store.Wipe(ctx, store.Wiping{Name: w.To.Name, Version: w.Version, Method: method, Batch: id})
}

// untouched returns problem.Claimed if a batch that has not ended may still publish the name, or something below it, or reads it: an erasure
// opens no name to a capability that was minted before.
func (a *Agent) untouched(c token.Container, name token.ObjectName, kind acl.Kind) error {
	for _, b := range a.of("") {
		if b.export.Container != c || b.isSigned() {
			continue
		}
		for _, it := range b.man.Items {
			n := it.Dst
			if b.key.do == token.Read {
				n = it.Src
			}
			if n == name || kind == acl.Container && strings.HasPrefix(string(n), string(name)+"/") {
				return problem.New(problem.Claimed, "A transfer that has not ended has to do with %q", name)
			}
		}
	}
	return nil
}

// erases reports whether anybody may erase in the container, so that it is swept of what an erasure left.
func (e Export) erases() bool {
	for _, r := range e.Rights().Rules {
		for _, m := range r.May {
			if m == policy.Erase {
				return true
			}
		}
	}
	return false
}

// sanitizes are the methods of the export's store, for brokers.
func (e Export) sanitizes() []string {
	var out []string
	for _, m := range e.Store.Methods() {
		out = append(out, string(m))
	}
	return out
}
