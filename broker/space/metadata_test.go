package space_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	const sent = " {\"b\" : \"x\\u00e9\" , \"a\": { \"n\" : [1, 2.50, null, true, {}] ,\"m\":\"\\ud83d\\ude00\"},\n\"com.example.c\":[]}"
	const want = `{"a":{"n":[1,2.50,null,true,{}],"m":"\ud83d\ude00"},"b":"x\u00e9","com.example.c":[]}`
	m, err := space.ParseMetadata([]byte(sent))
	if err != nil || string(m.Marshal()) != want {
		t.Fatalf("got %s, %v", m.Marshal(), err)
	}
	again, err := space.ParseMetadata(m.Marshal())
	if err != nil || string(again.Marshal()) != want {
		t.Errorf("got %s, %v", again.Marshal(), err)
	}
	if m, err := space.ParseMetadata([]byte("{}")); err != nil || len(m) != 0 || string(m.Marshal()) != "{}" {
		t.Errorf("got %v, %v", m, err)
	}
	for _, tc := range []struct {
		json string
		code problem.Code
		word string
	}{
		{"", problem.Malformed, "not JSON"},
		{"[]", problem.Malformed, "not an object"},
		{"null", problem.Malformed, "not an object"},
		{"{}{}", problem.Malformed, "not JSON"},
		{`{"a":1,}`, problem.Malformed, "not JSON"},
		{"{\"a\":\"\xff\"}", problem.Malformed, "not JSON"},
		{`{"a":"1","a":"2"}`, problem.Malformed, `"a" twice`},
		{`{"a":"1","\u0061":"2"}`, problem.Malformed, `"a" twice`},
		{`{"a":{"x":1,"y":[],"x":2}}`, problem.Malformed, `member "x" twice`},
		{`{"a":[[{"x":{"z":1},"\u0078":2}]]}`, problem.Malformed, `member "x" twice`},
		{`{"":"1"}`, problem.Malformed, "no name"},
		{`{"a\nb":"1"}`, problem.Malformed, "control"},
		{`{"\ud800":"1"}`, problem.Malformed, "UTF-8"},
		{"{\"e\u0301\":\"1\"}", problem.Malformed, "normal form C"},
		{`{"` + strings.Repeat("n", space.MaxItemNameSize+1) + `":"1"}`, problem.Malformed, "255"},
		{`{"a":` + strings.Repeat("[", space.MaxDepth+1) + strings.Repeat("]", space.MaxDepth+1) + "}", problem.Malformed, "deeper"},
		{`{"a":` + strings.Repeat(`{"x":`, space.MaxDepth+1) + "1" + strings.Repeat("}", space.MaxDepth+1) + "}", problem.Malformed, "deeper"},
		{`{"a":"` + strings.Repeat("x", space.MaxMetadataSize) + `"}`, problem.TooLarge, "larger"},
		{many(space.MaxItems + 1), problem.TooLarge, "more than 4096 items"},
	} {
		m, err := space.ParseMetadata([]byte(tc.json))
		refused(t, err, tc.code, tc.word)
		if m != nil {
			t.Errorf("%.60s: got %v with an error", tc.json, m)
		}
	}
	deep := `{"a":` + strings.Repeat("[", space.MaxDepth) + strings.Repeat("]", space.MaxDepth) + "}"
	for _, s := range []string{deep, many(space.MaxItems), `{"a":{"x":{"x":1},"y":{"x":1}},"x":[{"x":1},{"x":1}]}`} {
		if _, err := space.ParseMetadata([]byte(s)); err != nil {
			t.Errorf("%.60s: got %v", s, err)
		}
	}
}

// many is metadata of n items.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"i%d":""`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// TestClasses has every item that the standard names.
func TestClasses(t *testing.T) {
	t.Parallel()
	wishes := strings.Fields("cdmi_data_redundancy cdmi_immediate_redundancy cdmi_assignedsize cdmi_infrastructure_redundancy cdmi_data_dispersion " +
		"cdmi_geographic_placement cdmi_retention_id cdmi_retention_period cdmi_retention_autodelete cdmi_hold_id cdmi_encryption cdmi_value_hash " +
		"cdmi_latency cdmi_throughput cdmi_sanitization_method cdmi_RPO cdmi_RTO")
	for class, items := range map[space.Class][]string{
		space.Data:    wishes,
		space.Storage: strings.Fields("cdmi_size cdmi_ctime cdmi_atime cdmi_mtime cdmi_acount cdmi_mcount cdmi_hash"),
		space.Access:  {"cdmi_acl", "cdmi_owner"},
		space.User:    {"a", "CDMI_size", "cdmi", "cdmi-x", "com.example.x", " cdmi_size"},
		space.Unknown: {"cdmi_", "cdmi_x", "cdmi_Size", "cdmi_rpo", "cdmi_size_provided", "cdmi_acl_provided", "cdmi_assignedsize_provided", "cdmi_retention_id_provided",
			"cdmi_data_holds", "cdmi_data_autodelete", "cdmi_data_retention", "cdmi_provided", "cdmi_RPO_provided_provided"},
	} {
		for _, item := range items {
			if got := space.Item(item).Class(); got != class {
				t.Errorf("%q: got class %d, want %d", item, got, class)
			}
		}
	}
	provided := 0
	for _, item := range wishes {
		if space.Item(item+"_provided").Class() == space.Provided {
			provided++
		}
	}
	if len(wishes) != 17 || provided != 15 {
		t.Errorf("got %d items and %d of them provided, want 17 and 15", len(wishes), provided)
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	m, err := space.ParseMetadata([]byte(`{"a":"1","b":[],"cdmi_size":"7","cdmi_RPO":"0","cdmi_RPO_provided":"9","cdmi_acl":[],"cdmi_owner":"alice","cdmi_hash":"00"}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Split()
	if err != nil {
		t.Fatal(err)
	}
	for want, part := range map[string]space.Metadata{`{"a":"1","b":[]}`: p.User, `{"cdmi_RPO":"0"}`: p.Data, `{"cdmi_acl":[],"cdmi_owner":"alice"}`: p.Access} {
		if got := string(part.Marshal()); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if want := []space.Item{"cdmi_RPO_provided", "cdmi_hash", "cdmi_size"}; !slices.Equal(p.Ignored, want) {
		t.Errorf("got %v ignored, want %v", p.Ignored, want)
	}
	if _, err = (space.Metadata{"cdmi_colour": `"red"`}).Split(); err == nil {
		t.Fatal("an unknown item of the standard is taken")
	}
	refused(t, err, problem.UnknownField, `"cdmi_colour"`)
}

// TestUserMetadataLimits: one below and one above each limit.
func TestUserMetadataLimits(t *testing.T) {
	t.Parallel()
	user := space.Metadata{"a": `"12"`, "bb": `["1"]`, "c": `{}`} // 5, 7 and 3 bytes
	for _, tc := range []struct {
		limits space.UserLimits
		word   string
	}{
		{space.UserLimits{}, ""},
		{space.UserLimits{Items: 3, ItemSize: 7, TotalSize: 15}, ""},
		{space.UserLimits{Items: 2}, "3 items of user metadata; cdmi_metadata_maxitems is 2"},
		{space.UserLimits{ItemSize: 6}, `"bb" of user metadata has 7 bytes; cdmi_metadata_maxsize is 6`},
		{space.UserLimits{TotalSize: 14}, "15 bytes together; cdmi_metadata_maxtotalsize is 14"},
	} {
		err := space.CheckUser(user, tc.limits)
		if tc.word == "" {
			if err != nil {
				t.Errorf("%+v: got %v", tc.limits, err)
			}
			continue
		}
		refused(t, err, problem.TooLarge, tc.word)
	}
	for v, word := range map[space.Value]string{"1": "between quotes", "true": "between quotes", "null": "between quotes", "": "between quotes"} {
		refused(t, space.CheckUser(space.Metadata{"a": v}, space.UserLimits{}), problem.Malformed, word)
	}
	refused(t, space.CheckUser(space.Metadata{"cdmi_x": `"1"`}, space.UserLimits{}), problem.Malformed, "reserved")
}
