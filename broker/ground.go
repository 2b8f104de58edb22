package broker

import (
	"context"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// A ground is a root container as one transaction sees it. It remembers the containers that it was asked for, so that a page of a thousand
// names costs a few queries.
type ground struct {
	tree  *tree.Tree
	tx    *db.Tx
	root  token.Location
	known map[token.ObjectName]bool      // by container that was looked up: whether it has a row
	spots map[token.ObjectName]tree.Spot // of those with a row, and of the root container
}

func newGround(t *tree.Tree, tx *db.Tx, l token.Location) *ground {
	return &ground{tree: t, tx: tx, root: token.Location{Provider: l.Provider, Container: l.Container},
		known: map[token.ObjectName]bool{"": true}, spots: map[token.ObjectName]tree.Spot{}}
}

// at is the place of a name.
func (r *ground) at(name token.ObjectName) token.Location {
	l := r.root
	l.Name = name
	return l
}

// look looks containers up, and those above them, of which it has not been asked before.
func (r *ground) look(ctx context.Context, containers []token.ObjectName) error {
	var fresh []token.ObjectName
	for _, c := range containers {
		for {
			if _, ok := r.known[c]; ok {
				break
			}
			r.known[c] = false
			fresh = append(fresh, c)
			c = holderOf(c)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	rows, err := r.tx.Rules(ctx, r.root.Provider, r.root.Container, acl.Container, fresh)
	for _, row := range rows {
		r.known[row.Name] = true
	}
	return err
}

// near returns what is in force in a container that was looked up: the nearest container at or above it that has a row, or the root container. What
// has no row has nothing of its own.
func (r *ground) near(ctx context.Context, c token.ObjectName) (tree.Spot, error) {
	for !r.known[c] {
		c = holderOf(c)
	}
	if s, ok := r.spots[c]; ok {
		return s, nil
	}
	s, err := r.tree.Spot(ctx, r.tx, r.at(c), acl.Container)
	if err == nil {
		r.spots[c] = s
	}
	return s, err
}

// holderOf returns the name of the container that holds what has the name n; the root container holds itself.
func holderOf(n token.ObjectName) token.ObjectName {
	return n[:max(strings.LastIndexByte(string(n), '/'), 0)]
}
