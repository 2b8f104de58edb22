package broker

import (
	"context"
	"encoding/json"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
)

// provided returns what of each wish that is in force at s is true, from what agents say of the container. It says nothing of who may be shown it.
func (b *Broker) provided(ctx context.Context, tx *db.Tx, s tree.Spot) (map[space.Item]space.Provision, error) {
	f := space.Facts{Provider: s.At.Provider, Place: b.ourPlace(s.At), PlacedAt: b.booted}
	es, err := tx.Exporters(ctx, s.At.Provider, s.At.Container)
	if err != nil {
		return nil, err
	}
	for _, e := range es {
		f.Words = append(f.Words, space.Word{Agent: e.ID, At: e.Seen, Place: space.Region(e.Export.Place)})
	}
	return space.Provide(s.Settings, f), nil
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
