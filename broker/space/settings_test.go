package space_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// forms has for every item values that are read and values that are refused, with a
// word of the refusal.
var forms = []struct {
	item    space.Item
	read    []string
	refused map[string]string
}{
	{space.DataRedundancy, []string{`"1"`, `"3"`, `"9007199254740991"`}, numbers(`"0"`)},
	{space.ImmediateRedundancy, []string{`"true"`, `"false"`}, flags},
	{space.AssignedSize, []string{`"0"`, `"1000000"`}, numbers(`"-1"`)},
	{space.InfrastructureRedundancy, []string{`"2"`}, numbers(`"0"`)},
	{space.DataDispersion, []string{`"500"`}, numbers(`"0"`)},
	{space.GeographicPlacement, []string{`[]`, `["DE"]`, `["!US","*"]`, `["DE-BY","!DE-BE","FR"]`}, map[string]string{
		`"DE"`: "array", `[1]`: "string", `["!US"]`: `add "*"`, `["Bavaria"]`: "ISO 3166", `{}`: "array", `null`: "array", `[null]`: "string",
		"[" + strings.Repeat(`"DE",`, space.MaxRegions) + `"DE"]`: "300",
	}},
	{space.RetentionID, []string{`"finance-7y"`, `"a b\u00e9"`}, texts},
	{space.RetentionPeriod, []string{`"2026-01-01T00:00:00.000000Z/2033-01-01T00:00:00.000000Z"`}, map[string]string{
		`"2026-01-01T00:00:00.000000Z"`:                             "start/end",
		`"2026-01-01T00:00:00.000000Z/2025-01-01T00:00:00.000000Z"`: "before it begins",
		`"2026-01-01/2027-01-01"`:                                   "YYYY-MM-DD",
		`"P7Y"`:                                                     "start/end",
		`""`:                                                        "start/end",
		`7`:                                                         "string",
		`[]`:                                                        "string",
	}},
	{space.RetentionAutodelete, []string{`"true"`, `"false"`}, flags},
	{space.HoldID, []string{`[]`, `["case 7"]`, `["b","a"]`}, map[string]string{
		`"case 7"`: "array", `["a","a"]`: "twice", `[""]`: "0 bytes", `[7]`: "string", `["\n"]`: "control",
		`["` + strings.Repeat("x", space.MaxTextSize+1) + `"]`: "1025 bytes", manyHolds(space.MaxHolds + 1): "100 holds",
	}},
	{space.Encryption, []string{`"AES_XTS_256"`, `"AES_XTS_128"`, `"AES_CBC_128"`, `"AES_CBC_256"`, `"3DES_ECB_168"`, `"3DES_CBC_168"`}, map[string]string{
		`"AES_XTS_32"`: "bits", `"AES256"`: "bits", `"AES_256"`: "bits", `"ROT_CBC_13"`: "bits", `"aes_xts_256"`: "bits", `""`: "bits", `"AES__256"`: "bits",
		`"AES_x_256"`: "bits", `"AES_XTS_256_"`: "bits", `256`: "string", `["AES_XTS_256"]`: "string",
	}},
	{space.Hash, []string{`"SHA256"`, `"SHA384"`, `"SHA512"`, `"SHA160"`, `"MD5"`}, map[string]string{
		`"SHA 256"`: "SHA256", `"SHA-256"`: "SHA256", `"SHA32"`: "SHA256", `"sha256"`: "SHA256", `"SHA1"`: "SHA160", `""`: "SHA256", `["SHA256"]`: "string",
	}},
	{space.Latency, []string{`"20"`}, numbers(`"0"`)},
	{space.Throughput, []string{`"1000000000"`}, numbers(`"0"`)},
	{space.SanitizationMethod, []string{`"overwrite"`, `"NIST 800-88 Purge"`}, texts},
	{space.RPO, []string{`"0"`, `"3600"`}, numbers(`"-1"`)},
	{space.RTO, []string{`"0"`, `"60"`}, numbers(`"-1"`)},
}

var flags = map[string]string{`"yes"`: "true", `"TRUE"`: "true", `"1"`: "true", `""`: "true", `true`: "quotes", `[]`: "string"}

var texts = map[string]string{`""`: "empty", `7`: "string", `["a"]`: "string", `"a\u0000"`: "control", `"\ud800"`: "UTF-8", `"` + strings.Repeat("x", space.MaxTextSize+1) + `"`: "1024"}

// numbers are values that are no number, and one that is beyond the least.
func numbers(below string) map[string]string {
	m := map[string]string{}
	for _, v := range []string{below, `"1.5"`, `"+1"`, `"01"`, `"1e3"`, `"0x10"`, `" 1"`, `"1 "`, `""`, `"one"`, `"9007199254740992"`, `"99999999999999999999"`} {
		m[v] = "whole number"
	}
	m["3"], m["true"], m[`["3"]`], m["null"] = "between quotes", "string", "string", "string"
	return m
}

func manyHolds(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + strings.Repeat("h", i+1) + `"`)
	}
	return "[" + b.String()[1:] + "]"
}

// TestEveryItem: each item of the standard is read in its form, written in the same, and refused in any other, by name.
func TestEveryItem(t *testing.T) {
	t.Parallel()
	seen := map[space.Item]bool{}
	for _, f := range forms {
		seen[f.item] = true
		if f.item.Class() != space.Data {
			t.Errorf("%s is not data system metadata", f.item)
		}
		for _, v := range f.read {
			m, err := space.ParseMetadata([]byte(`{"` + string(f.item) + `":` + v + `}`))
			if err != nil {
				t.Fatal(err)
			}
			s, err := space.ParseSettings(acl.Container, m)
			if err != nil || !s.Has(f.item) {
				t.Errorf("%s %s: got %+v, %v", f.item, v, s, err)
				continue
			}
			written := s.Metadata()
			again, err := space.ParseSettings(acl.Container, written)
			if err != nil || !reflect.DeepEqual(again, s) || len(written) != 1 {
				t.Errorf("%s %s: written as %v, read as %+v, %v", f.item, v, written, again, err)
			}
			if got := string(written[f.item]); got != v && !strings.Contains(v, `\u`) {
				t.Errorf("%s: got %s, want %s", f.item, got, v)
			}
			for _, other := range forms {
				if other.item != f.item && s.Has(other.item) {
					t.Errorf("%s sets %s too", f.item, other.item)
				}
			}
		}
		for v, word := range f.refused {
			s, err := space.ParseSettings(acl.Container, space.Metadata{f.item: space.Value(v)})
			code := problem.Malformed
			if word == "300" || word == "100 holds" {
				code = problem.TooLarge
			}
			refused(t, err, code, string(f.item), word)
			if !reflect.DeepEqual(s, space.Settings{}) {
				t.Errorf("%s %s: got %+v with an error", f.item, v, s)
			}
		}
	}
	if len(seen) != 17 {
		t.Errorf("got %d items, want the 17 of the standard", len(seen))
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s := settings(t, `{"cdmi_data_redundancy":"2","cdmi_immediate_redundancy":"true","cdmi_assignedsize":"10","cdmi_infrastructure_redundancy":"3","cdmi_data_dispersion":"4",
		"cdmi_geographic_placement":["DE"],"cdmi_retention_id":"r","cdmi_retention_period":"2026-01-01T00:00:00.000000Z/2027-01-01T00:00:00.000000Z",
		"cdmi_retention_autodelete":"true","cdmi_hold_id":["h"],"cdmi_encryption":"AES_XTS_256","cdmi_value_hash":"SHA256","cdmi_latency":"5","cdmi_throughput":"6",
		"cdmi_sanitization_method":"zero","cdmi_RPO":"7","cdmi_RTO":"8"}`)
	if s.Copies != 2 || !s.AtOnce || s.Size != 10 || s.Infrastructures != 3 || s.Kilometres != 4 || len(s.Placement) != 1 || s.RetentionTag != "r" ||
		!s.Retention.End.Equal(at(t, "2027-01-01T00:00:00.000000Z")) || !s.Autodelete || len(s.Holds) != 1 || s.Cipher != "AES_XTS_256" || s.Hash != space.SHA256 ||
		s.Milliseconds != 5 || s.Rate != 6 || s.Sanitization != "zero" || s.RPOSeconds != 7 || s.RTOSeconds != 8 {
		t.Errorf("got %+v", s)
	}
	if (space.Settings{}).Has(space.RPO) || s.Has("cdmi_size") || s.Has("a") {
		t.Error("has what is not there")
	}
	_, err := space.ParseSettings(acl.Object, space.Metadata{space.AssignedSize: `"1"`})
	refused(t, err, problem.Malformed, "containers alone")
	_, err = space.ParseSettings(acl.Object, space.Metadata{"cdmi_size": `"1"`})
	refused(t, err, problem.UnknownField, `"cdmi_size"`)
}

// TestInheritance: an item of one's own overrides; what is not said comes from above.
func TestInheritance(t *testing.T) {
	t.Parallel()
	above := settings(t, `{"cdmi_data_redundancy":"2","cdmi_immediate_redundancy":"true","cdmi_assignedsize":"10","cdmi_geographic_placement":["DE"],"cdmi_RPO":"7",
		"cdmi_retention_period":"2026-01-01T00:00:00.000000Z/2027-01-01T00:00:00.000000Z","cdmi_retention_autodelete":"true","cdmi_hold_id":["b","a"]}`)
	own := settings(t, `{"cdmi_data_redundancy":"3","cdmi_immediate_redundancy":"false","cdmi_geographic_placement":[],"cdmi_RPO":"0","cdmi_hold_id":["c","a"],"cdmi_RTO":"1",
		"cdmi_retention_period":"2026-01-01T00:00:00.000000Z/2026-06-01T00:00:00.000000Z"}`)
	const want = `{"cdmi_RPO":"0","cdmi_RTO":"1","cdmi_data_redundancy":"3","cdmi_geographic_placement":[],"cdmi_hold_id":["a","b","c"],"cdmi_immediate_redundancy":"false",` +
		`"cdmi_retention_autodelete":"true","cdmi_retention_period":"2026-01-01T00:00:00.000000Z/2026-06-01T00:00:00.000000Z"}`
	if got := string(space.Inherit(above, own).Metadata().Marshal()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	all := above.Metadata()
	delete(all, space.AssignedSize)
	all[space.HoldID] = `["a","b"]`
	if got := string(space.Inherit(above, space.Settings{}).Metadata().Marshal()); got != string(all.Marshal()) {
		t.Errorf("nothing of one's own: got %s, want %s", got, all.Marshal())
	}
	if got := space.Inherit(space.Settings{}, own); !reflect.DeepEqual(got, own) {
		t.Errorf("nothing above: got %+v", got)
	}
	if got := space.Inherit(above, settings(t, `{"cdmi_assignedsize":"5"}`)); got.Size != 5 {
		t.Errorf("a quota of one's own: got %d", got.Size)
	}
	// Neither argument was changed.
	if above.Holds[0] != "b" || own.Holds[0] != "c" {
		t.Errorf("got %v and %v", above.Holds, own.Holds)
	}
	// Every item but one is inherited, and that one alone is not for objects.
	for _, f := range forms {
		m := space.Metadata{f.item: space.Value(f.read[0])}
		s, err := space.ParseSettings(acl.Container, m)
		if err != nil {
			t.Fatal(err)
		}
		if got := space.Inherit(s, space.Settings{}); got.Has(f.item) != (f.item != space.AssignedSize) {
			t.Errorf("%s: got inherited %v", f.item, got.Has(f.item))
		}
		if _, err := space.ParseSettings(acl.Object, m); (err == nil) != (f.item != space.AssignedSize) {
			t.Errorf("%s: on an object got %v", f.item, err)
		}
	}
}

// TestLeavingAHoldByAnother: who is under a hold from above does not get out of it by an
// own list of holds, be it empty.
func TestLeavingAHoldByAnother(t *testing.T) {
	t.Parallel()
	above := settings(t, `{"cdmi_hold_id":["court"]}`)
	for _, own := range []string{`{}`, `{"cdmi_hold_id":[]}`, `{"cdmi_hold_id":["mine"]}`} {
		s := space.Inherit(above, settings(t, own))
		refused(t, s.CheckFree(at(t, "2026-01-01T00:00:00.000000Z")), problem.OnHold, `"court"`)
	}
}

func TestCheckPlace(t *testing.T) {
	t.Parallel()
	if err := (space.Settings{}).CheckPlace(""); err != nil {
		t.Errorf("no placement: got %v", err)
	}
	refused(t, settings(t, `{"cdmi_geographic_placement":[]}`).CheckPlace("DE"), problem.PlacementRefused)
	refused(t, settings(t, `{"cdmi_geographic_placement":["*"]}`).CheckPlace(""), problem.PlacementRefused, "not known")
	if err := settings(t, `{"cdmi_geographic_placement":["*","!US"]}`).CheckPlace("DE"); err != nil {
		t.Errorf("got %v", err)
	}
}
