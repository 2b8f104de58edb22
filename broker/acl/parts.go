package acl

import "slices"

// A Part is what a request reads or writes of an object or container and CDMI guards
// by a permission of its own.
type Part uint8

const (
	Value       Part = iota // the value of an object
	Lengthening             // writes alone: bytes behind the end of the value, none that exist
	Children                // reads alone: what a container holds
	Metadata                // metadata items but for those below
	List                    // cdmi_acl
	Ownership               // cdmi_owner; to read it is to read metadata. CheckOwner has the last word on a change
	Retention               // retention items but for holds; to read them is to read metadata
	Holds                   // cdmi_hold_id; to read it is to read metadata
	Attributes              // every field but value, children and metadata
)

// Parts is how many parts there are: Value and so on, from 0.
const Parts = 9

// reads and writes are the permissions by part; 0 is what cannot be done.
var (
	reads  = [Parts]Mask{ReadObject, 0, ListContainer, ReadMetadata, ReadACL, ReadMetadata, ReadMetadata, ReadMetadata, ReadAttributes}
	writes = [Parts]Mask{WriteObject, AppendData, 0, WriteMetadata, WriteACL, WriteOwner, WriteRetention, WriteRetentionHold, WriteAttributes}
)

// ToRead returns the permission that reading p takes, or 0 if it cannot be read.
func (p Part) ToRead() Mask {
	if p >= Parts {
		return 0
	}
	return reads[p]
}

// ToWrite returns the permission that writing p takes, or 0 if it cannot be written.
// WRITE_OBJECT allows Lengthening too, see Writable.
func (p Part) ToWrite() Mask {
	if p >= Parts {
		return 0
	}
	return writes[p]
}

// Readable returns which of the parts that are asked for may be shown to who has the
// permissions granted. A reader gets what is permitted and not told of the rest; if
// nothing is, the request is refused. The list is part of the metadata: asked for
// together with it, it is not shown without it; asked for alone, READ_ACL does.
func Readable(granted Mask, asked ...Part) []Part {
	may := func(p Part) bool { return p.ToRead() != 0 && granted&p.ToRead() == p.ToRead() }
	var shown []Part
	for _, p := range asked {
		if may(p) && (p != List || may(Metadata) || !slices.Contains(asked, Metadata)) {
			shown = append(shown, p)
		}
	}
	return shown
}

// Writable returns which of the parts may not be changed by who has the permissions
// granted. If there is one, nothing at all of the request is carried out.
func Writable(granted Mask, changed ...Part) (denied []Part) {
	for _, p := range changed {
		may := p.ToWrite() != 0 && granted&p.ToWrite() == p.ToWrite()
		if !may && (p != Lengthening || granted&WriteObject == 0) {
			denied = append(denied, p)
		}
	}
	return denied
}
