package space_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

func wishes(t *testing.T, text string) space.Settings {
	t.Helper()
	m, err := space.ParseMetadata([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := space.ParseSettings(acl.Container, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	said  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	acked = said.Add(time.Minute)
)

// word is that of an agent that does everything.
func word(name string, change ...func(*space.Word)) space.Word {
	w := space.Word{Agent: token.Identity("spiffe://south/agent/" + name), At: said, Place: "DE-BY", Acked: acked, Erases: true, Wipes: []string{"overwrite", "DoD-3"}, Limits: true}
	for _, c := range change {
		c(&w)
	}
	return w
}

const everything = `{"cdmi_data_redundancy":"2","cdmi_immediate_redundancy":"true","cdmi_infrastructure_redundancy":"2","cdmi_data_dispersion":"50",
"cdmi_geographic_placement":["DE"],"cdmi_retention_id":"tag","cdmi_retention_period":"2026-01-01T00:00:00.000000Z/2027-01-01T00:00:00.000000Z",
"cdmi_retention_autodelete":"true","cdmi_hold_id":["case 7"],"cdmi_encryption":"AES_XTS_256","cdmi_value_hash":"SHA256","cdmi_latency":"10",
"cdmi_throughput":"1000","cdmi_sanitization_method":"overwrite","cdmi_RPO":"0","cdmi_RTO":"1","cdmi_assignedsize":"5"}`

// TestProvidedIsWhatIsAttestedAndMeasured: where everybody has spoken and all agree, each wish that can be known is.
func TestProvidedIsWhatIsAttestedAndMeasured(t *testing.T) {
	t.Parallel()
	f := space.Facts{
		Provider: "south", Place: "DE-BY", PlacedAt: said.Add(-time.Hour), Words: []space.Word{word("s1"), word("s2")},
		Hash: space.Hashed{Kind: space.SHA256, Agent: "spiffe://south/agent/s1", At: acked, Leaf: 17},
	}
	got := space.Provide(wishes(t, everything), f)
	agents := "spiffe://south/agent/s1 spiffe://south/agent/s2"
	for item, want := range map[space.Item]space.Provision{
		space.GeographicPlacement: {Value: `["DE-BY"]`, Kind: space.Attested, By: strings.Fields("south " + agents), At: said},
		space.RetentionPeriod:     {Value: `"2026-01-01T00:00:00.000000Z/2027-01-01T00:00:00.000000Z"`, Kind: space.Attested, By: strings.Fields(agents), At: acked},
		space.RetentionAutodelete: {Value: `"true"`, Kind: space.Attested, By: strings.Fields(agents), At: acked},
		space.HoldID:              {Value: `["case 7"]`, Kind: space.Attested, By: strings.Fields(agents), At: acked},
		space.Hash:                {Value: `"SHA256"`, Kind: space.Measured, By: []string{"spiffe://south/agent/s1"}, At: acked},
		space.Throughput:          {Value: `"1000"`, Kind: space.Attested, By: strings.Fields(agents), At: said},
		space.SanitizationMethod:  {Value: `"overwrite"`, Kind: space.Attested, By: strings.Fields(agents), At: said},
	} {
		p := got[item]
		if p.Value != want.Value || p.Kind != want.Kind || !slices.Equal(p.By, want.By) || !p.At.Equal(want.At) || p.Plain() != want.Value || !strings.HasSuffix(p.Evidence, ".") {
			t.Errorf("%s: got %+v, want %+v", item, p, want)
		}
		delete(got, item)
	}
	if !strings.Contains(got[space.Hash].Evidence+space.Provide(space.Settings{}, f)[space.Hash].Evidence, "leaf 17") {
		t.Errorf("the evidence of a measured hash does not name its leaf")
	}
	for _, item := range []space.Item{
		space.DataRedundancy, space.ImmediateRedundancy, space.InfrastructureRedundancy, space.DataDispersion, space.Encryption, space.Latency, space.RPO, space.RTO,
	} {
		if p, ok := got[item]; !ok || p.Kind != space.Uncertain || p.Value != "" || p.Plain() != `"unknown"` {
			t.Errorf("%s: got %+v, want it to be unknown", item, p)
		}
		delete(got, item)
	}
	if len(got) != 0 {
		t.Errorf("got also %v, want nothing of wishes that have no such item", got)
	}
}

// TestProvidedIsNeverGuessed: one party that is silent, absent or says something else is enough for a value to be unknown, and
// the sentence says which.
func TestProvidedIsNeverGuessed(t *testing.T) {
	t.Parallel()
	good := func() space.Facts {
		return space.Facts{Provider: "south", Place: "DE", PlacedAt: said, Words: []space.Word{
			word("s1", func(w *space.Word) { w.Place = "DE" }), word("s2", func(w *space.Word) { w.Place = "DE" }),
		}}
	}
	for _, c := range []struct {
		name   string
		change func(*space.Facts)
		items  []space.Item
		says   string
	}{
		{"no agent", func(f *space.Facts) { f.Words = nil },
			[]space.Item{space.GeographicPlacement, space.RetentionPeriod, space.RetentionAutodelete, space.HoldID, space.Throughput, space.SanitizationMethod}, "south"},
		{"an agent has not acknowledged", func(f *space.Facts) { f.Words[1].Acked = time.Time{} },
			[]space.Item{space.RetentionPeriod, space.RetentionAutodelete, space.HoldID}, "spiffe://south/agent/s2"},
		{"an agent may not erase", func(f *space.Facts) { f.Words[1].Erases = false }, []space.Item{space.RetentionAutodelete}, "spiffe://south/agent/s2"},
		{"an agent is elsewhere", func(f *space.Facts) { f.Words[1].Place = "FR" }, []space.Item{space.GeographicPlacement}, "s2 says FR"},
		{"an agent does not know where", func(f *space.Facts) { f.Words[0].Place = "" }, []space.Item{space.GeographicPlacement}, "s1 has not said"},
		{"the provider does not say where", func(f *space.Facts) { f.Place = "" }, []space.Item{space.GeographicPlacement}, "provider south has not said"},
		{"a store does not wipe", func(f *space.Facts) { f.Words[0].Wipes = []string{"overwrite-twice"} }, []space.Item{space.SanitizationMethod}, "spiffe://south/agent/s1"},
		{"an agent knows no ceiling", func(f *space.Facts) { f.Words[0].Limits = false }, []space.Item{space.Throughput}, "spiffe://south/agent/s1"},
		{"nobody has hashed", func(*space.Facts) {}, []space.Item{space.Hash}, "No receipt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := good()
			c.change(&f)
			got := space.Provide(wishes(t, everything), f)
			for _, item := range c.items {
				if p := got[item]; p.Kind != space.Uncertain || p.Value != "" || p.By != nil || !p.At.IsZero() || !strings.Contains(p.Evidence, c.says) {
					t.Errorf("%s: got %+v, want it unknown and said by %q", item, p, c.says)
				}
			}
		})
	}
}

// TestProvidedWithoutAWish: what is known is shown without a wish where it is a fact of its own; what nobody wished is no promise.
func TestProvidedWithoutAWish(t *testing.T) {
	t.Parallel()
	f := space.Facts{Provider: "south", Place: "DE-BY", PlacedAt: said, Words: []space.Word{word("s1")}, Hash: space.Hashed{Kind: space.MD5, Leaf: 3}}
	got := space.Provide(space.Settings{}, f)
	if len(got) != 2 || got[space.GeographicPlacement].Value != `["DE-BY"]` || got[space.Hash].Value != `"MD5"` {
		t.Errorf("got %v, want the place and the hash alone", got)
	}
	if got := space.Provide(space.Settings{}, space.Facts{}); len(got) != 0 {
		t.Errorf("nothing known and nothing wished: got %v, want nothing", got)
	}
	// The hash that is there is told as what it is, also where another was wished since.
	if p := space.Provide(wishes(t, `{"cdmi_value_hash":"SHA512"}`), f)[space.Hash]; p.Value != `"MD5"` || p.Kind != space.Measured {
		t.Errorf("a hash of another kind than is wished: got %+v, want MD5", p)
	}
	if p := space.Provide(wishes(t, `{"cdmi_retention_autodelete":"false"}`), space.Facts{Words: []space.Word{word("s1", func(w *space.Word) { w.Erases = false })}}); p[space.RetentionAutodelete].Value != `"false"` {
		t.Errorf("autodelete that is not wanted: got %+v, want false", p)
	}
}

func TestNamesOfProvided(t *testing.T) {
	t.Parallel()
	for item, want := range map[space.Item]space.Item{
		space.HoldID: "cdmi_hold_id_provided", space.RPO: "cdmi_RPO_provided", space.AssignedSize: "", space.RetentionID: "", "cdmi_size": "", "mine": "",
	} {
		if got := item.Provided(); got != want {
			t.Errorf("%s: got %q, want %q", item, got, want)
		}
		if want != "" && want.Class() != space.Provided {
			t.Errorf("%s is not of the class of what the system alone writes", want)
		}
	}
}
