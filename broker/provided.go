package broker

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// provided returns what of each wish that is in force at s is true, from what agents say of the container and from the receipt of the object.
// It says nothing of who may be shown it.
func (b *Broker) provided(ctx context.Context, tx *db.Tx, s tree.Spot) (map[space.Item]space.Provision, error) {
	f := space.Facts{Provider: s.At.Provider, Place: b.ourPlace(s.At), PlacedAt: b.booted}
	es, err := tx.Exporters(ctx, s.At.Provider, s.At.Container)
	if err != nil {
		return nil, err
	}
	h, err := holdsOf(ctx, tx, s.At, s.Kind)
	if err != nil {
		return nil, err
	}
	for _, e := range es {
		said := space.Word{
			Agent: e.ID, At: e.Seen, Place: space.Region(e.Export.Place), Erases: e.Export.Erase && e.Export.Session, Wipes: e.Export.Sanitizes,
			Limits: true, // who knows the rate of a task keeps to it: there is no other agent in this version of the protocol
		}
		if h.seq > 0 && e.Kept >= h.seq {
			said.Acked = e.Seen
		}
		f.Words = append(f.Words, said)
	}
	if f.Hash, err = hashed(ctx, tx, s); err != nil {
		return nil, err
	}
	out := space.Provide(s.Settings, f)
	if _, wished := out[space.RetentionAutodelete]; wished {
		k, _, err := tx.KeepOf(ctx, s.At, s.Kind)
		if err != nil {
			return nil, err
		}
		if k.Note != "" { // whatever agents say: it was tried
			out[space.RetentionAutodelete] = space.Provision{Kind: space.Uncertain, Evidence: "What was due at the last look was not erased: " + k.Note}
		}
	}
	return out, nil
}

// hashed returns the hash that the receipt of an object has, if it is the one of the row.
func hashed(ctx context.Context, tx *db.Tx, s tree.Spot) (space.Hashed, error) {
	n := s.Node
	if s.Kind != acl.Object || n.HashKind == "" || n.Xfr == "" {
		return space.Hashed{}, nil
	}
	ref := api.Ref{Xfr: n.Xfr, Bat: n.Bat}
	bt, err := tx.Batch(ctx, ref)
	if problem.Of(err) == problem.NotFound {
		return space.Hashed{}, nil // of another database
	}
	if err != nil {
		return space.Hashed{}, err
	}
	rs, err := tx.Receipts(ctx, ref)
	if err != nil {
		return space.Hashed{}, err
	}
	for _, r := range rs {
		if r.Side != token.Destination {
			continue
		}
		for line := range strings.Lines(r.Signed.Lines) {
			o, err := token.ParseOutcome([]byte(strings.TrimSuffix(line, "\n")))
			if err == nil && o.Item == n.Item && o.Outcome == token.Stored && string(o.Hash.Hash()) == string(n.HashKind) && o.Hash.Base16() == n.Hash {
				return space.Hashed{Kind: n.HashKind, Agent: bt.Dst, At: r.Came, Leaf: r.Leaf}, nil
			}
		}
	}
	return space.Hashed{}, nil
}

// provisions is what the native surface shows of provided values, by the item of the wish.
func provisions(ps map[space.Item]space.Provision) map[string]api.Provision {
	out := make(map[string]api.Provision, len(ps))
	for item, p := range ps {
		form := api.Provision{Value: json.RawMessage(p.Value), Kind: string(p.Kind), By: append([]string{}, p.By...), Evidence: p.Evidence}
		if !p.At.IsZero() {
			form.At = &p.At
		}
		out[string(item)] = form
	}
	return out
}

// providedItems is what CDMI shows of them: items by names of their own.
func providedItems(ps map[space.Item]space.Provision) space.Metadata {
	out := space.Metadata{}
	for item, p := range ps {
		out[item.Provided()] = p.Plain()
	}
	return out
}
