package store_test

import (
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// The parts of an item are aligned, follow each other, and add up to it; an empty item has one, which is empty.
func TestPartsCoverTheItem(t *testing.T) {
	t.Parallel()
	const part = 8 * token.ChunkSize
	for _, tt := range []struct{ size, parts int64 }{
		{0, 1}, {1, 1}, {part - 1, 1}, {part, 1}, {part + 1, 2}, {3 * part, 3}, {10_000 * part, 10_000}, {1<<53 - 1, 1 << 30},
	} {
		it := store.Item{Size: tt.size, Part: part}
		if got := it.Parts(); got != tt.parts {
			t.Errorf("%d bytes: got %d parts, want %d", tt.size, got, tt.parts)
		}
		end := int64(0)
		for _, i := range []int64{0, tt.parts - 1} {
			off, n := it.Span(i)
			if off != i*part || n > part || i < tt.parts-1 && n != part {
				t.Errorf("%d bytes: part %d is %d bytes at %d", tt.size, i, n, off)
			}
			end = off + n
		}
		if end != tt.size {
			t.Errorf("%d bytes: the last part ends at %d", tt.size, end)
		}
	}
}

func TestOriginNamesOneStage(t *testing.T) {
	t.Parallel()
	if got := store.OriginOf("batch-1", 17); got != "batch-1/17" {
		t.Errorf("got %q, want batch-1/17", got)
	}
	if store.OriginOf("b-1", 11) == store.OriginOf("b-11", 1) {
		t.Error("two stages have one origin")
	}
}
