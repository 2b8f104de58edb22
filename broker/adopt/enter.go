package adopt

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Types of an entry, as agent/store names them.
const (
	objectType    = "object"
	containerType = "container"
)

// mostBytes bounds the size of one object that an agent tells of: it is added up.
const mostBytes = 1 << 53

// An entrance is one piece of a listing on its way into the namespace.
type entrance struct {
	tx    *db.Tx
	t     *tree.Tree
	a     *db.Adoption
	o     token.Order
	now   time.Time
	p     acl.Principal
	user  space.Metadata
	dirs  map[token.ObjectName]error // what was found of containers
	found []tree.Found
}

// A Clerk enters what an adoption finds.
type Clerk struct {
	Tree     *tree.Tree
	Adoption *db.Adoption
	Order    token.Order // of the adoption
}

// Enter enters pieces of a listing, in its order, and notes in the adoption what came of them and how far it is. The caller saves it in the
// same transaction. It reports whether a limit of the order is reached, so that nothing more is wanted.
func (c Clerk) Enter(ctx context.Context, tx *db.Tx, piece []api.Entry, now time.Time) (enough bool, err error) {
	a, t := c.Adoption, c.Tree
	e := &entrance{tx: tx, t: t, a: a, o: c.Order, now: now, dirs: map[token.ObjectName]error{}}
	if e.p, err = t.Principal(ctx, tx, a.Account, a.At.Provider); err != nil {
		return false, err
	}
	if a.Metadata != "" {
		if e.user, err = space.ParseMetadata([]byte(a.Metadata)); err != nil {
			return false, fmt.Errorf("reading the metadata of an adoption, which was good when it came: %w", err)
		}
	}
	for _, n := range piece {
		if l := e.o.Limits.Items; l > 0 && a.Objects+a.Skipped+a.Refused >= l {
			blame(a, problem.OrderNotCovered, "A limit of the order was reached before the end of the place")
			enough = true
			break
		}
		if err := e.take(ctx, n); err != nil {
			return false, err
		}
		a.Resume = n.Name
	}
	as := tree.Adoption{Owner: a.Owner, User: e.user}
	made, changed, err := t.Adopt(ctx, tx, as, token.Location{Provider: a.At.Provider, Container: a.At.Container}, e.found, now)
	a.Made += made
	a.Changed += changed
	return enough, err
}

// take sorts one entry of the listing. What is refused is counted, and only a failure of our own is an error.
func (e *entrance) take(ctx context.Context, n api.Entry) error {
	switch err := e.o.Selects(n.Name); {
	case e.a.Scope == token.Tree && n.Name == e.a.At.Name: // the place itself, which is nothing else
		if n.Code == "" && n.Type != containerType {
			return nil
		}
	case problem.Of(err) == problem.OrderNotCovered:
		return nil // filtered out, or none of our business
	case err != nil:
		e.refuse(n.Name, err)
		return nil
	}
	in, kind := parent(n.Name), acl.Object
	switch {
	case n.Code != "":
		e.refuse(n.Name, &problem.Error{Code: n.Code, Detail: n.Detail})
		return nil
	case e.a.Scope == token.One && n.Type != objectType:
		e.refuse(n.Name, problem.New(problem.Missing, "It is a %s, not an object; with a '/' at its end, what stands in it is adopted", printableType(n.Type)))
		return nil
	case n.Type == containerType:
		in, kind = n.Name, acl.Container
	case n.Type != objectType:
		e.a.Skipped++
		return nil
	case n.Size < 0 || n.Size > mostBytes:
		e.refuse(n.Name, problem.New(problem.Malformed, "The agent told of an object of %d bytes", n.Size))
		return nil
	}
	if err := e.mayEnter(ctx, in); err != nil {
		if problem.Lookup(problem.Of(err)).HTTP == 500 {
			return err
		}
		e.refuse(in, err)
		return nil
	}
	e.containers(in)
	if kind == acl.Object {
		e.a.Objects++
		e.a.Bytes += n.Size
		e.found = append(e.found, tree.Found{Name: n.Name, Kind: kind, Size: n.Size, Version: n.Version, Native: n.Native, Modified: n.ModTime})
	}
	return nil
}

// containers adds the container in and those above it up to the place, which listings tell of only when they are empty. All that is below one
// comes together, so one is new unless it is, or holds, the one that came last.
func (e *entrance) containers(in token.ObjectName) {
	if e.a.Scope == token.One {
		return
	}
	last := e.a.Inside
	for c := in; c != "" && within(c, e.a.At.Name) && (last == "" || !within(last, c)); c = parent(c) {
		e.a.Containers++
		e.a.Inside = in
		e.found = append(e.found, tree.Found{Name: c, Kind: acl.Container})
	}
}

// mayEnter reports why nothing may be entered in a container: it is neither the account's nor of whom it names as owner, its list does not let the
// account, or no metadata may change there.
func (e *entrance) mayEnter(ctx context.Context, in token.ObjectName) error {
	if !within(in, e.a.At.Name) {
		return nil // one object, which Check has looked at
	}
	if err, known := e.dirs[in]; known {
		return err
	}
	err := e.judge(ctx, in)
	if err == nil || problem.Lookup(problem.Of(err)).HTTP != 500 {
		e.dirs[in] = err
	}
	return err
}

func (e *entrance) judge(ctx context.Context, in token.ObjectName) error {
	at := e.a.At
	at.Name = in
	s, err := e.t.Spot(ctx, e.tx, at, acl.Container)
	if err != nil {
		return err
	}
	if e.a.Metadata != "" {
		if err := s.Settings.CheckFree(e.now); err != nil {
			return err
		}
	}
	if e.p.Status == acl.Administrating {
		return nil
	}
	switch want := need(*e.a); s.Owner() {
	case e.p.Name:
		if missing := want &^ e.t.May(e.p, s, want); missing != 0 {
			return problem.New(problem.NotPermitted, "%s does not get %s on the container", e.p.Name, missing.Text(acl.Container))
		}
		return nil
	case acl.Who(e.a.Owner): // it was entered a moment ago, or would be
		return nil
	}
	return problem.New(problem.NotPermitted, "The container is somebody else's; an administrator can adopt what is in it")
}

// refuse counts a name that is not entered.
func (e *entrance) refuse(name token.ObjectName, err error) {
	why := problem.As(err)
	e.a.Refused++
	if e.a.Scope == token.One {
		blame(e.a, why.Code, why.Sentence())
		return
	}
	blame(e.a, why.Code, problem.Quote(string(name))+": "+why.Sentence())
}

// blame notes the first problem of an adoption.
func blame(a *db.Adoption, code problem.Code, detail string) {
	if a.Code == "" {
		a.Code, a.Detail = code, plain(detail)
	}
}

// plain bounds a sentence that an agent may have written and takes out what a terminal would act on.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) > token.MaxDetailSize {
		s = strings.ToValidUTF8(s[:token.MaxDetailSize-3], "") + "..."
	}
	return s
}

func printableType(t string) string {
	if len(t) > 32 {
		t = t[:32]
	}
	return plain(t)
}

// End returns the state with which an adoption ends whose listing has come to its end.
func End(a *db.Adoption) api.State {
	if a.Scope == token.One && a.Objects == 0 {
		blame(a, problem.Missing, "There is no such object in the store")
		return api.Failed
	}
	if a.Code != "" {
		return api.Partial
	}
	return api.Complete
}

// parent returns the name of the container that holds what has the name n.
func parent(n token.ObjectName) token.ObjectName {
	return n[:max(strings.LastIndexByte(string(n), '/'), 0)]
}

// within reports whether n is root or below it.
func within(n, root token.ObjectName) bool {
	return root == "" || n == root || strings.HasPrefix(string(n), string(root)+"/")
}
