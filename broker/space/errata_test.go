package space_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// A test for each erratum of the published text that this package has to do with, by
// the numbers of the page "Readings of CDMI" of docs/adr. Those of access control are in broker/acl.

// Lengths of keys and hashes are given "in bytes", and algorithm and length of a hash with a space
// between. Taken: bits, as the designators themselves have them, and no space.
func TestErratum20LengthsAreBits(t *testing.T) {
	t.Parallel()
	for v, item := range map[space.Value]space.Item{`"AES_XTS_32"`: space.Encryption, `"SHA32"`: space.Hash, `"SHA 256"`: space.Hash} {
		_, err := space.ParseSettings(acl.Object, space.Metadata{item: v})
		refused(t, err, problem.Malformed, string(item))
	}
	s := settings(t, `{"cdmi_encryption":"AES_XTS_256","cdmi_value_hash":"SHA256"}`)
	if s.Cipher != "AES_XTS_256" || s.Hash != space.SHA256 {
		t.Errorf("got %+v", s)
	}
}

// A note calls items by the names of their capabilities. Taken: the names of the items; those of the
// capabilities are refused, naming the item, so that no hold is believed to be there that is not.
func TestErratum21NamesOfCapabilities(t *testing.T) {
	t.Parallel()
	for name, item := range map[space.Item]string{
		"cdmi_data_holds":      "cdmi_hold_id",
		"cdmi_data_autodelete": "cdmi_retention_autodelete",
		"cdmi_data_retention":  "cdmi_retention_period",
	} {
		_, err := space.Metadata{name: `"true"`}.Split()
		refused(t, err, problem.UnknownField, string(name), item)
	}
}

// An exclusion excludes "from the previous list", and the list is walked to the first match, so that one behind
// what contains it never counts. Taken: an exclusion always wins, wherever it stands; exclusions alone are refused.
func TestErratum22ExclusionsWin(t *testing.T) {
	t.Parallel()
	for _, entries := range [][]string{{"US", "!US-CA"}, {"!US-CA", "US"}, {"*", "!US-CA"}, {"!US-CA", "*"}} {
		p, err := space.ParsePlacement(entries)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, p.Check("US-CA"), problem.PlacementRefused, `"US-CA"`)
		if err := p.Check("US-NY"); err != nil {
			t.Errorf("%v: got %v", entries, err)
		}
	}
	_, err := space.ParsePlacement([]string{"!US-CA"})
	refused(t, err, problem.Malformed, `add "*"`)
}
