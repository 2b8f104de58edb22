package api

import (
	"encoding/json"
	"time"
)

// A Provision is what of one wish is true, as far as anybody knows.
type Provision struct {
	Value    json.RawMessage `json:"value,omitempty"` // as the wish would say it; none if Kind is unknown
	Kind     string          `json:"kind"`            // of broker/space: measured, attested or unknown
	By       []string        `json:"by"`              // who says so: agents, and providers by their names
	At       *time.Time      `json:"at,omitempty"`    // when the last of them said so
	Evidence string          `json:"evidence"`        // a sentence: what it rests on, or why it is not known
}
