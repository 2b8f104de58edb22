package cdmi

import (
	"net/http"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestNegotiate(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string]string{
		"1.1.1": "1.1.1", "1.0.2": "1.0.2", "1.0.2, 1.5, 2.0": "1.0.2", "2.0,1.0.1 ,\t1.1": "1.1", "1.0.1,1.1.1,1.0.2": "1.1.1",
		"": "", "2.0": "", "1.0": "", "1": "", "1.1.1.1": "", "v1.1.1": "", "1.0.2;1.1": "",
	} {
		got, err := negotiate(headers(versionHeader, asked))
		if got != want || want == "" && problem.Of(err) != problem.NotOffered || statusOf(err) != http.StatusBadRequest && want == "" {
			t.Errorf("%q: got %q, %v, want %q", asked, got, err, want)
		}
	}
	if got, err := negotiate(headers(versionHeader, "2.0", versionHeader, "1.0.2")); err != nil || got != "1.0.2" {
		t.Errorf("two headers: got %q, %v", got, err)
	}
	if _, err := negotiate(headers()); problem.Of(err) != problem.Malformed {
		t.Errorf("no header: got %v", err)
	}
}

func TestSpeaksCDMI(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		h    http.Header
		want bool
	}{
		{headers(), false},
		{headers("Accept", "*/*"), false},
		{headers("Accept", "application/json", "Content-Type", "text/plain"), false},
		{headers("Accept", "text/html, application/cdmi-object;q=0.5"), true},
		{headers("Accept", "application/cdmi-container+json"), true},
		{headers("Content-Type", "application/CDMI-container; charset=utf-8"), true},
		{headers("Accept", "*/*", versionHeader, "1.1.1"), true},
		{headers(versionHeader, ""), true},
	} {
		if got := speaksCDMI(tc.h); got != tc.want {
			t.Errorf("%v: got %v", tc.h, got)
		}
	}
}

func TestAcceptable(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"*/*": typeContainer, "application/*": typeContainer, "application/cdmi-container": typeContainer, "application/cdmi-container+json": typeContainer + asJSON,
		"application/cdmi-container;q=0.1, application/cdmi-container+json": typeContainer + asJSON, "text/html, */*;q=0.1": typeContainer,
		"application/cdmi-container;q=0, */*": typeContainer + asJSON, "application/cdmi-container;q=0, application/cdmi-container+json;q=0, */*": "",
		"application/cdmi-object": "", "text/html": "", "application/json": "", "": "", "*/*;q=0": "", "application/cdmi-container;q=2": "", "bad//type": "",
	} {
		got, err := acceptable(headers("Accept", accept), typeContainer)
		if got != want || want == "" && statusOf(err) != http.StatusNotAcceptable {
			t.Errorf("%q: got %q, %v, want %q", accept, got, err, want)
		}
	}
	if got, err := acceptable(headers(), typeObject); err != nil || got != typeObject {
		t.Errorf("no header: got %q, %v", got, err)
	}
}

func TestCheckContent(t *testing.T) {
	t.Parallel()
	for kind, ok := range map[string]bool{
		"application/cdmi-container": true, "application/cdmi-container+json": true, "application/cdmi-container; charset=UTF-8": true,
		"": false, "application/cdmi-object": false, "application/json": false, "application/cdmi-container; charset=latin1": false, "text": false, ";": false,
	} {
		h := headers()
		if kind != "" {
			h.Set("Content-Type", kind)
		}
		if err := checkContent(h, typeContainer); (err == nil) != ok || err != nil && problem.Of(err) != problem.Malformed {
			t.Errorf("%q: got %v", kind, err)
		}
	}
}
