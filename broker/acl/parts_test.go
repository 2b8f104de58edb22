package acl_test

import (
	"slices"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

// TestEveryPartTakesItsPermission: without the one permission that the table names, the part
// is left out of an answer and refused in a change; with it alone it is not.
func TestEveryPartTakesItsPermission(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		part        acl.Part
		read, write acl.Mask
	}{
		{acl.Value, acl.ReadObject, acl.WriteObject},
		{acl.Lengthening, 0, acl.AppendData},
		{acl.Children, acl.ListContainer, 0},
		{acl.Metadata, acl.ReadMetadata, acl.WriteMetadata},
		{acl.List, acl.ReadACL, acl.WriteACL},
		{acl.Ownership, acl.ReadMetadata, acl.WriteOwner},
		{acl.Retention, acl.ReadMetadata, acl.WriteRetention},
		{acl.Holds, acl.ReadMetadata, acl.WriteRetentionHold},
		{acl.Attributes, acl.ReadAttributes, acl.WriteAttributes},
	} {
		if got := acl.Readable(tc.read, tc.part); (tc.read != 0) != slices.Equal(got, []acl.Part{tc.part}) {
			t.Errorf("part %d: with %s got %v", tc.part, tc.read, got)
		}
		if got := acl.Readable(acl.AllPerms&^tc.read, tc.part); len(got) != 0 && tc.read != 0 {
			t.Errorf("part %d: without %s got %v", tc.part, tc.read, got)
		}
		if got := acl.Writable(tc.write, tc.part); (tc.write != 0) != (len(got) == 0) {
			t.Errorf("part %d: with %s got %v denied", tc.part, tc.write, got)
		}
		without := acl.AllPerms &^ tc.write
		if tc.part == acl.Lengthening {
			without &^= acl.WriteObject
		}
		if got := acl.Writable(without, tc.part); len(got) != 1 {
			t.Errorf("part %d: without %s got %v denied", tc.part, tc.write, got)
		}
		if tc.part >= acl.Parts {
			t.Errorf("part %d is beyond Parts", tc.part)
		}
	}
	if got := acl.Readable(acl.AllPerms, acl.Parts); len(got) != 0 {
		t.Errorf("got %v of a part that does not exist", got)
	}
	if got := acl.Writable(acl.AllPerms, acl.Parts); len(got) != 1 {
		t.Errorf("got %v denied of a part that does not exist", got)
	}
}

// TestReadersGetWhatIsPermitted and writers all or nothing.
func TestReadersGetWhatIsPermitted(t *testing.T) {
	t.Parallel()
	all := []acl.Part{acl.Value, acl.Metadata, acl.List, acl.Attributes}
	for granted, want := range map[acl.Mask][]acl.Part{
		acl.Read:                                all[:2:2],
		acl.ReadACL:                             nil, // asked for with the metadata, not shown without it
		acl.ReadACL | acl.ReadMetadata:          all[1:3],
		acl.ReadACL | acl.Read:                  all,
		acl.WriteObject | acl.Execute:           nil,
		acl.ReadObject | acl.ReadACL:            all[:1],
		acl.ReadMetadata | acl.WriteObject:      all[1:2],
		acl.ReadMetadata | acl.ReadAttributes:   {acl.Metadata, acl.Attributes},
		acl.AllPerms &^ acl.ReadMetadata:        {acl.Value, acl.Attributes},
		acl.AllPerms &^ (acl.Read | acl.Delete): nil,
	} {
		if granted == acl.Read {
			want = []acl.Part{acl.Value, acl.Metadata, acl.Attributes}
		}
		if got := acl.Readable(granted, all...); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", granted, got, want)
		}
	}
	if got := acl.Readable(acl.ReadACL, acl.List); !slices.Equal(got, []acl.Part{acl.List}) {
		t.Errorf("got %v, want the list for who asks for it alone", got)
	}
	if got := acl.Writable(acl.WriteMetadata|acl.WriteObject, acl.Value, acl.Metadata, acl.List); !slices.Equal(got, []acl.Part{acl.List}) {
		t.Errorf("got %v, want the list to be denied", got)
	}
	if got := acl.Writable(acl.AppendData, acl.Lengthening, acl.Value); !slices.Equal(got, []acl.Part{acl.Value}) {
		t.Errorf("got %v, want what exists to be denied to who may append", got)
	}
	if got := acl.Writable(acl.WriteObject, acl.Lengthening, acl.Value); len(got) != 0 {
		t.Errorf("got %v denied to who may change the value", got)
	}
}
