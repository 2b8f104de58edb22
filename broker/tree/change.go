package tree

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Change is what is to become of the metadata of a place. Replace and Set may have items of every class: cdmi_acl and cdmi_owner there are what ACL and
// Owner are, and what the system alone writes is ignored, as the standard wants.
type Change struct {
	At      token.Location
	Kind    acl.Kind
	IfMatch string          // an ETag that the place must have, "*" for any row, or empty
	ACL     *acl.ACL        // the new list; entries that are marked as inherited are left out
	Owner   *acl.Who        // the new owner
	Replace *space.Metadata // all user and data system metadata there are to be; list and owner stay if they are not in it
	Set     space.Metadata  // items to add or to change; not together with Replace
	Unset   []space.Item    // items to remove; with cdmi_acl the place has no list of its own any more
}

// A wish is a Change that was read.
type wish struct {
	list   *string // canonical; empty: none of its own
	own    acl.ACL // what list says
	owner  *acl.Who
	whole  bool           // of Replace
	user   space.Metadata // to set
	data   space.Metadata
	unset  []space.Item
	naming acl.Mask // the permissions that the named items take
}

// Apply changes a place, in a write transaction. There are three outcomes:
//
//  1. nil: all of c is written, with the place as it is then. A place without a row has got one, without an owner, unless c says one; what is as it was
//     before changes nothing.
//  2. a *problem.Error: nothing is written. In this order: what no place could have (Malformed, UnknownField, TooLarge); a right that p has not, as Decide
//     says it; Outdated if IfMatch is not so; OnHold or UnderRetention; a limit (TooLarge).
//  3. any other error: the transaction must not be committed.
//
// It takes WRITE_METADATA for user metadata and data system metadata, WRITE_RETENTION for cdmi_retention_*, DELETE besides (and DELETE_OBJECT of a container) where
// what is in force comes to erase itself by it, or sooner, WRITE_RETENTION_HOLD for cdmi_hold_id, WRITE_ACL
// for the list, and for the owner what acl.CheckOwner says. Replace takes WRITE_METADATA, and those of list, owner, retention and holds only where it
// changes such an item: who sends all back that it was shown has changed nothing of them. Records of it are in the trail of a, whatever the outcome.
//
// Under a hold or retention nothing can be changed, the list and the owner neither, but for a further hold and a later end.
func (t *Tree) Apply(ctx context.Context, tx *db.Tx, a Attempt, c Change, now time.Time) (Spot, error) {
	w, err := c.read()
	if err != nil {
		return Spot{}, err
	}
	s, err := t.Spot(ctx, tx, c.At, c.Kind)
	if err != nil {
		return Spot{}, err
	}
	if w.whole {
		w.asShown(s)
	}
	n, will, err := t.draft(s, w)
	if err != nil {
		return Spot{}, err
	}
	if err := t.mayApply(a, s, w, n, will); err != nil {
		return Spot{}, err
	}
	if c.IfMatch != "" && c.IfMatch != t.ETag(s) && (c.IfMatch != "*" || !s.Known) {
		return Spot{}, problem.New(problem.Outdated, "%s is not in the state any more that the request was made for.", s.At)
	}
	if err := t.checkFree(s, n, will, now); err != nil {
		return Spot{}, err
	}
	if n.User != s.Node.User {
		if err := t.checkSize(n); err != nil {
			return Spot{}, err
		}
	}
	if err := checkDepth(s, n); err != nil {
		return Spot{}, err
	}
	if n == s.Node {
		return s, nil
	}
	if err := t.save(ctx, tx, s, n, now); err != nil {
		return Spot{}, err
	}
	return t.Spot(ctx, tx, s.At, s.Kind)
}

// MaxLevels is how deep lists and data system metadata may stand, the root container counted. Every decision about what is below them reads them all.
const MaxLevels = 64

// checkDepth reports why s, if it is too deep, must not get the list or data system metadata of n: problem.TooLarge, or nil.
func checkDepth(s Spot, n db.Node) error {
	list, data := n.ACL != "" && n.ACL != s.Node.ACL, n.Data != "" && n.Data != s.Node.Data
	if len(s.Names) <= MaxLevels || !list && !data {
		return nil
	}
	return problem.New(problem.TooLarge, "%s is %d levels deep; lists and wishes stand at most %d deep, and hold for all below.", s.At, len(s.Names), MaxLevels)
}

// checkSize reports why the user metadata of n are too many: problem.TooLarge, or nil. What could not be read back is never kept; data system metadata are
// bounded by their forms.
func (t *Tree) checkSize(n db.Node) error {
	if len(n.User) > space.MaxMetadataSize {
		return problem.New(problem.TooLarge, "User metadata would be more than %d bytes together.", space.MaxMetadataSize)
	}
	user, err := metadata(n.User)
	if err != nil { // more than space.MaxItems, each of which was good
		return err
	}
	return space.CheckUser(user, t.conf.Limits)
}

// save writes the row n of s, which is new if s has none.
func (t *Tree) save(ctx context.Context, tx *db.Tx, s Spot, n db.Node, now time.Time) error {
	if !s.Known {
		made, err := t.Make(ctx, tx, "", s.At, s.Kind, now)
		if err != nil {
			return err
		}
		made.Owner, made.ACL, made.User, made.Data = n.Owner, n.ACL, n.User, n.Data
		n = made
	} else {
		n.Modified = now
		n.Changes++
		n.Rev++
	}
	if err := tx.SaveNode(ctx, n); err != nil {
		return err
	}
	if n.Data != s.Node.Data {
		if err := keep(ctx, tx, n, now); err != nil {
			return err
		}
	}
	if n.ACL == s.Node.ACL && n.Owner == s.Node.Owner && n.Data == s.Node.Data {
		return nil
	}
	return tx.BumpACLGen(ctx, n.Provider)
}

// read checks all of c that can be checked without knowing the place.
func (c Change) read() (wish, error) {
	var w wish
	items := c.Set
	if c.Replace != nil {
		if len(c.Set) > 0 || slices.ContainsFunc(c.Unset, func(i space.Item) bool { return i.Class() != space.Access }) {
			return wish{}, problem.New(problem.Malformed, "A change replaces all metadata or some items of them, not both.")
		}
		w.whole, items = true, *c.Replace
	}
	parts, err := items.Split()
	if err != nil {
		return wish{}, err
	}
	w.user, w.data = parts.User, parts.Data
	if err := space.CheckUser(w.user, space.UserLimits{}); err != nil {
		return wish{}, err
	}
	if err := w.access(c, parts.Access); err != nil {
		return wish{}, err
	}
	for _, i := range c.Unset {
		if err := w.remove(i, items); err != nil {
			return wish{}, err
		}
	}
	if !w.whole {
		for i := range w.user {
			w.naming |= guard(i)
		}
		for i := range w.data {
			w.naming |= guard(i)
		}
	} else {
		w.naming |= acl.WriteMetadata
	}
	if w.naming == 0 && w.owner == nil {
		if len(parts.Ignored)+len(c.Unset) == 0 {
			return wish{}, problem.New(problem.Malformed, "The change changes nothing.")
		}
		w.naming = acl.WriteMetadata // of what the system alone writes: without effect, but not for everybody
	}
	return w, nil
}

// access reads list and owner, wherever they stand.
func (w *wish) access(c Change, items space.Metadata) error {
	list, owner := c.ACL, c.Owner
	if v, ok := items[space.ItemACL]; ok {
		if list != nil {
			return twice(space.ItemACL)
		}
		a, err := acl.Parse([]byte(v))
		if err != nil {
			return err
		}
		list = &a
	}
	if v, ok := items[space.ItemOwner]; ok {
		if owner != nil {
			return twice(space.ItemOwner)
		}
		var name acl.Who
		if err := json.Unmarshal([]byte(v), &name); err != nil {
			return problem.Wrap(err, problem.Malformed, "The item %s is not a string.", space.ItemOwner)
		}
		owner = &name
	}
	if list != nil {
		w.own = list.Own()
		text := string(w.own.Marshal())
		w.list, w.naming = &text, w.naming|acl.WriteACL
	}
	if owner != nil {
		w.owner = owner
		return checkOwner(*owner)
	}
	return nil
}

// asShown takes list and owner out of w that are sent back as s was shown: a client that replaces all metadata sends those too, and changes nothing by it.
func (w *wish) asShown(s Spot) {
	if now, _ := s.OwnList(); w.list != nil && *w.list != "" && w.own.Equal(now) {
		w.list, w.naming = nil, w.naming&^acl.WriteACL
	}
	if w.owner != nil && *w.owner == s.Owner() {
		w.owner = nil
	}
}

// remove reads one item that is to be removed.
func (w *wish) remove(i space.Item, set space.Metadata) error {
	if err := i.Check(); err != nil {
		return err
	}
	if _, ok := set[i]; ok {
		return twice(i)
	}
	switch i.Class() {
	case space.User, space.Data:
		w.unset = append(w.unset, i)
		w.naming |= guard(i)
	case space.Access:
		if i == space.ItemOwner {
			return problem.New(problem.Malformed, "The item %s cannot be removed; it can be given to another.", i)
		}
		if w.list != nil {
			return twice(i)
		}
		w.list, w.naming = new(string), w.naming|acl.WriteACL
	case space.Storage, space.Provided: // written by the system alone, and ignored
	case space.Unknown:
		_, err := space.Metadata{i: `""`}.Split()
		return err
	}
	return nil
}

func twice(i space.Item) error {
	return problem.New(problem.Malformed, "The change names the item %s twice.", problem.Quote(string(i)))
}

// guard returns the permission that a change of a user or data item takes.
func guard(i space.Item) acl.Mask {
	switch i {
	case space.HoldID:
		return acl.WriteRetentionHold
	case space.RetentionID, space.RetentionPeriod, space.RetentionAutodelete:
		return acl.WriteRetention
	}
	return acl.WriteMetadata
}

// draft returns the row of s as w wants it, and what would be in force then.
func (t *Tree) draft(s Spot, w wish) (db.Node, space.Settings, error) {
	n := s.Node
	user, err := t.UserMetadata(s)
	if err != nil {
		return db.Node{}, space.Settings{}, err
	}
	data, err := t.DataMetadata(s)
	if err != nil {
		return db.Node{}, space.Settings{}, err
	}
	if w.whole {
		user, data = space.Metadata{}, space.Metadata{}
	}
	for _, i := range w.unset {
		delete(user, i)
		delete(data, i)
	}
	maps.Copy(user, w.user)
	maps.Copy(data, w.data)
	own, err := space.ParseSettings(s.Kind, data)
	if err != nil {
		return db.Node{}, space.Settings{}, err
	}
	n.User, n.Data = kept(user), kept(data)
	if w.list != nil {
		n.ACL = *w.list
	}
	if w.owner != nil {
		n.Owner = *w.owner
	}
	if up, ok := s.Up(); ok {
		own = space.Inherit(up.Settings, own)
	}
	return n, own, nil
}

// kept is m as a row has it.
func kept(m space.Metadata) string {
	if len(m) == 0 {
		return ""
	}
	return string(m.Marshal())
}

// mayApply judges the rights that w takes, of which n is the result.
func (t *Tree) mayApply(a Attempt, s Spot, w wish, n db.Node, will space.Settings) error {
	p := a.By
	want := w.naming
	if w.whole && n.Data != s.Node.Data {
		changed, err := differing(s.Node.Data, n.Data)
		if err != nil {
			return damaged(s.At, err)
		}
		for _, i := range changed {
			want |= guard(i)
		}
	}
	if erases(s.Settings, will) {
		want |= acl.Delete
		if s.Kind == acl.Container { // and of all that is in it
			want |= acl.DeleteObject
		}
	}
	if want != 0 {
		if err := t.Decide(a, s, want); err != nil {
			return err
		}
	}
	if w.owner == nil {
		return nil
	}
	d := acl.CheckOwner(p, s.Target, *w.owner)
	a.note(s, acl.WriteOwner, d)
	switch {
	case d.Granted():
		return nil
	case acl.Evaluate(p, s.Target, acl.WriteOwner).Granted():
		if !sees(p, s.Target) {
			break
		}
		return problem.New(problem.NotPermitted, "%s does not get to make %s the owner of %s: its owner may, and an administrator may take it.", shown(p.Name), *w.owner, s.At)
	}
	return refusal(p, s.Target, s.Names, acl.WriteOwner)
}

// erases reports whether something is to be erased by itself that was not before, or sooner: whoever says so deletes, a time later, and for that nobody's right is asked.
func erases(was, will space.Settings) bool {
	switch {
	case !will.Autodelete:
		return false
	case !was.Autodelete:
		return true
	case !will.Has(space.RetentionPeriod):
		return false
	}
	return !was.Has(space.RetentionPeriod) || will.Retention.End.Before(was.Retention.End)
}

// differing returns the items that two rows' metadata do not have with the same value.
func differing(a, b string) ([]space.Item, error) {
	was, err := metadata(a)
	if err != nil {
		return nil, err
	}
	will, err := metadata(b)
	if err != nil {
		return nil, err
	}
	var out []space.Item
	for i, v := range was {
		if x, ok := will[i]; !ok || x != v {
			out = append(out, i)
		}
	}
	for i := range will {
		if _, ok := was[i]; !ok {
			out = append(out, i)
		}
	}
	return out, nil
}

// checkFree reports why s, under what is in force for it, must not become n, for which will would be.
func (t *Tree) checkFree(s Spot, n db.Node, will space.Settings, now time.Time) error {
	if err := space.CheckChange(s.Settings, will, now); err != nil {
		return err
	}
	if n.User != s.Node.User || n.ACL != s.Node.ACL || n.Owner != s.Node.Owner {
		return s.Settings.CheckFree(now)
	}
	return nil
}

// ReleaseHold takes one of the holds away that a place has of its own, which no change of metadata can. It takes WRITE_RETENTION_HOLD and is for
// administrators of the provider alone: who is under a hold is not to end it. It fails as Apply does, and with problem.NotFound if the place has no such
// hold of its own; one that is in force from above is released up there.
func (t *Tree) ReleaseHold(ctx context.Context, tx *db.Tx, a Attempt, of Spot, hold string, now time.Time) (Spot, error) {
	s, err := t.Spot(ctx, tx, of.At, of.Kind)
	if err != nil {
		return Spot{}, err
	}
	if err := t.Decide(a, s, acl.WriteRetentionHold); err != nil {
		return Spot{}, err
	}
	if err := t.administers(a.By, s.At.Provider); err != nil {
		if !sees(a.By, s.Target) {
			return Spot{}, refusal(a.By, s.Target, s.Names, acl.WriteRetentionHold)
		}
		return Spot{}, err
	}
	data, err := t.DataMetadata(s)
	if err != nil {
		return Spot{}, err
	}
	own, err := t.settings(s.Kind, s.Node.Data)
	if err != nil {
		return Spot{}, damaged(s.At, err)
	}
	i := slices.Index(own.Holds, hold)
	if i < 0 {
		return Spot{}, problem.New(problem.NotFound, "%s has no hold %s of its own.", s.At, problem.Quote(hold))
	}
	own.Holds = slices.Delete(slices.Clone(own.Holds), i, i+1)
	n := s.Node
	if len(own.Holds) == 0 {
		delete(data, space.HoldID)
	} else {
		data[space.HoldID] = own.Metadata()[space.HoldID]
	}
	n.Data = kept(data)
	if err := t.save(ctx, tx, s, n, now); err != nil {
		return Spot{}, err
	}
	return t.Spot(ctx, tx, s.At, s.Kind)
}
