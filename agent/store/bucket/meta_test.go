package bucket

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
)

func TestTimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		time time.Time
	}{
		{"0", time.Unix(0, 0)}, {"1700000000.123456789", time.Unix(1700000000, 123456789)}, {"1.5", time.Unix(1, 5e8)}, {"-1", time.Unix(-1, 0)},
		{"-0.5", time.Unix(-1, 5e8)}, {"-1.000000001", time.Unix(-2, 999999999)}, {"4102444800", time.Unix(4102444800, 0)},
	} {
		if got := formatTime(tt.time); got != tt.text {
			t.Errorf("formatTime(%v): got %q, want %q", tt.time, got, tt.text)
		}
		var got time.Time
		if !parseTime(tt.text, &got) || !got.Equal(tt.time) {
			t.Errorf("parseTime(%q): got %v, want %v", tt.text, got, tt.time)
		}
	}
	var got time.Time
	if !parseTime("2024-05-06T07:08:09.5+02:00", &got) || !got.Equal(time.Date(2024, 5, 6, 5, 8, 9, 5e8, time.UTC)) {
		t.Errorf("RFC 3339: got %v", got)
	}
	for _, bad := range []string{"", "-", ".", "x", "1e9", "--1", "+1", "1.-5", "1.0000000001", "99999999999999", "1,5", " 1"} {
		if parseTime(bad, &got) {
			t.Errorf("parseTime(%q): got %v, want refusal", bad, got)
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"0100644": 0o644, "644": 0o644, "0104755": 0o755, "100600": 0o600, "0120777": -1, "040755": -1, "x": -1, "": -1, "-1": -1, "0900": -1, "07777777777": -1} {
		var a store.Attrs
		if ok := parseMode(text, &a); ok != (want >= 0) || ok && a.Mode != uint32(want) {
			t.Errorf("parseMode(%q): got %o %v, want %o", text, a.Mode, ok, want)
		}
	}
}

// limited is a store over nothing but limits.
func limited(l Limits) *Store {
	return New(limits{l: l}, Options{Now: time.Now})
}

type limits struct {
	Backend
	l Limits
}

func (b limits) Limits() Limits { return b.l }

func TestHeaderKeepsWhatFits(t *testing.T) {
	t.Parallel()
	identifiers := func(k, _ string) error {
		if strings.Contains(k, "-") {
			return errors.New("no identifier")
		}
		return nil
	}
	s := limited(Limits{MetaPair: identifiers, MaxMeta: 120, MetaPad: 2})
	want := store.Attrs{
		ModTime: time.Unix(5, 0), Mode: 0o640, HasMode: true, ContentType: "text/a\r\nX-Evil: b",
		Meta: map[string]string{
			"a": "1", "b": strings.Repeat("x", 100), "c": "3", "d-e": "4", "MTIME": "9", "Mode": "9", "consign_transfer": "b-9/0", "Consign-Transfer": "b-9/0", "consign-digest": "d",
		},
	}
	h := s.header(want, "b-1/0", "")
	size := 0
	for k, v := range h.Meta {
		size += len(k) + len(v) + 2
	}
	if size > 120 || h.Meta["consign_transfer"] != "b-1/0" || h.ContentType != "" {
		t.Errorf("got %d bytes, %q of type %q", size, h.Meta, h.ContentType)
	}
	m := s.decode(h.beside(Object{}))
	gone := lost(want, m.attrs)
	if want := []string{"meta:Consign-Transfer", "meta:MTIME", "meta:Mode", "meta:b", "meta:consign-digest", "meta:consign_transfer", "meta:d-e", "type"}; !slices.Equal(gone, want) {
		t.Errorf("lost: got %q, want %q", gone, want)
	}
	if m.origin != "b-1/0" || m.attrs.Meta["a"] != "1" || m.attrs.Meta["c"] != "3" || len(m.attrs.Meta) != 2 {
		t.Errorf("got %+v", m)
	}
}

// TestForeignMetadata: what is ours by name and not by form is somebody's.
func TestForeignMetadata(t *testing.T) {
	t.Parallel()
	s := limited(Limits{MetaPair: func(string, string) error { return nil }})
	when := time.Unix(77, 0)
	m := s.decode(Object{ModTime: when, ContentType: "binary/octet-stream", Meta: map[string]string{"mtime": "yesterday", "mode": "rw", "Consign-Digest": "none", "consign_transfer": "x", "k": "v"}})
	if !m.attrs.ModTime.Equal(when) || m.attrs.HasMode || m.origin != "" || m.digest != "" || m.attrs.ContentType != "" {
		t.Errorf("got %+v", m)
	}
	if got := m.attrs.Meta; len(got) != 3 || got["mtime"] != "yesterday" || got["mode"] != "rw" || got["k"] != "v" {
		t.Errorf("got the metadata %q", got)
	}
}

func TestEscape(t *testing.T) {
	t.Parallel()
	s := limited(Limits{MetaPair: func(string, string) error { return nil }, MaxKey: 1024})
	for key, want := range map[string]string{
		"a//b": "a%2F%2Fb", "/x": "%2Fx", "x/": "x%2F", "/": "%2F", "a/./b": "a/%2E/b", "..": "%2E%2E", "a/..": "a/%2E%2E", "a\x00b": "a%00b", "%41\x01": "%2541%01", `a\b`: "a%5Cb", "\xff": "%FF", "...//": "...%2F%2F",
	} {
		if got := escape(key); got != want {
			t.Errorf("escape(%q): got %q, want %q", key, got, want)
		}
		if got, ok := s.unescape(want); !ok || got != key {
			t.Errorf("unescape(%q): got %q %v, want %q", want, got, ok, key)
		}
	}
	for _, name := range []string{"a/b", "a%20b", "100%", "%", "%4", "%zz", "a%2Fb", "%41"} {
		if key, ok := s.unescape(name); ok {
			t.Errorf("unescape(%q): got %q, want none: it is a name", name, key)
		}
	}
}
