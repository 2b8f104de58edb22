package api

import "github.com/consign-transfer/consign/token"

// Limits of what is kept against erasures.
const (
	MaxKept     = 512      // records of one page
	MaxKeptData = 32 << 10 // bytes of the metadata of one record
)

// A KeptPage is a piece of a broker's log of what binds erasures at the agent's provider: holds, retention, and how what is erased is to be wiped.
// Pages go down the task stream, one at a time: the agent makes one durable and says so with a KeptMark before it gets the next.
type KeptPage struct {
	// Anew begins the log from its start: what the agent has and none of the pages from this one to the next Last page repeats is over.
	Anew    bool   `json:"anew,omitempty"`
	Records []Kept `json:"records"` // by Seq
	Seq     int64  `json:"seq"`     // that the agent has reached with this page
	Last    bool   `json:"last"`    // nothing newer is known
}

// A Kept is the newest record of one place.
type Kept struct {
	Seq       int64            `json:"seq"` // its number in the log of the provider; it only grows
	Container token.Container  `json:"container"`
	Name      token.ObjectName `json:"name"`   // empty: the whole container
	Object    bool             `json:"object"` // else a container
	// Data is the place's own data system metadata that bind erasures, a JSON object in the form of CDMI. Of many holds only some are there: one is
	// enough. Empty: there are none any more.
	Data string `json:"data"`
}

// A KeptMark says up to which number an agent has made a broker's log durable.
type KeptMark struct {
	Seq int64 `json:"seq"`
}
