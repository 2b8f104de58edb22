package broker

import (
	"context"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// merge adds to what an order to list or to describe has found what the rows say of it, as far as the order's account may read their metadata. Whatever
// an agent says of rows goes.
func (b *Broker) merge(ctx context.Context, o token.Order, at token.Location, es []api.Entry, now time.Time) error {
	byName := make(map[token.ObjectName][]*api.Entry, len(es))
	names := make([]token.ObjectName, 0, len(es))
	for i := range es {
		es[i].Node = nil
		if es[i].Code == "" {
			byName[es[i].Name] = append(byName[es[i].Name], &es[i])
			names = append(names, es[i].Name)
		}
	}
	who, ok := o.Account(at.Provider)
	if len(names) == 0 || !ok {
		return nil
	}
	return b.asking(ctx, who, at.Provider, string(o.Do), now, func(tx *db.Tx, a tree.Attempt) error {
		rows, err := tx.Briefs(ctx, at.Provider, at.Container, names)
		if err != nil || len(rows) == 0 {
			return err
		}
		known := map[acl.Kind][]token.ObjectName{}
		for _, r := range rows {
			known[r.Kind] = append(known[r.Kind], r.Name)
		}
		refused := map[acl.Kind]map[token.ObjectName]error{}
		for kind, ns := range known {
			if refused[kind], err = b.tree.DecideMany(ctx, tx, a, tree.Page{At: at, Kind: kind, Names: ns}, toFind); err != nil {
				return err
			}
		}
		for _, r := range rows {
			if refused[r.Kind][r.Name] != nil {
				continue
			}
			for _, e := range byName[r.Name] {
				if kindOfEntry(*e) == r.Kind {
					e.Node = &api.NodeBrief{ID: string(r.ID), Owner: string(r.Owner), Digest: r.Digest}
				}
			}
		}
		return nil
	})
}
