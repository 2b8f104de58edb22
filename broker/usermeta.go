package broker

import (
	"context"
	"fmt"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// lostMetadata is what a subscriber is told of user metadata that could not travel, as agents spell it.
const lostMetadata = "meta:*"

// carry gives objects that were stored the user metadata that are kept here of what they were copied from: objects[i] from the object from[i] of a root
// container. That the account may read them was decided with the order. Nothing else of a row travels: a list and an owner are the destination's, and a
// retention or hold binds where it was set. Metadata that are beyond the limits of now stay behind; it returns the names of these.
func (b *Broker) carry(ctx context.Context, tx *db.Tx, root token.Location, from []token.ObjectName, objects []tree.StoredObject) (left map[token.ObjectName]bool, err error) {
	rows, err := tx.Nodes(ctx, root.Provider, root.Container, from)
	if err != nil {
		return nil, fmt.Errorf("looking for metadata below %s: %w", root, err)
	}
	user := map[token.ObjectName]space.Metadata{}
	left = map[token.ObjectName]bool{}
	for _, n := range rows {
		if n.Kind != acl.Object || n.User == "" {
			continue
		}
		m, err := space.ParseMetadata([]byte(n.User))
		if err != nil {
			return nil, fmt.Errorf("reading the metadata of %s: %w", n.At(), err)
		}
		if space.CheckUser(m, b.tree.Limits()) != nil {
			left[n.Name] = true
			continue
		}
		user[n.Name] = m
	}
	for i := range objects {
		objects[i].User = user[from[i]]
	}
	return left, nil
}
