package main

import (
	"context"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A planned item is one line of a dry run.
type plannedItem struct {
	Source      string       `json:"source"`
	Destination string       `json:"destination,omitempty"`
	Size        int64        `json:"size"`
	Code        problem.Code `json:"code,omitempty"` // why it would not be copied
	Detail      string       `json:"detail,omitempty"`
}

// dryRun lists the source with an order of its own, to list only, and applies the mapping of
// the copy order here. The copy order is not signed and nobody is told of it.
func (s *session) dryRun(ctx context.Context, order token.Order, life time.Duration) error {
	ask := token.Order{Do: token.List, Scope: token.Tree, From: order.From}
	if order.Scope == token.One {
		ask.Do, ask.Scope = token.Stat, token.One
	}
	pairs, err := s.pairsFor(ctx, order)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		order.Accounts = append(order.Accounts, p.Identity())
	}
	out := newPrinter(s.a, []string{"SIZE", "SOURCE", "DESTINATION"}, func(i plannedItem) []string {
		if i.Code != "" {
			return []string{"-", printable(i.Source), "(" + string(i.Code) + ": " + printable(i.Detail) + ")"}
		}
		return []string{bytesText(i.Size), printable(i.Source), printable(i.Destination)}
	})
	var items, bytes, left int64
	err = s.lookup(ctx, ask, api.Lookup{}, func(e api.Entry) (bool, error) {
		item, covered := plan(order, e)
		if !covered {
			return true, nil
		}
		if item.Code != "" {
			left++
		} else {
			items++
			bytes += item.Size
		}
		return true, out.Print(item)
	})
	if err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	s.a.note("dry run: %s, %s (%d bytes), would be copied; %d left out; the order would be good for %s; nothing was moved",
		counted(items, "object"), bytesText(bytes), bytes, left, spanText(life))
	return nil
}

// plan returns what the copy order makes of one name, and whether it covers it.
func plan(order token.Order, e api.Entry) (plannedItem, bool) {
	src := order.From
	src.Name = e.Name
	item := plannedItem{Source: src.String(), Size: e.Size}
	if e.Code != "" {
		item.Code, item.Detail = e.Code, e.Detail
		return item, true
	}
	name, err := order.Destination(e.Name)
	if problem.Of(err) == problem.OrderNotCovered {
		return item, false
	}
	if err != nil {
		p := problem.As(err)
		item.Code, item.Detail = p.Code, p.Sentence()
		return item, true
	}
	if e.Type != string(store.Object) {
		if e.Type == string(store.Subtree) {
			return item, false
		}
		item.Code, item.Detail = problem.Skipped, "a "+e.Type+" is left out"
		return item, true
	}
	dst := order.To
	dst.Name = name
	item.Destination = dst.String()
	return item, true
}
