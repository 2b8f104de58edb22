package dir

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
)

func TestPublishOne(t *testing.T) {
	root, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := Open(root, time.Now)
	ctx := t.Context()
	if tr, err := s.Probe(ctx); err != nil || tr.Exclusive != "link" || !tr.Modes || !tr.ModTimes {
		t.Fatal(tr, err)
	}
	b, err := s.Batch(ctx, "x-1")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.Stage(ctx, 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	outs := b.Publish(ctx, []store.Publication{{Item: 0, Name: "a/b/c", Size: 5}})
	if outs[0].Err != nil {
		t.Fatal(outs[0].Err)
	}
	t.Logf("%+v", outs[0])
	if err := b.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(ctx, "a/b/c", outs[0].Info.Version)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Info(), r.Check(ctx), r.Close(), s.Close())
}
