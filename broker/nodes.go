package broker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Place is what somebody names of the namespace. Without a Kind it is what there is a row for, an object before a container; else an object.
type Place struct {
	At   token.Location
	Kind api.NodeKind
}

// checkPlace refuses places that this broker knows nothing of.
func (b *Broker) checkPlace(of Place) error {
	if !slices.Contains(b.conf.Providers, of.At.Provider) {
		return problem.New(problem.UnknownProvider, "The broker does not know the provider %q", clip(string(of.At.Provider)))
	}
	return of.At.Check()
}

func (b *Broker) spot(ctx context.Context, tx *db.Tx, of Place) (tree.Spot, error) {
	switch of.Kind {
	case "":
		return b.tree.Find(ctx, tx, of.At)
	case api.ObjectNode:
		return b.tree.Spot(ctx, tx, of.At, acl.Object)
	case api.ContainerNode:
		return b.tree.Spot(ctx, tx, of.At, acl.Container)
	}
	return tree.Spot{}, problem.New(problem.Malformed, "The kind %q is not object or container", clip(string(of.Kind)))
}

func kindOf(k acl.Kind) api.NodeKind { return api.NodeKind(k.String()) }

// toShow is what CDMI guards of a node that is shown, part by part.
const toShow = acl.ReadAttributes | acl.ReadMetadata | acl.ReadACL

// mayShow returns which of toShow are granted, or if none is the refusal. The attempt is at all of them.
func (b *Broker) mayShow(a tree.Attempt, s tree.Spot) (acl.Mask, error) {
	granted := b.tree.May(a.By, s, toShow)
	if granted == 0 {
		return 0, b.tree.Decide(a, s, toShow)
	}
	// One by one where an entry denies together what is granted alone. Of what is not granted nobody is told; that it was tried is recorded.
	attempts := []acl.Mask{granted}
	if !acl.Evaluate(a.By, s.Target, granted).Granted() {
		attempts = nil
		for _, bit := range []acl.Mask{acl.ReadAttributes, acl.ReadMetadata, acl.ReadACL} {
			if granted&bit != 0 {
				attempts = append(attempts, bit)
			}
		}
	}
	for _, want := range attempts {
		if err := b.tree.Decide(a, s, want); err != nil {
			return 0, err
		}
	}
	if rest := toShow &^ granted; rest != 0 {
		_ = b.tree.Decide(a, s, rest)
	}
	return granted, nil
}

// Node returns what the namespace knows of a place, as far as the caller may read it. Of what has no row everything comes from the containers
// above. It does not say whether the store has it.
func (b *Broker) Node(ctx context.Context, peer certs.Peer, of Place, now time.Time) (api.Node, error) {
	var out api.Node
	err := b.checkPlace(of)
	if err == nil {
		err = b.asking(ctx, peer.Identity, of.At.Provider, opShow, now, func(tx *db.Tx, a tree.Attempt) error {
			s, err := b.spot(ctx, tx, of)
			if err != nil {
				return err
			}
			granted, err := b.mayShow(a, s)
			if err != nil {
				return err
			}
			out, err = b.showNode(ctx, tx, a.By, s, granted)
			return err
		})
	}
	if err != nil {
		return api.Node{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// showNode puts together what somebody who is granted that may see of s.
func (b *Broker) showNode(ctx context.Context, tx *db.Tx, p acl.Principal, s tree.Spot, granted acl.Mask) (api.Node, error) {
	n := api.Node{At: s.At, Kind: kindOf(s.Kind), ETag: bareTag(b.tree.ETag(s)), Known: s.Known, Permissions: names(b.tree.May(p, s, acl.AllPerms), s.Kind)}
	if granted&acl.ReadAttributes != 0 {
		n.ID = string(s.Node.ID)
	}
	if granted&acl.ReadACL != 0 {
		n.ACL = entries(s.Target.Logical(), s.Kind)
	}
	if granted&acl.ReadMetadata == 0 {
		return n, nil
	}
	n.Owner, n.Digest = string(s.Owner()), s.Node.Digest
	storage := b.tree.StorageMetadata(s)
	delete(storage, space.ItemACL) // these two have members of their own
	delete(storage, space.ItemOwner)
	n.Storage = items(storage)
	user, err := b.tree.UserMetadata(s)
	if err != nil {
		return api.Node{}, err
	}
	data, err := b.tree.DataMetadata(s)
	if err != nil {
		return api.Node{}, err
	}
	n.User, n.Data = items(user), items(data)
	if n.Settings, err = b.settings(s); err != nil {
		return api.Node{}, err
	}
	provided, err := b.provided(ctx, tx, s)
	n.Provided = provisions(provided)
	return n, err
}

// settings returns the wishes that are in force at s, by name, with where each was said: nearest first, and of holds, which add up, every place.
func (b *Broker) settings(s tree.Spot) ([]api.Setting, error) {
	inForce := s.Settings.Metadata()
	from := map[space.Item][]token.Location{}
	for up, ok := s, true; ok; up, ok = up.Up() {
		own, err := b.tree.DataMetadata(up)
		if err != nil {
			return nil, err
		}
		for item := range own {
			if item == space.HoldID || len(from[item]) == 0 {
				from[item] = append(from[item], up.At)
			}
		}
	}
	out := []api.Setting{}
	for item, value := range inForce {
		out = append(out, api.Setting{Item: string(item), Value: json.RawMessage(value), From: from[item]})
	}
	slices.SortFunc(out, func(x, y api.Setting) int { return strings.Compare(x.Item, y.Item) })
	return out, nil
}

func items(m space.Metadata) api.Items {
	out := api.Items{}
	for name, v := range m {
		out[string(name)] = json.RawMessage(v)
	}
	return out
}

func entries(es []acl.ACE, k acl.Kind) []api.ACE {
	out := make([]api.ACE, 0, len(es))
	for _, e := range es {
		out = append(out, entry(e, k))
	}
	return out
}

func entry(e acl.ACE, k acl.Kind) api.ACE {
	return api.ACE{Type: e.Type.String(), Identifier: string(e.Who), Flags: e.Flags.String(), Mask: e.Mask.Text(k)}
}

func names(m acl.Mask, k acl.Kind) []string {
	if m == 0 {
		return []string{}
	}
	return m.Names(k)
}

// bareTag and quotedTag are an ETag as people write it, and as HTTP has it.
func bareTag(tag string) string { return strings.Trim(tag, `"`) }

func quotedTag(tag string) string {
	if tag == "" {
		return ""
	}
	return `"` + tag + `"`
}

// ChangeNode changes list, owner or metadata of a place, all that is asked for or nothing, and returns what the caller may see of it then. What has no
// row gets one; the caller must say then of which kind it is. With ifMatch, problem.Outdated: it is not what it was any more.
func (b *Broker) ChangeNode(ctx context.Context, peer certs.Peer, of Place, c api.NodeChange, ifMatch string, now time.Time) (api.Node, error) {
	var out api.Node
	trail := new(tree.Trail)
	err := b.checkPlace(of)
	var change tree.Change
	if err == nil {
		change, err = changeOf(c)
	}
	if err == nil {
		err = b.write(ctx, now, func(w *work) error {
			a, err := b.tree.Attempt(ctx, w.Tx, peer.Identity, of.At.Provider, opChange)
			if err != nil {
				return err
			}
			trail = a.Trail
			was, err := b.spot(ctx, w.Tx, of)
			if err != nil {
				return err
			}
			if of.Kind == "" && !was.Known && of.At.Name != "" && b.tree.Sees(a.By, was) {
				return problem.New(problem.Malformed, "Nothing is known of %s yet: say whether it is an object or a container", of.At)
			}
			var s tree.Spot
			if c.ReleaseHold != "" {
				s, err = b.releaseHold(ctx, w, a, was, c.ReleaseHold)
			} else {
				change.At, change.Kind, change.IfMatch = was.At, was.Kind, quotedTag(ifMatch)
				s, err = b.applyChange(ctx, w, a, was, change)
			}
			if err != nil {
				return err
			}
			granted, _ := b.mayShow(a, s) // an attempt to read like any other; who may read nothing of it has changed it all the same
			if out, err = b.showNode(ctx, w.Tx, a.By, s, granted); err != nil {
				return err
			}
			return w.keep(ctx, trail)
		})
		if err != nil {
			err = b.keepTrail(ctx, trail, err, now)
		}
	}
	if err != nil {
		return api.Node{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// changeOf reads a change as it came.
func changeOf(c api.NodeChange) (tree.Change, error) {
	var out tree.Change
	if c.ACL != nil {
		data, err := json.Marshal(*c.ACL)
		if err != nil {
			return out, err
		}
		list, err := acl.Parse(data)
		if err != nil {
			return out, err
		}
		out.ACL = &list
	}
	if c.Owner != nil {
		who := acl.Who(*c.Owner)
		out.Owner = &who
	}
	if c.Metadata != nil {
		if len(c.Set) > 0 || len(c.Unset) > 0 {
			return out, problem.New(problem.Malformed, "Metadata are replaced as a whole or changed item by item, not both at once")
		}
		m, err := metadataOf(*c.Metadata)
		if err != nil {
			return out, err
		}
		out.Replace = &m
	}
	var err error
	if len(c.Set) > 0 {
		if out.Set, err = metadataOf(c.Set); err != nil {
			return out, err
		}
	}
	for _, name := range c.Unset {
		item := space.Item(name)
		if err := item.Check(); err != nil {
			return out, err
		}
		out.Unset = append(out.Unset, item)
	}
	empty := out.ACL == nil && out.Owner == nil && out.Replace == nil && len(out.Set) == 0 && len(out.Unset) == 0
	if empty == (c.ReleaseHold == "") {
		return out, problem.New(problem.Malformed, "The change must change something, and to release a hold is a change of its own")
	}
	return out, nil
}

func metadataOf(m api.Items) (space.Metadata, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "The metadata are not JSON")
	}
	return space.ParseMetadata(data)
}

// applyChange makes a change of the place was in the transaction of w, with the leaf that says who has changed list, owner or wishes. What rests on a right
// that is gone is looked at once it is committed.
func (b *Broker) applyChange(ctx context.Context, w *work, a tree.Attempt, was tree.Spot, c tree.Change) (tree.Spot, error) {
	s, err := b.tree.Apply(ctx, w.Tx, a, c, w.now)
	if err == nil {
		err = b.checkWished(ctx, w.Tx, was, s)
	}
	if err != nil {
		return tree.Spot{}, err
	}
	return s, b.accessLeaf(ctx, w, a.By, was, s)
}

// releaseHold takes a hold away from a place in the transaction of w, with the leaf that says who did.
func (b *Broker) releaseHold(ctx context.Context, w *work, a tree.Attempt, was tree.Spot, hold string) (tree.Spot, error) {
	s, err := b.tree.ReleaseHold(ctx, w.Tx, a, was, hold, w.now)
	if err != nil {
		return tree.Spot{}, err
	}
	return s, b.accessLeaf(ctx, w, a.By, was, s)
}

// accessLeaf writes what was changed of a place that decides about access or orders, and by whom.
func (b *Broker) accessLeaf(ctx context.Context, w *work, p acl.Principal, was, s tree.Spot) error {
	body := facts{"at": was.At.String(), "by": string(p.Name), "kind": was.Kind.String(), "id": string(s.Node.ID)}
	said := len(body)
	if s.Node.ACL != was.Node.ACL {
		body.keepOrHash("acl", s.Node.ACL)
	}
	if s.Node.Owner != was.Node.Owner {
		body["owner"] = string(s.Node.Owner)
	}
	if s.Node.Data != was.Node.Data {
		body.keepOrHash("data", s.Node.Data)
	}
	if len(body) == said {
		return nil // user metadata alone
	}
	w.then(b.wake)
	_, err := w.leaf(ctx, db.AccessLeaf, body)
	return err
}

// maxInLeaf is how much of a list or of metadata stands in a leaf itself, in bytes; of what is larger the hash does.
const maxInLeaf = 16 << 10

func (f facts) keepOrHash(name, text string) {
	if len(text) <= maxInLeaf {
		f[name] = text
		return
	}
	f[name+"_sha256"] = token.HashOf([]byte(text))
}
