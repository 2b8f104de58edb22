package tree

import (
	"context"
	"fmt"
	"slices"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

// A folder is what a container hands down, kept while many names are decided.
type folder struct {
	path   []acl.Level // of something in it; the first level is that of the item, and is written over
	orphan bool        // something of the kind that is asked for inherits nothing
}

// A crowd decides about many names in one root container.
type crowd struct {
	t       *Tree
	root    token.Location
	kind    acl.Kind
	folders map[token.ObjectName]*folder
	above   map[token.ObjectName]db.Rule // rows of containers
	caused  caused
}

// caused is what was recorded last, and why: names of one container and owner without a list of their own have the same cause.
type caused struct {
	in    token.ObjectName
	owner acl.Who
	by    acl.Decision
	cause string
}

// A Page is names of one kind from one listing.
type Page struct {
	At    token.Location     // what was listed
	Kind  acl.Kind           // of what has the names
	Names []token.ObjectName // whole names in the root container of At
}

// DecideMany judges want on each name of a page, as Decide does. It returns the refusals alone: who is not in the map is granted. Records of
// names of which the same is to be said are one, of what was listed, with a count. The queries grow with the thousands of names and of
// containers above them.
func (t *Tree) DecideMany(ctx context.Context, tx *db.Tx, a Attempt, page Page, want acl.Mask) (map[token.ObjectName]error, error) {
	p, at, names, kind := a.By, page.At, page.Names, page.Kind
	if want == 0 {
		return nil, fmt.Errorf("deciding about %q below %s: nothing was asked for", a.Op, at)
	}
	c := crowd{t: t, root: token.Location{Provider: at.Provider, Container: at.Container}, kind: kind,
		folders: map[token.ObjectName]*folder{}, above: map[token.ObjectName]db.Rule{}}
	if err := c.readAbove(ctx, tx, names); err != nil {
		return nil, err
	}
	rules, err := tx.Rules(ctx, at.Provider, at.Container, kind, names)
	if err != nil {
		return nil, err
	}
	own := make(map[token.ObjectName]db.Rule, len(rules))
	for _, r := range rules {
		own[r.Name] = r
	}
	var refused map[token.ObjectName]error
	var g gathered
	for _, name := range names {
		target, err := c.target(name, own[name])
		if err != nil {
			return nil, err
		}
		d := acl.Evaluate(p, target, want)
		if recorded(d) {
			g.note(a.record(at, target.Kind, want, d, c.cause(p, target, name, want, d)), name)
		}
		if d.Granted() {
			continue
		}
		if refused == nil {
			refused = map[token.ObjectName]error{}
		}
		refused[name] = refusal(p, target, c.names(name), want)
	}
	a.Trail.records = append(a.Trail.records, g.records...)
	return refused, nil
}

// cause is the cause of a record of name.
func (c *crowd) cause(p acl.Principal, target acl.Target, name token.ObjectName, want acl.Mask, d acl.Decision) string {
	if d.Audited == 0 || name == "" || target.Path[0].ACL.Len() > 0 {
		return cause(p, target, c.names(name), want, d)
	}
	up, owner := parent(name), target.Path[0].Owner
	if c.caused.cause == "" || c.caused.in != up || c.caused.owner != owner || c.caused.by != d {
		c.caused = caused{up, owner, d, cause(p, target, c.names(name), want, d)}
	}
	return c.caused.cause
}

// readAbove reads the rows of all containers above names.
func (c *crowd) readAbove(ctx context.Context, tx *db.Tx, names []token.ObjectName) error {
	seen := map[token.ObjectName]bool{"": true}
	above := []token.ObjectName{""}
	for _, n := range names {
		for n != "" {
			if n = parent(n); seen[n] {
				break
			}
			seen[n] = true
			above = append(above, n)
		}
	}
	rules, err := tx.Rules(ctx, c.root.Provider, c.root.Container, acl.Container, above)
	for _, r := range rules {
		c.above[r.Name] = r
	}
	return err
}

// target puts together what is asked for. It is good until the next call.
func (c *crowd) target(name token.ObjectName, own db.Rule) (acl.Target, error) {
	if name == "" {
		l, err := c.level(name, c.above[name], "", acl.Container, nil)
		return acl.Target{Kind: acl.Container, Path: []acl.Level{l}}, err
	}
	f, err := c.folder(parent(name))
	if err != nil {
		return acl.Target{}, err
	}
	f.path[0], err = c.item(name, own, f)
	return acl.Target{Kind: c.kind, Path: f.path}, err
}

// level is Tree.level for a name.
func (c *crowd) level(name token.ObjectName, own db.Rule, owner acl.Who, k acl.Kind, above []acl.Level) (acl.Level, error) {
	l, err := c.t.level(own.Owner, own.ACL, owner, k, above)
	if err != nil {
		return acl.Level{}, damaged(c.at(name), err)
	}
	return l, nil
}

// item is level for something in f, of which is known whether it inherits anything.
func (c *crowd) item(name token.ObjectName, own db.Rule, f *folder) (acl.Level, error) {
	if own.ACL != "" {
		return c.level(name, own, f.path[1].Owner, c.kind, f.path[1:])
	}
	l := acl.Level{Owner: own.Owner}
	if l.Owner == "" {
		l.Owner = f.path[1].Owner
	}
	if f.orphan {
		l.ACL = c.t.orphan
	}
	return l, nil
}

// folder returns what the container of a name hands down.
func (c *crowd) folder(name token.ObjectName) (*folder, error) {
	if f, ok := c.folders[name]; ok {
		return f, nil
	}
	var above []acl.Level
	var owner acl.Who
	if name != "" {
		up, err := c.folder(parent(name))
		if err != nil {
			return nil, err
		}
		above = up.path[1:]
		owner = above[0].Owner
	}
	l, err := c.level(name, c.above[name], owner, acl.Container, above)
	if err != nil {
		return nil, err
	}
	f := &folder{path: slices.Concat(make([]acl.Level, 1), []acl.Level{l}, above)}
	f.orphan = !inherits(c.kind, f.path[1:])
	c.folders[name] = f
	return f, nil
}

func (c *crowd) at(name token.ObjectName) token.Location {
	l := c.root
	l.Name = name
	return l
}

// names returns what Spot.Names would be.
func (c *crowd) names(name token.ObjectName) []string {
	up := lineage(name)
	out := make([]string, len(up))
	for i, n := range up {
		out[i] = c.at(n).String()
	}
	return out
}
