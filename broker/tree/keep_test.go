package tree

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
)

// TestWhatBindsErasure: agents get the items that bind an erasure and no others, and not more holds than they need.
func TestWhatBindsErasure(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	end := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	const period = `"cdmi_retention_period":"2020-01-01T00:00:00.000000Z/2030-01-01T00:00:00.000000Z"`
	for data, want := range map[string]struct {
		record string
		look   time.Time
	}{
		`{}`:                           {},
		`{"cdmi_value_hash":"SHA256"}`: {},
		`{"cdmi_value_hash":"SHA256","cdmi_hold_id":["a"]}`:     {record: `{"cdmi_hold_id":["a"]}`},
		`{"cdmi_hold_id":["a","b","c","d","e"],` + period + `}`: {`{"cdmi_hold_id":["a","b","c","d"],` + period + `}`, end},
		`{"cdmi_retention_autodelete":"true","cdmi_retention_id":"x","cdmi_sanitization_method":"overwrite"}`: {
			`{"cdmi_retention_autodelete":"true","cdmi_sanitization_method":"overwrite"}`, now},
		`{"cdmi_retention_autodelete":"false"}`:               {record: `{"cdmi_retention_autodelete":"false"}`},
		`{"cdmi_retention_autodelete":"true",` + period + `}`: {`{"cdmi_retention_autodelete":"true",` + period + `}`, end},
	} {
		m, err := space.ParseMetadata([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if got, look, err := bindsErasure(acl.Object, m, now); err != nil || got != want.record || !look.Equal(want.look) {
			t.Errorf("%s: got %s at %v and %v, want %s at %v", data, got, look, err, want.record, want.look)
		}
	}
}
