package agent

import (
	"context"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// A spied store tells of what is asked of it, and lets a test stand in for some of it.
type spied struct {
	store.Store
	traits    func(*store.Traits)                                  // changes what Probe says
	part      func(item int, index int64, p store.Part) store.Part // in place of each part that was begun
	discarded func()                                               // after each Discard
	stage     func(store.Item)                                     // before each Stage
	publish   func([]store.Publication)                            // before each Publish
	sync      func()                                               // before each Sync
	synced    func()                                               // after each Sync
	leftovers func(yield func(store.Leftover) bool)                // beside the store's own
}

func (s spied) Batch(ctx context.Context, id store.BatchID) (store.Batch, error) {
	b, err := s.Store.Batch(ctx, id)
	if err != nil {
		return nil, err
	}
	return spiedBatch{b, s}, nil
}

func (s spied) Leftovers(ctx context.Context, yield func(store.Leftover) bool) error {
	if s.leftovers != nil {
		s.leftovers(yield)
	}
	return s.Store.Leftovers(ctx, yield)
}

func (s spied) Probe(ctx context.Context) (store.Traits, error) {
	t, err := s.Store.Probe(ctx)
	if s.traits != nil {
		s.traits(&t)
	}
	return t, err
}

type spiedBatch struct {
	store.Batch
	s spied
}

func (b spiedBatch) Stage(ctx context.Context, it store.Item) (store.Stage, error) {
	if b.s.stage != nil {
		b.s.stage(it)
	}
	st, err := b.Batch.Stage(ctx, it)
	if err != nil {
		return nil, err
	}
	return spiedStage{st, b.s, it.Index}, nil
}

func (b spiedBatch) Publish(ctx context.Context, pubs []store.Publication) []store.Published {
	if b.s.publish != nil {
		b.s.publish(pubs)
	}
	return b.Batch.Publish(ctx, pubs)
}

type spiedStage struct {
	store.Stage
	s    spied
	item int
}

func (st spiedStage) Part(ctx context.Context, index int64) (store.Part, error) {
	p, err := st.Stage.Part(ctx, index)
	if err == nil && st.s.part != nil {
		p = st.s.part(st.item, index, p)
	}
	return p, err
}

func (st spiedStage) Discard(ctx context.Context) error {
	err := st.Stage.Discard(ctx)
	if st.s.discarded != nil {
		st.s.discarded()
	}
	return err
}

// A spiedPart ends as close says.
type spiedPart struct {
	store.Part
	close func() error
}

func (p spiedPart) Close() error { return p.close() }

func (st spiedStage) Sync() error {
	if st.s.sync != nil {
		st.s.sync()
	}
	err := st.Stage.Sync()
	if st.s.synced != nil {
		st.s.synced()
	}
	return err
}

// A native store has a digest of its own for everything.
type native struct{ store.Store }

func (n native) Open(ctx context.Context, name token.ObjectName, version token.Version) (store.Reader, error) {
	r, err := n.Store.Open(ctx, name, version)
	if err != nil {
		return nil, err
	}
	return nativeReader{r}, nil
}

type nativeReader struct{ store.Reader }

func (r nativeReader) Info(ctx context.Context) (store.Info, error) {
	info, err := r.Reader.Info(ctx)
	info.Native = "etag:" + string(info.Name)
	return info, err
}
