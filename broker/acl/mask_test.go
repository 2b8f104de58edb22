package acl_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// permissions is the table of the standard: name on objects, name on containers, bit.
var permissions = []struct {
	object, container string
	bit               acl.Mask
	constants         []acl.Mask
}{
	{"READ_OBJECT", "LIST_CONTAINER", 0x00000001, []acl.Mask{acl.ReadObject, acl.ListContainer}},
	{"WRITE_OBJECT", "ADD_OBJECT", 0x00000002, []acl.Mask{acl.WriteObject, acl.AddObject}},
	{"APPEND_DATA", "ADD_SUBCONTAINER", 0x00000004, []acl.Mask{acl.AppendData, acl.AddSubcontainer}},
	{"READ_METADATA", "READ_METADATA", 0x00000008, []acl.Mask{acl.ReadMetadata}},
	{"WRITE_METADATA", "WRITE_METADATA", 0x00000010, []acl.Mask{acl.WriteMetadata}},
	{"EXECUTE", "TRAVERSE_CONTAINER", 0x00000020, []acl.Mask{acl.Execute, acl.TraverseContainer}},
	{"DELETE_OBJECT", "DELETE_SUBCONTAINER", 0x00000040, []acl.Mask{acl.DeleteObject, acl.DeleteSubcontainer}},
	{"READ_ATTRIBUTES", "READ_ATTRIBUTES", 0x00000080, []acl.Mask{acl.ReadAttributes}},
	{"WRITE_ATTRIBUTES", "WRITE_ATTRIBUTES", 0x00000100, []acl.Mask{acl.WriteAttributes}},
	{"WRITE_RETENTION", "WRITE_RETENTION", 0x00000200, []acl.Mask{acl.WriteRetention}},
	{"WRITE_RETENTION_HOLD", "WRITE_RETENTION_HOLD", 0x00000400, []acl.Mask{acl.WriteRetentionHold}},
	{"DELETE", "DELETE", 0x00010000, []acl.Mask{acl.Delete}},
	{"READ_ACL", "READ_ACL", 0x00020000, []acl.Mask{acl.ReadACL}},
	{"WRITE_ACL", "WRITE_ACL", 0x00040000, []acl.Mask{acl.WriteACL}},
	{"WRITE_OWNER", "WRITE_OWNER", 0x00080000, []acl.Mask{acl.WriteOwner}},
	{"SYNCHRONIZE", "SYNCHRONIZE", 0x00100000, []acl.Mask{acl.Synchronize}},
}

func TestTableOfPermissions(t *testing.T) {
	t.Parallel()
	var all acl.Mask
	for _, p := range permissions {
		all |= p.bit
		for _, c := range p.constants {
			if c != p.bit {
				t.Errorf("%s: got the constant %s, want %s", p.object, c.Hex(), p.bit.Hex())
			}
		}
		for _, spelling := range []string{p.object, p.container, "CDMI_ACE_" + p.object, "CDMI_ACE_" + p.container, p.bit.Hex(), strings.ToLower(p.bit.Hex())} {
			if got := mask(t, spelling); got != p.bit {
				t.Errorf("%s: got %s, want %s", spelling, got.Hex(), p.bit.Hex())
			}
		}
		if got := p.bit.Text(acl.Object); got != p.object {
			t.Errorf("%s on an object: got %s, want %s", p.bit.Hex(), got, p.object)
		}
		if got := p.bit.Text(acl.Container); got != p.container {
			t.Errorf("%s on a container: got %s, want %s", p.bit.Hex(), got, p.container)
		}
		if got := p.bit.String(); got != p.object {
			t.Errorf("%s of unknown kind: got %s, want the name on objects", p.bit.Hex(), got)
		}
	}
	if acl.AllPerms != 0x001F07FF || all != acl.AllPerms {
		t.Errorf("all bits of the table are %s, want ALL_PERMS", all.Hex())
	}
}

func TestCompositeMasks(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]acl.Mask{
		"ALL_PERMS": 0x001F07FF, "CDMI_ACE_ALL_PERMS": 0x001F07FF, "CDMI_ACE_ALL": 0x001F07FF, "0x1007FFFF": 0x001F07FF, "0x1007ffff": 0x001F07FF,
		"RW": 0x1F, "RW_ALL": 0x000601DF, "READ": 0x89, "READ_ALL": 0x09, "CDMI_ACE_READ_ALL": 0x09,
		"0x0": 0, "0x00": 0, "0x00000000": 0,
		"READ_OBJECT|WRITE_OBJECT": 3, "READ_OBJECT, LIST_CONTAINER": 1, " READ_OBJECT\t| 0x8 ,DELETE ": 0x10009, "READ_ACL,READ_ACL": 0x20000,
	} {
		if got := mask(t, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got.Hex(), want.Hex())
		}
	}
	// What a composite grants that has no fixed meaning is spelled out, so that no
	// other reader gives it another one.
	for m, want := range map[acl.Mask]string{
		acl.Read:    "READ_ATTRIBUTES, READ_METADATA, READ_OBJECT",
		acl.ReadAll: "READ_METADATA, READ_OBJECT",
		0:           "0x00000000",
	} {
		if got := m.String(); got != want {
			t.Errorf("%s: got %s, want %s", m.Hex(), got, want)
		}
	}
}

// TestDecomposition has the vectors of the standard's technique: the greatest first,
// single bits between the composites, a remainder at the end as a number.
func TestDecomposition(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		m                 acl.Mask
		object, container string
	}{
		{0x001F07FF, "ALL_PERMS", "ALL_PERMS"},
		{0x00020089, "READ_ACL, READ_ATTRIBUTES, READ_METADATA, READ_OBJECT", "READ_ACL, READ_ATTRIBUTES, READ_METADATA, LIST_CONTAINER"},
		{0x000601DF, "WRITE_ACL, READ_ACL, WRITE_ATTRIBUTES, READ_ATTRIBUTES, DELETE_OBJECT, RW", "WRITE_ACL, READ_ACL, WRITE_ATTRIBUTES, READ_ATTRIBUTES, DELETE_SUBCONTAINER, RW"},
		{
			0x0006006F, "WRITE_ACL, READ_ACL, DELETE_OBJECT, EXECUTE, READ_METADATA, APPEND_DATA, WRITE_OBJECT, READ_OBJECT",
			"WRITE_ACL, READ_ACL, DELETE_SUBCONTAINER, TRAVERSE_CONTAINER, READ_METADATA, ADD_SUBCONTAINER, ADD_OBJECT, LIST_CONTAINER",
		},
		{0x000701DF, "WRITE_ACL, READ_ACL, DELETE, WRITE_ATTRIBUTES, READ_ATTRIBUTES, DELETE_OBJECT, RW", "WRITE_ACL, READ_ACL, DELETE, WRITE_ATTRIBUTES, READ_ATTRIBUTES, DELETE_SUBCONTAINER, RW"},
		{0x0000000B, "READ_METADATA, WRITE_OBJECT, READ_OBJECT", "READ_METADATA, ADD_OBJECT, LIST_CONTAINER"},
		{0x1000F801, "READ_OBJECT, 0x1000F800", "LIST_CONTAINER, 0x1000F800"},
	} {
		if got := tc.m.Text(acl.Object); got != tc.object {
			t.Errorf("%s on an object:\ngot  %s\nwant %s", tc.m.Hex(), got, tc.object)
		}
		if got := tc.m.Text(acl.Container); got != tc.container {
			t.Errorf("%s on a container:\ngot  %s\nwant %s", tc.m.Hex(), got, tc.container)
		}
	}
}

// TestEveryMaskIsReadBack: names and numbers of every mask there is mean it again.
func TestEveryMaskIsReadBack(t *testing.T) {
	t.Parallel()
	for n := range 1 << len(permissions) {
		var m acl.Mask
		for i, p := range permissions {
			if n>>i&1 == 1 {
				m |= p.bit
			}
		}
		if testing.Short() && n%13 != 0 {
			continue
		}
		for _, s := range []string{m.Text(acl.Object), m.Text(acl.Container), strings.Join(m.Names(acl.Container), " | "), m.Hex()} {
			if s == "" { // the names of no bit
				continue
			}
			if got := mask(t, s); got != m {
				t.Fatalf("%q: got %s, want %s", s, got.Hex(), m.Hex())
			}
		}
	}
}

func TestMasksThatAreRefused(t *testing.T) {
	t.Parallel()
	for s, word := range map[string]string{
		"":                          "empty place",
		" ":                         "empty place",
		"READ_OBJECT,":              "empty place",
		"|READ_OBJECT":              "empty place",
		"READ_OBJECT,,DELETE":       "empty place",
		"READ_OBJECT, |DELETE":      "empty place",
		"READ_OBJECTS":              `"READ_OBJECTS"`,
		"read_object":               `"read_object"`,
		"READ_OBJECT DELETE":        `"READ_OBJECT DELETE"`,
		"READ_OBJECT & DELETE":      "unknown name",
		"CDMI_ACE_":                 `"CDMI_ACE_"`,
		"CDMI_ACE_CDMI_ACE_DELETE":  "unknown name",
		"BACKUP":                    `"BACKUP"`,
		"WRITE":                     `"WRITE"`,
		"ALLOW":                     `"ALLOW"`,
		"OBJECT_INHERIT":            "unknown name",
		"SET_RETENTION":             "WRITE_RETENTION",
		"CDMI_ACE_SET_RETENTION":    "WRITE_RETENTION_HOLD",
		"1":                         "leading 0x",
		"9, DELETE":                 "leading 0x",
		"0X01":                      "leading 0x",
		"0x":                        "hexadecimal digits",
		"0x-1":                      "hexadecimal digits",
		"0x+1":                      "hexadecimal digits",
		"0x1_0":                     "hexadecimal digits",
		"0xG":                       "hexadecimal digits",
		"0x000000001":               "hexadecimal digits",
		"0x100000000":               "hexadecimal digits",
		"0x00000800":                "0x800",
		"0x1000F800":                "0x800, 0x1000, 0x2000, 0x4000, 0x8000, 0x10000000",
		"0x1007FFFE":                "0x10000000",
		"DELETE, 0x80000000":        "0x80000000",
		"\u2028":                    `"\u2028"`,
		strings.Repeat("DELETE", 9): "...",
	} {
		m, err := acl.ParseMask(s)
		refused(t, err, problem.Malformed, "mask", word)
		if m != 0 {
			t.Errorf("%q: got %s with an error", s, m.Hex())
		}
	}
	_, err := acl.ParseMask(strings.Repeat("READ_ACL,", 200) + "READ_ACL")
	refused(t, err, problem.TooLarge, "1024 bytes")
}

func TestTypes(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[acl.Type][]string{
		acl.Allow: {"ALLOW", "CDMI_ACE_ACCESS_ALLOW", "CDMI_ACE_ACCESS_ALLOWED_TYPE", "0x0", "0x00", "0x00000000", " ALLOW "},
		acl.Deny:  {"DENY", "CDMI_ACE_ACCESS_DENY", "CDMI_ACE_ACCESS_DENIED_TYPE", "0x1", "0x01"},
		acl.Audit: {"AUDIT", "CDMI_ACE_SYSTEM_AUDIT", "CDMI_ACE_SYSTEM_AUDIT_TYPE", "0x2", "0x02"},
	} {
		for _, s := range spellings {
			if got, err := acl.ParseType(s); got != want || err != nil {
				t.Errorf("%q: got %s, %v, want %s", s, got, err, want)
			}
		}
		if got := want.String(); got != spellings[0] {
			t.Errorf("got %s, want %s", got, spellings[0])
		}
	}
	for s, word := range map[string]string{
		"": "empty", "allow": "unknown name", "ALARM": "ALLOW, DENY and AUDIT", "0x03": `"0x03"`, "3": "leading 0x", "ALLOW,DENY": "one word", "ALLOW|ALLOW": "one word",
		"CDMI_ACE_ALLOW": "unknown name", "0x": "digits",
	} {
		got, err := acl.ParseType(s)
		refused(t, err, problem.Malformed, "type", word)
		if got != 0 {
			t.Errorf("%q: got %s with an error", s, got)
		}
	}
	if got := acl.Type(7).String(); got != "0x07" {
		t.Errorf("got %s for what is none", got)
	}
}

// TestFlags has the table of the standard, with both spellings of each constant.
func TestFlags(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[acl.Flags][]string{
		0x00: {"NO_FLAGS", "CDMI_ACE_FLAGS_NONE", "0x0", "0x00"},
		0x01: {"OBJECT_INHERIT", "CDMI_ACE_FLAGS_OBJECT_INHERIT_ACE", "CDMI_ACE_OBJECT_INHERIT_ACE", "0x01"},
		0x02: {"CONTAINER_INHERIT", "CDMI_ACE_FLAGS_CONTAINER_INHERIT_ACE", "CDMI_ACE_CONTAINER_INHERIT_ACE", "0x02"},
		0x04: {"NO_PROPAGATE", "CDMI_ACE_FLAGS_NO_PROPAGATE_ACE", "CDMI_ACE_NO_PROPAGATE_INHERIT_ACE", "0x04"},
		0x08: {"INHERIT_ONLY", "CDMI_ACE_FLAGS_INHERIT_ONLY_ACE", "CDMI_ACE_INHERIT_ONLY_ACE", "0x08"},
		0x40: {"IDENTIFIER_GROUP", "CDMI_ACE_FLAGS_IDENTIFIER_GROUP", "0x40"},
		0x80: {"INHERITED", "CDMI_ACE_FLAGS_INHERITED_ACE", "0x80"},
		0x03: {"CONTAINER_INHERIT, OBJECT_INHERIT", "OBJECT_INHERIT|CONTAINER_INHERIT", "OBJECT_INHERIT, NO_FLAGS, 0x02"},
		0xCF: {"INHERITED, IDENTIFIER_GROUP, INHERIT_ONLY, NO_PROPAGATE, CONTAINER_INHERIT, OBJECT_INHERIT", "0xCF", "0xcf"},
	} {
		for _, s := range spellings {
			if got, err := acl.ParseFlags(s); got != want || err != nil {
				t.Errorf("%q: got %s, %v, want %s", s, got, err, want)
			}
		}
		if got := want.String(); got != spellings[0] {
			t.Errorf("got %s, want %s", got, spellings[0])
		}
	}
	for s, word := range map[string]string{
		"": "empty", "0x10": "0x10", "0x20": "0x20", "0xF1": "0x10, 0x20", "FILE_INHERIT": `"FILE_INHERIT"`, "0x100": "0x100",
		"CDMI_ACE_FLAGS_": "unknown name", "CDMI_ACE_INHERITED_ACES": "unknown name", "DELETE": "unknown name",
	} {
		got, err := acl.ParseFlags(s)
		refused(t, err, problem.Malformed, "flags", word)
		if got != 0 {
			t.Errorf("%q: got %s with an error", s, got)
		}
	}
}
