package broker

import (
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

func TestTreeIsCopied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10), object("dir/b", 20), api.Entry{Name: "empty", Type: "container"}, api.Entry{Name: "ln", Type: "link"})
	mk := dst.task(api.MakeTask)
	if len(mk.Names) != 1 || mk.Names[0] != "copy/empty" {
		t.Fatalf("got names to make %q, want copy/empty", mk.Names)
	}
	dst.page(mk.ID, api.TaskPage{Entries: []api.Entry{{Name: "copy/empty", Type: "container"}}, Last: true})
	serve, receive := batch(src, dst)
	if got := dst.manifest(receive).Items[1]; got.Dst != "copy/dir/b" || got.Size != 20 || got.Part != token.ChunkSize {
		t.Errorf("got item %+v", got)
	}
	dst.post(dst.receipt(receive, nil))
	if got := w.transfer(id).State; got != api.Running {
		t.Errorf("got state %s with one receipt, want running", got)
	}
	src.post(src.receipt(serve, nil))
	got := w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2, token.Left: 1})
	if got.BytesMoved != 30 || got.Items != 3 || got.ItemsDone != 3 || !got.Planned {
		t.Errorf("got %+v", got)
	}
}
