package broker

import (
	"context"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// bounds are how many items and bytes a batch may have.
type bounds struct{ items, bytes int64 }

// batchBounds returns what a batch of t may have so that no agent's local policy refuses it for its size, whoever takes it.
func batchBounds(ctx context.Context, tx *db.Tx, t *db.Transfer) (bounds, error) {
	most := bounds{token.MaxItems, token.MaxBatchBytes}
	for _, l := range []token.Location{t.From, t.To} {
		es, err := tx.Exporters(ctx, l.Provider, l.Container)
		if err != nil {
			return most, err
		}
		for _, e := range es {
			if n := e.Export.MaxItems; n > 0 {
				most.items = min(most.items, n)
			}
			if n := e.Export.MaxBytes; n > 0 {
				most.bytes = min(most.bytes, n)
			}
		}
	}
	return most, nil
}

// partSize returns the function that fixes an item's part size from what the destination's agents need.
func partSize(es []db.Exporter) func(int64) (int64, error) {
	least, most := int64(token.ChunkSize), int64(0)
	for _, e := range es {
		if !e.Export.Create {
			continue
		}
		least = max(least, e.Export.PartSize)
		if n := e.Export.MaxParts; n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	return func(size int64) (int64, error) {
		part := int64(token.ChunkSize)
		for part < least || most > 0 && (size+part-1)/part > most {
			if part > 1<<50 {
				return 0, problem.New(problem.TooLarge, "The object is larger than the destination can hold")
			}
			part *= 2
		}
		return part, nil
	}
}
