package tree

import (
	"context"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
)

// maxHolds is how many holds of a place the provider's agents are told of: one is enough to keep it.
const maxHolds = 4

// binding are the items of data system metadata that bind an erasure.
var binding = []space.Item{space.HoldID, space.RetentionPeriod, space.RetentionAutodelete, space.SanitizationMethod}

// bindsErasure returns what of a place's own data system metadata the provider's agents are to keep, in the form in which they get it: its holds, its retention and how it is to be
// wiped; and when to look for what is to be erased by itself because of it, which is zero if it never is. It is empty if that is nothing.
func bindsErasure(kind acl.Kind, data space.Metadata, now time.Time) (record string, look time.Time, err error) {
	own := space.Metadata{}
	for _, item := range binding {
		if v, ok := data[item]; ok {
			own[item] = v
		}
	}
	s, err := space.ParseSettings(kind, own)
	if err != nil || len(own) == 0 {
		return "", time.Time{}, err
	}
	if len(s.Holds) > maxHolds {
		s.Holds = s.Holds[:maxHolds]
		own[space.HoldID] = s.Metadata()[space.HoldID]
	}
	switch {
	case s.Has(space.RetentionPeriod):
		look = s.Retention.End
	case s.Autodelete:
		look = now // the retention is of a container above
	}
	return string(own.Marshal()), look, nil
}

// keep adds what binds the erasure of n to the log of its provider, if that is not what it was.
func keep(ctx context.Context, tx *db.Tx, n db.Node, now time.Time) error {
	data, err := metadata(n.Data)
	if err != nil {
		return damaged(n.At(), err)
	}
	record, look, err := bindsErasure(n.Kind, data, now)
	if err != nil {
		return damaged(n.At(), err)
	}
	_, err = tx.PutKeep(ctx, db.Keep{At: n.At(), Kind: n.Kind, Data: record, Look: look}, now)
	return err
}
