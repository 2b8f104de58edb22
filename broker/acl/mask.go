package acl

import "strings"

// A Mask is a set of permissions. The numbers are those of NFSv4. A bit means one
// thing on an object and another on a container, so some have two names.
type Mask uint32

const (
	ReadObject         Mask = 0x00000001 // read the value of an object
	ListContainer      Mask = 0x00000001 // list the children of a container
	WriteObject        Mask = 0x00000002 // change the value of an object
	AddObject          Mask = 0x00000002 // make an object in a container
	AppendData         Mask = 0x00000004 // lengthen the value of an object
	AddSubcontainer    Mask = 0x00000004 // make a container in a container
	ReadMetadata       Mask = 0x00000008
	WriteMetadata      Mask = 0x00000010
	Execute            Mask = 0x00000020
	TraverseContainer  Mask = 0x00000020 // another name of Execute; no rule of this package asks for it
	DeleteObject       Mask = 0x00000040 // delete an object from this container
	DeleteSubcontainer Mask = 0x00000040 // delete a container from this container
	ReadAttributes     Mask = 0x00000080
	WriteAttributes    Mask = 0x00000100
	WriteRetention     Mask = 0x00000200
	WriteRetentionHold Mask = 0x00000400
	Delete             Mask = 0x00010000 // delete this object or container itself
	ReadACL            Mask = 0x00020000
	WriteACL           Mask = 0x00040000
	WriteOwner         Mask = 0x00080000
	Synchronize        Mask = 0x00100000

	AllPerms Mask = 0x001F07FF // every bit there is
	RW       Mask = 0x0000001F
	RWAll    Mask = 0x000601DF // read only: written as its bits
	Read     Mask = 0x00000089 // read only: written as its bits
	ReadAll  Mask = 0x00000009 // read only: written as its bits
)

// oldAllPerms is how CDMI 1.0.1 spells ALL_PERMS. As bits it would lack two that exist and have six that do not.
const oldAllPerms = 0x1007FFFF

// prefix is what turns a string form into the name of a constant.
const prefix = "CDMI_ACE_"

// maskWords are the names of masks. Those that are shown come first, from the
// greatest to the least, with the composites between the single bits.
var maskWords = vocabulary{
	what:  "mask",
	known: uint32(AllPerms),
	bare:  prefix,
	shown: []word{
		{uint32(AllPerms), "ALL_PERMS", "ALL_PERMS"},
		{uint32(Synchronize), "SYNCHRONIZE", "SYNCHRONIZE"},
		{uint32(WriteOwner), "WRITE_OWNER", "WRITE_OWNER"},
		{uint32(WriteACL), "WRITE_ACL", "WRITE_ACL"},
		{uint32(ReadACL), "READ_ACL", "READ_ACL"},
		{uint32(Delete), "DELETE", "DELETE"},
		{uint32(WriteRetentionHold), "WRITE_RETENTION_HOLD", "WRITE_RETENTION_HOLD"},
		{uint32(WriteRetention), "WRITE_RETENTION", "WRITE_RETENTION"},
		{uint32(WriteAttributes), "WRITE_ATTRIBUTES", "WRITE_ATTRIBUTES"},
		{uint32(ReadAttributes), "READ_ATTRIBUTES", "READ_ATTRIBUTES"},
		{uint32(DeleteObject), "DELETE_OBJECT", "DELETE_SUBCONTAINER"},
		{uint32(Execute), "EXECUTE", "TRAVERSE_CONTAINER"},
		{uint32(RW), "RW", "RW"},
		{uint32(WriteMetadata), "WRITE_METADATA", "WRITE_METADATA"},
		{uint32(ReadMetadata), "READ_METADATA", "READ_METADATA"},
		{uint32(AppendData), "APPEND_DATA", "ADD_SUBCONTAINER"},
		{uint32(WriteObject), "WRITE_OBJECT", "ADD_OBJECT"},
		{uint32(ReadObject), "READ_OBJECT", "LIST_CONTAINER"},
	},
	read: []word{
		{bits: uint32(RWAll), object: "RW_ALL"},
		{bits: uint32(Read), object: "READ"},
		{bits: uint32(ReadAll), object: "READ_ALL"},
		{bits: uint32(AllPerms), object: "ALL"}, // of CDMI_ACE_ALL
	},
	numbers: map[uint32]uint32{oldAllPerms: uint32(AllPerms)},
	lost: map[string]string{
		"SET_RETENTION": "write WRITE_RETENTION, WRITE_RETENTION_HOLD or both",
	},
}

// ParseMask reads a mask: hexadecimal numbers with a leading 0x and names, as a
// list between '|' or ',', of which the bits are united. A name is a string form of either column,
// with or without CDMI_ACE_ in front. 0x1007FFFF means ALL_PERMS, as it did in CDMI 1.0.1.
func ParseMask(s string) (Mask, error) {
	m, err := maskWords.parse(s)
	return Mask(m), err
}

// Names returns what m is made of, by the names of kind k, from the greatest to the
// least. ALL_PERMS and RW stand for their bits; what has no name comes last, as a
// number. The empty mask has no names.
func (m Mask) Names(k Kind) []string { return maskWords.names(uint32(m), k) }

// Text returns the names of m between ", ", or 0x00000000 for the empty mask. ParseMask reads it back.
func (m Mask) Text(k Kind) string {
	if m == 0 {
		return m.Hex()
	}
	return strings.Join(m.Names(k), ", ")
}

// String returns Text with the names of objects, which is what the standard wants
// where the kind is unknown.
func (m Mask) String() string { return m.Text(Object) }

// Hex returns the canonical form of m: 0x and eight digits.
func (m Mask) Hex() string { return hex(uint32(m), 8) }

var flagWords = vocabulary{
	what:  "flags",
	known: uint32(allFlags),
	shown: []word{
		{bits: uint32(Inherited), object: "INHERITED"},
		{bits: uint32(IdentifierGroup), object: "IDENTIFIER_GROUP"},
		{bits: uint32(InheritOnly), object: "INHERIT_ONLY"},
		{bits: uint32(NoPropagate), object: "NO_PROPAGATE"},
		{bits: uint32(ContainerInherit), object: "CONTAINER_INHERIT"},
		{bits: uint32(ObjectInherit), object: "OBJECT_INHERIT"},
	},
	read: []word{
		{bits: 0, object: "NO_FLAGS"},
		{bits: 0, object: "CDMI_ACE_FLAGS_NONE"},
		{bits: uint32(ObjectInherit), object: "CDMI_ACE_FLAGS_OBJECT_INHERIT_ACE"},
		{bits: uint32(ObjectInherit), object: "CDMI_ACE_OBJECT_INHERIT_ACE"},
		{bits: uint32(ContainerInherit), object: "CDMI_ACE_FLAGS_CONTAINER_INHERIT_ACE"},
		{bits: uint32(ContainerInherit), object: "CDMI_ACE_CONTAINER_INHERIT_ACE"},
		{bits: uint32(NoPropagate), object: "CDMI_ACE_FLAGS_NO_PROPAGATE_ACE"},
		{bits: uint32(NoPropagate), object: "CDMI_ACE_NO_PROPAGATE_INHERIT_ACE"},
		{bits: uint32(InheritOnly), object: "CDMI_ACE_FLAGS_INHERIT_ONLY_ACE"},
		{bits: uint32(InheritOnly), object: "CDMI_ACE_INHERIT_ONLY_ACE"},
		{bits: uint32(IdentifierGroup), object: "CDMI_ACE_FLAGS_IDENTIFIER_GROUP"},
		{bits: uint32(Inherited), object: "CDMI_ACE_FLAGS_INHERITED_ACE"},
	},
}

// ParseFlags reads flags in the forms that ParseMask reads.
func ParseFlags(s string) (Flags, error) {
	f, err := flagWords.parse(s)
	return Flags(f), err
}

// String returns the names of f between ", ", from the greatest to the least, or NO_FLAGS. ParseFlags reads it back.
func (f Flags) String() string {
	if f == 0 {
		return "NO_FLAGS"
	}
	return strings.Join(flagWords.names(uint32(f), Object), ", ")
}

// Hex returns the canonical form of f: 0x and two digits.
func (f Flags) Hex() string { return hex(uint32(f), 2) }

var typeWords = vocabulary{
	what: "type",
	one:  true,
	shown: []word{
		{bits: uint32(Audit), object: "AUDIT"},
		{bits: uint32(Deny), object: "DENY"},
		{bits: uint32(Allow), object: "ALLOW"},
	},
	read: []word{
		{bits: uint32(Allow), object: "CDMI_ACE_ACCESS_ALLOW"},
		{bits: uint32(Allow), object: "CDMI_ACE_ACCESS_ALLOWED_TYPE"},
		{bits: uint32(Deny), object: "CDMI_ACE_ACCESS_DENY"},
		{bits: uint32(Deny), object: "CDMI_ACE_ACCESS_DENIED_TYPE"},
		{bits: uint32(Audit), object: "CDMI_ACE_SYSTEM_AUDIT"},
		{bits: uint32(Audit), object: "CDMI_ACE_SYSTEM_AUDIT_TYPE"},
	},
	lost: map[string]string{"ALARM": "CDMI has ALLOW, DENY and AUDIT"},
}

// ParseType reads one name or number of a type.
func ParseType(s string) (Type, error) {
	t, err := typeWords.parse(s)
	return Type(t), err
}

// String returns ALLOW, DENY or AUDIT, or a number for what is none.
func (t Type) String() string {
	for _, w := range typeWords.shown {
		if w.bits == uint32(t) {
			return w.object
		}
	}
	return t.Hex()
}

// Hex returns the canonical form of t: 0x and two digits.
func (t Type) Hex() string { return hex(uint32(t), 2) }
