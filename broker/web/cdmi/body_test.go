package cdmi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

func TestParseBody(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		body string
		want space.Metadata
		code problem.Code
	}{
		{body: ""},
		{body: "{}"},
		{body: ` { "metadata" : { } } `, want: space.Metadata{}},
		{body: `{"metadata":{"a":"b","cdmi_acl":[ {} ]}}`, want: space.Metadata{"a": `"b"`, "cdmi_acl": `[{}]`}},
		{body: `[]`, code: problem.Malformed},
		{body: `"metadata"`, code: problem.Malformed},
		{body: `{"metadata":{}`, code: problem.Malformed},
		{body: `{"metadata":{}} {}`, code: problem.Malformed},
		{body: `{"metadata":{}}x`, code: problem.Malformed},
		{body: `{"metadata":{},"metadata":{"a":"b"}}`, code: problem.Malformed},
		{body: `{"metadata":{},"m\u0065tadata":{}}`, code: problem.Malformed},
		{body: `{"metadata":{"a":"b","a":"c"}}`, code: problem.Malformed},
		{body: `{"metadata":{"a":{"x":"1","x":"2"}}}`, code: problem.Malformed},
		{body: `{"metadata":null}`, code: problem.Malformed},
		{body: `{"metadata":[]}`, code: problem.Malformed},
		{body: "{\"metadata\":{\"a\":\"\xff\"}}", code: problem.Malformed},
		{body: `{"Metadata":{}}`, code: problem.UnknownField},
		{body: `{"colour":"red"}`, code: problem.UnknownField},
		{body: `{"mimetype":"text/plain"}`, code: problem.UnknownField},
		{body: `{"objectName":"x"}`, code: problem.Malformed},
		{body: `{"value":"aGk="}`, code: problem.NotOffered},
		{body: `{"valuetransferencoding":"base64"}`, code: problem.NotOffered},
		{body: `{"copy":"/cdmi/north/src/"}`, code: problem.NotOffered},
		{body: `{"move":"x"}`, code: problem.NotOffered},
		{body: `{"reference":"x"}`, code: problem.NotOffered},
		{body: `{"serialize":"x"}`, code: problem.NotOffered},
		{body: `{"deserialize":"x"}`, code: problem.NotOffered},
		{body: `{"deserializevalue":"x"}`, code: problem.NotOffered},
		{body: `{"snapshot":"x"}`, code: problem.NotOffered},
		{body: `{"exports":{}}`, code: problem.NotOffered},
		{body: `{"domainURI":"/cdmi_domains/a/"}`, code: problem.NotOffered},
	} {
		got, err := parseBody([]byte(tc.body), acl.Container)
		if problem.Of(err) != tc.code || (got == nil) != (tc.want == nil) || string(got.Marshal()) != string(tc.want.Marshal()) {
			t.Errorf("%s: got %v, %v, want %v %q", tc.body, got, err, tc.want, tc.code)
		}
		if err != nil && statusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: got status %d", tc.body, statusOf(err))
		}
	}
	if _, err := parseBody([]byte(`{"mimetype":"text/plain"}`), acl.Object); problem.Of(err) != problem.Malformed {
		t.Errorf("a mimetype: got %v", err)
	}
	large := `{"metadata":{"a":"` + strings.Repeat("x", space.MaxMetadataSize) + `"}}`
	if _, err := parseBody([]byte(large), acl.Object); problem.Of(err) != problem.TooLarge || statusOf(err) != http.StatusBadRequest {
		t.Errorf("metadata that are too large: got %v", err)
	}
}

func FuzzParseBody(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"metadata":{"a":"b","c":[{"d":{}}]}}`, `{"value":""}`, `{"metadata":{},"metadata":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		m, err := parseBody([]byte(body), acl.Object)
		if err != nil {
			if m != nil {
				t.Errorf("got %v beside %v", m, err)
			}
			return
		}
		again, err := parseBody([]byte(`{"metadata":`+string(m.Marshal())+`}`), acl.Object)
		if err != nil || string(again.Marshal()) != string(m.Marshal()) {
			t.Errorf("got %v of its own form, %v", again, err)
		}
	})
}
