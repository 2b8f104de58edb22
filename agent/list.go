package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxSettles    = 16  // times that a task waits for names that were touched a moment ago
	entryOverhead = 160 // bytes of an entry on the wire beside its texts, at most
)

// errEnough ends a lookup that the broker does not want more of.
var errEnough = errors.New("the broker wants no more")

// A lookup is a list, stat, make or erase task that is being carried out. Nothing of it outlives it.
type lookup struct {
	s     *session
	task  api.Task
	will  will
	do    token.Verb // Create if it is to make something, Erase if it is to erase
	store store.Store
	book  *rulebook // that was applied last
	view  policy.View

	page    []api.Entry
	size    int
	count   int64
	settles int
	group   token.ObjectName // Level: the subtree that was told of last
}

// run carries the task out and posts its pages. A failure is for the caller to post.
func (l *lookup) run(ctx context.Context) error {
	var err error
	switch l.task.Kind {
	case api.ListTask:
		err = l.list(ctx)
	case api.StatTask:
		err = l.stat(ctx)
	case api.MakeTask:
		err = l.make(ctx)
	case api.EraseTask:
		err = l.erase(ctx)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.post(ctx, true)
}

// names are those of a stat or make task: the order's own if the task has none.
func (l *lookup) names() []token.ObjectName {
	switch {
	case len(l.task.Names) > 0:
		return l.task.Names
	case l.task.Kind == api.MakeTask, l.task.Kind == api.EraseTask:
		return []token.ObjectName{l.will.To.Name}
	}
	return []token.ObjectName{l.will.From.Name}
}

// denied reports whether local policy lets the account have this done at a name: all that is below it be listed, it be described, made or erased.
func (l *lookup) denied(name token.ObjectName) error {
	var err error
	switch l.task.Kind {
	case api.ListTask:
		_, err = l.view.May(policy.List, name)
	case api.MakeTask:
		_, err = l.view.May(policy.Create, name)
	case api.EraseTask:
		_, err = l.view.May(policy.Erase, name)
	default:
		err = l.view.MayDescribe(name)
	}
	return err
}

// obey applies local policy as it is now, unless it is the one that was applied last: to the task, and to each name that follows.
func (l *lookup) obey() error {
	book := l.s.a.rules.Load()
	if book == l.book {
		return nil
	}
	view, err := book.Open(l.will.ask(l.s.id(), l.do))
	if err != nil {
		return err
	}
	l.book, l.view = book, view
	return l.allowed()
}

// allowed reports whether local policy allows anything of the task. What it does not allow of the rest is told name by name.
func (l *lookup) allowed() error {
	if l.task.Kind == api.ListTask {
		return l.denied(l.will.From.Name)
	}
	var first error
	for _, n := range l.names() {
		err := l.denied(n)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// pins reports whether the versions that are told will be read later, so that they must tell two states apart.
func (l *lookup) pins() bool { return l.will.Do == token.Copy }

// list walks the tree below the order's source. For Level it leaps over what is below a subtree once it has told of it.
func (l *lookup) list(ctx context.Context) error {
	after := l.task.After
	for {
		leap, err := l.walk(ctx, after)
		if err != nil {
			return err
		}
		if leap == "" {
			return nil
		}
		after = leap
	}
}

// walk lists from after on. It returns the name from which to go on, or "" at the end.
func (l *lookup) walk(ctx context.Context, after token.ObjectName) (leap token.ObjectName, err error) {
	var failed error
	err = l.store.List(ctx, l.will.From.Name, after, func(info store.Info, bad error) bool {
		if l.excluded(info.Name) {
			return true
		}
		if l.task.Level {
			var told bool
			if leap, told = l.level(ctx, info, &failed); told {
				return failed == nil && leap == ""
			}
		}
		failed = l.tell(ctx, info, bad)
		return failed == nil
	})
	if failed != nil {
		return "", failed
	}
	if err != nil {
		return "", fmt.Errorf("listing: %w", err)
	}
	return leap, nil
}

// excluded reports whether the order leaves a name out, which is then not told to anybody. A name that cannot be one is told, with
// its reason, and so is the root if it cannot be read.
func (l *lookup) excluded(n token.ObjectName) bool {
	return n != l.will.From.Name && problem.Of(l.will.Selects(n)) == problem.OrderNotCovered
}

// level tells of the subtree that a deeper name is in, once. It reports whether the name was dealt with, and where to go on.
func (l *lookup) level(ctx context.Context, info store.Info, failed *error) (leap token.ObjectName, told bool) {
	rest := string(info.Name)
	prefix := ""
	if root := string(l.will.From.Name); root != "" {
		prefix = root + "/"
		rest = strings.TrimPrefix(rest, prefix)
	}
	segment, _, deeper := strings.Cut(rest, "/")
	if !deeper {
		return "", false
	}
	group := token.ObjectName(prefix + segment)
	if l.group == group {
		return leapOver(group), true
	}
	l.group = group
	*failed = l.tell(ctx, store.Info{Name: group, Type: store.Subtree}, nil)
	return leapOver(group), true
}

// leapOver is a name behind every name below group and before every other.
func leapOver(group token.ObjectName) token.ObjectName { return group + "/\U0010FFFF" }

// tell adds one name to the page, posting it when it is full. A name that was touched a moment ago is described
// again once its version can be trusted.
func (l *lookup) tell(ctx context.Context, info store.Info, bad error) error {
	if l.task.Limit > 0 && l.count >= l.task.Limit {
		if err := l.post(ctx, true); err != nil {
			return err
		}
		return errEnough
	}
	if bad == nil && info.Fresh && l.pins() && l.settles < maxSettles {
		l.settles++
		if err := l.flush(ctx); err != nil {
			return err
		}
		if err := l.s.a.sleep(ctx, l.settleTime()); err != nil {
			return err
		}
		name := info.Name
		if info, bad = l.store.Stat(ctx, name); problem.Of(bad) == problem.Missing {
			return nil
		}
		info.Name = name
	}
	if bad == nil && info.Type == store.Object && l.pins() {
		_, bad = l.view.Item(policy.Read, info.Name, info.Size)
	}
	if bad == nil && l.task.Kind == api.StatTask && info.Type == store.Object {
		bad = l.readable(ctx, info)
	}
	return l.add(ctx, entryOf(info, bad))
}

func (l *lookup) settleTime() time.Duration {
	if d := l.s.a.conf.hooks.settle; d > 0 {
		return d
	}
	return store.Settle
}

// add puts an entry on the page.
func (l *lookup) add(ctx context.Context, e api.Entry) error {
	size := entryOverhead + 2*len(e.Name) + len(e.Version) + 2*len(e.Native) + 2*len(e.Detail)
	if len(l.page) == api.MaxPage || l.size+size > api.MaxPageSize {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	l.page = append(l.page, e)
	l.size += size
	l.count++
	return nil
}

// flush posts the page if there is anything on it.
func (l *lookup) flush(ctx context.Context) error {
	if len(l.page) == 0 {
		return nil
	}
	return l.post(ctx, false)
}

func (l *lookup) post(ctx context.Context, last bool) error {
	if l.task.Kind != api.EraseTask { // what was erased is told in any case
		if err := l.obey(); err != nil { // a listing may take hours
			return err
		}
	}
	entries := l.page
	if entries == nil {
		entries = []api.Entry{}
	}
	answer, err := l.s.ctl.PostPage(ctx, l.task.ID, api.TaskPage{Entries: entries, Last: last})
	l.page, l.size = l.page[:0], 0
	switch {
	case problem.Of(err) == problem.LeaseLost:
		return errEnough
	case err != nil:
		return fmt.Errorf("posting a page: %w", err)
	case !last && !answer.More:
		return errEnough
	}
	return nil
}

// stat describes the names of the task, or the order's source if it has none.
func (l *lookup) stat(ctx context.Context) error {
	for _, name := range l.names() {
		var info store.Info
		err := l.denied(name)
		if err == nil {
			info, err = l.store.Stat(ctx, name)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info.Name = name
		if err := l.tell(ctx, info, err); err != nil {
			return err
		}
	}
	return nil
}

// readable asks the store to pin what will be read later, so that a plan does not promise what cannot be had. No
// content is read: that would cost a request a name.
func (l *lookup) readable(ctx context.Context, info store.Info) error {
	if !l.pins() {
		return nil
	}
	r, err := l.store.Open(ctx, info.Name, info.Version)
	if err == nil {
		_, err = r.Info(ctx) // where Open asks nobody
		err = errors.Join(err, r.Close())
	}
	if problem.Of(err) == problem.Changed {
		return nil // told again later
	}
	return err
}

// make makes the names of the task, or the order's destination if it has none.
func (l *lookup) make(ctx context.Context) error {
	for _, name := range l.names() {
		if name == "" {
			continue // the container itself, which exists
		}
		made := false
		err := l.denied(name)
		if err == nil {
			_, was := l.store.Stat(ctx, name)
			err = l.store.Make(ctx, name)
			made = err == nil && problem.Of(was) == problem.Missing
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e := entryOf(store.Info{Name: name, Type: store.Subtree}, diskProblem(err))
		e.Made = made
		if err := l.add(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// entryOf is what is told of a name.
func entryOf(info store.Info, err error) api.Entry {
	e := api.Entry{Name: info.Name, Type: string(info.Type), Size: info.Size, Version: info.Version, ModTime: info.Attrs.ModTime, Native: info.Native}
	if info.Attrs.HasMode {
		e.Mode = fmt.Sprintf("0%03o", info.Attrs.Mode)
	}
	if err != nil {
		p := problem.As(err)
		e.Code, e.Detail = p.Code, clip(p.Sentence(), token.MaxDetailSize)
	}
	return e
}
