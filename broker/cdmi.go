package broker

import (
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

// A Look is what somebody wants to see of a place.
type Look struct {
	At    token.Location
	Kind  acl.Kind
	Parts []acl.Part // that are asked for, at least one
	// From and Count say which of the children of a container are asked for, in the order of their names and from 0, if Parts has acl.Children.
	From, Count int64
}

// A Sight is what somebody may see of a place.
type Sight struct {
	Shown    []acl.Part     // of the parts that were asked for, those that may be shown
	ID       space.ObjectID // empty: nothing is kept about the place, so that it has none yet
	ParentID space.ObjectID // the same of the container that holds it; empty for a root container
	Metadata space.Metadata // cdmi_acl only if acl.List is shown, all other items only if acl.Metadata is
	Children []string       // names, of containers with "/" at their end
	ETag     string         // changes whenever what is kept about the place does
}

// A Wish is what somebody wants to be so of the metadata of a place.
type Wish struct {
	At       token.Location
	Kind     acl.Kind
	Metadata space.Metadata // nil is none
	// Named are the items that the wish is about: those that are in Metadata are set, the others removed. nil is all of them, of which the
	// list and the owner stay as they are where Metadata does not have them; nil beside no Metadata changes nothing.
	Named   []space.Item
	Make    bool   // a container that is not there is made
	IfMatch string // the ETag that the place must have, or empty
}
