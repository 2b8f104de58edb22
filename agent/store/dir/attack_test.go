package dir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestExportInsideAnother: what is staged in one export cannot be read, listed or planted through another that contains
// its folder.
func TestExportInsideAnother(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	outer, inner := openReal(t, path), openReal(t, filepath.Join(path, "inner"))
	b, err := inner.Batch(t.Context(), "victim-1")
	if err != nil {
		t.Fatal(err)
	}
	stageWhole(t, b, store.Item{Name: "x", Size: 6, Part: token.ChunkSize}, []byte("secret"))
	staged := token.ObjectName("inner/" + hidden + "/victim-1/0")
	if _, err := outer.Stat(t.Context(), staged); problem.Of(err) != problem.BadName {
		t.Errorf("describing a stage: got %v, want %s", err, problem.BadName)
	}
	if _, err := outer.Open(t.Context(), staged, "v"); problem.Of(err) != problem.BadName {
		t.Errorf("reading a stage: got %v, want %s", err, problem.BadName)
	}
	if err := outer.List(t.Context(), "inner/"+hidden, "", func(store.Info, error) bool { return true }); problem.Of(err) != problem.BadName {
		t.Errorf("listing the stages: got %v, want %s", err, problem.BadName)
	}
	if err := outer.List(t.Context(), "", "", func(in store.Info, err error) bool {
		if in.Type != store.Special || err != nil {
			t.Errorf("listing: got %+v, %v, want the folder of stages alone, as special", in, err)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []token.ObjectName{"inner/" + hidden + "/victim-1/1", "inner/.CONSIGN/victim-1/1", "inner/" + hidden + "/other-1/0"} {
		evil, err := outer.Batch(t.Context(), "evil-1")
		if err != nil {
			t.Fatal(err)
		}
		it := store.Item{Name: name, Size: 4, Part: token.ChunkSize}
		if _, err := evil.Stage(t.Context(), it); problem.Of(err) != problem.BadName {
			t.Errorf("staging %q: got %v, want %s", name, err, problem.BadName)
		}
		fair := it
		fair.Name = "fair"
		stageWhole(t, evil, fair, []byte("evil"))
		if got := evil.Publish(t.Context(), []store.Publication{{Item: it}}); problem.Of(got[0].Err) != problem.BadName {
			t.Errorf("planting %q: got %v, want %s", name, got[0].Err, problem.BadName)
		}
		if err := evil.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
