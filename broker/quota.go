package broker

import (
	"context"
	"fmt"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An assigned size (cdmi_assignedsize) bounds the objects below a container that the broker has rows of. What a batch may still add is held from the
// moment that it is planned until it has ended, when what was stored has become rows, in one transaction. So what is there and what is held
// together are never more than the size, whoever orders at the same moment: writers come one after another.
//
// Invariant: a batch that has not ended holds, in each metered container above its items, the sum of their sizes.

// A meter is a container with an assigned size as a gate sees it.
type meter struct {
	at    token.Location
	size  int64 // assigned
	left  int64 // of that; negative if the size was made smaller than what is there and held
	shown bool  // the account may know the numbers
}

// meter returns the metered containers that an object added to a container counts in, nearest first. It must be in a write.
func (g *gate) meter(ctx context.Context, w *work, c token.ObjectName) ([]*meter, error) {
	if err := g.dst.look(ctx, []token.ObjectName{c}); err != nil {
		return nil, err
	}
	near, err := g.dst.near(ctx, c)
	if err != nil {
		return nil, err
	}
	var out []*meter
	for s, ok := near, true; ok; s, ok = s.Up() {
		if !s.Known || !s.Settings.Has(space.AssignedSize) {
			continue
		}
		m := g.meters[s.At.Name]
		if m == nil {
			if m, err = g.readMeter(ctx, w, s); err != nil {
				return nil, err
			}
			g.meters[s.At.Name] = m
		}
		out = append(out, m)
	}
	return out, nil
}

func (g *gate) readMeter(ctx context.Context, w *work, s tree.Spot) (*meter, error) {
	fresh, err := w.Meter(ctx, s.At)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := holdPlanned(ctx, w, s.At); err != nil {
			return nil, err
		}
	}
	held, err := w.Held(ctx, s.At)
	if err != nil {
		return nil, err
	}
	shown := g.b.tree.May(g.adds, s, acl.ReadMetadata) != 0
	return &meter{at: s.At, size: s.Settings.Size, left: s.Settings.Size - s.Node.Size - held, shown: shown}, nil
}

// holdPlanned has the batches that were planned before a container was metered hold room in it.
func holdPlanned(ctx context.Context, w *work, at token.Location) error {
	bts, err := w.UnendedInto(ctx, at)
	if err != nil {
		return err
	}
	for _, bt := range bts {
		m, err := manifest(ctx, w.Tx, bt.Ref)
		if err != nil {
			return err
		}
		if n := heldBy(m.Items, map[token.ObjectName]bool{at.Name: true})[at.Name]; n > 0 {
			if err := w.HoldMore(ctx, at, bt.Ref, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// heldBy adds up the sizes of items by metered container.
func heldBy(items []token.Item, metered map[token.ObjectName]bool) map[token.ObjectName]int64 {
	out := map[token.ObjectName]int64{}
	for _, it := range items {
		for c := holderOf(it.Dst); ; c = holderOf(c) {
			if metered[c] {
				out[c] += it.Size
			}
			if c == "" {
				break
			}
		}
	}
	return out
}

// hold has a batch hold room for its items, and for nothing else.
func (w *work) hold(ctx context.Context, t *db.Transfer, ref api.Ref, items []token.Item) error {
	metered, err := w.Metered(ctx, t.To)
	if err != nil || len(metered) == 0 {
		return err // then nothing is held
	}
	return w.Hold(ctx, t.To, ref, heldBy(items, metered))
}

// room takes size bytes for an object in each metered container above it, or says why there is no room: problem.QuotaExceeded, and then nothing is
// taken. What was held before for the same object is not to be in size.
func (g *gate) room(ctx context.Context, w *work, dst token.ObjectName, size int64) (refused, err error) {
	ms, err := g.meter(ctx, w, holderOf(dst))
	if err != nil || size <= 0 {
		return nil, err
	}
	for _, m := range ms {
		if size > m.left {
			return m.full(size), nil
		}
	}
	for _, m := range ms {
		m.left -= size
	}
	return nil, nil
}

func (m *meter) full(size int64) error {
	text := fmt.Sprintf("The object has %d bytes, and there is no room for them in %s", size, m.at)
	if m.shown {
		text += fmt.Sprintf(", which has %d of its assigned size of %d left", max(m.left, 0), m.size)
	}
	return problem.New(problem.QuotaExceeded, "%s", text)
}

// crowded adds to refused the items of a waiting batch that have no room any more, because a container was given a smaller size, or its first one, since
// they were planned. What agents have begun keeps its room.
func (g *gate) crowded(ctx context.Context, w *work, items []token.Item, refused map[int]error) error {
	above := make([][]*meter, len(items))
	metered := false
	for i, it := range items {
		var err error
		if above[i], err = g.meter(ctx, w, holderOf(it.Dst)); err != nil {
			return err
		}
		metered = metered || len(above[i]) > 0
		if refused[i] != nil {
			giveBack(above[i], it.Size)
		}
	}
	for i, it := range items {
		if !metered || it.Size <= 0 || refused[i] != nil {
			continue
		}
		for _, m := range above[i] {
			if m.left < 0 {
				refused[i] = m.full(it.Size)
				giveBack(above[i], it.Size)
				break
			}
		}
	}
	return nil
}

func giveBack(ms []*meter, size int64) {
	for _, m := range ms {
		m.left += size
	}
}
