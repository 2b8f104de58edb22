package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// wantExact compares what an object has with what its item asked for: each attribute is either
// kept as it was or named in Lost, and nothing is there that was not asked for.
func wantExact(t testing.TB, s store.Store, it store.Item, out store.Published) store.Info {
	t.Helper()
	if out.Err != nil {
		t.Errorf("Publish(%q) with %+v: %v", it.Name, it.Attrs, out.Err)
		return store.Info{}
	}
	in, err := s.Stat(t.Context(), it.Name)
	if err != nil {
		t.Errorf("Stat(%q): %v", it.Name, err)
		return store.Info{}
	}
	given, got := it.Attrs, in.Attrs
	kept := map[string]bool{}
	if given.HasMode {
		kept["mode"] = got.HasMode && got.Mode == given.Mode
	}
	if !given.ModTime.IsZero() {
		kept["mtime"] = got.ModTime.Truncate(time.Microsecond).Equal(given.ModTime.Truncate(time.Microsecond))
	}
	if given.ContentType != "" {
		kept["type"] = got.ContentType == given.ContentType
	}
	for key, value := range given.Meta {
		v, there := got.Meta[key]
		kept["meta:"+key] = there && v == value
	}
	for name, k := range kept {
		if k == slices.Contains(out.Lost, name) {
			t.Errorf("%q: %q was kept: %v, and Publish says lost: %q; given %+v, got %+v", it.Name, name, k, out.Lost, given, got)
		}
	}
	for _, name := range out.Lost {
		if _, asked := kept[name]; !asked {
			t.Errorf("%q: Publish lost %q, which nobody gave", it.Name, name)
		}
	}
	for key := range got.Meta {
		if _, asked := given.Meta[key]; !asked {
			t.Errorf("%q: metadata %q is there, which nobody gave; given %q", it.Name, key, slices.Sorted(maps.Keys(given.Meta)))
		}
	}
	return in
}

// publishAttrs publishes an item of each of two sizes with these attributes.
func publishAttrs(t testing.TB, s Subject, b store.Batch, index int, attrs store.Attrs) (outs []store.Published, infos []store.Info) {
	t.Helper()
	for k, size := range []int{4, s.large(2)} {
		it := s.item(2*index+k, token.ObjectName(fmt.Sprintf("x%d-%d", index, k)), size)
		it.Attrs = attrs
		data := Content(index, size)
		stageWhole(t, b, it, data)
		out := publishOne(t, b, it, data)
		infos = append(infos, wantExact(t, s.Store, it, out))
		outs = append(outs, out)
	}
	return outs, infos
}

func attributes(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	when := time.Date(1999, 12, 31, 23, 59, 58, 123456789, time.UTC)
	full := store.Attrs{ModTime: when, Mode: 0o440, HasMode: true, ContentType: "text/plain; charset=utf-8", Meta: map[string]string{"k": "v"}}
	outs, infos := publishAttrs(t, s, b, 0, full)
	for i, out := range outs {
		lost := func(name string) bool { return slices.Contains(out.Lost, name) }
		if lost("mode") == s.traits.Modes || lost("mtime") == s.traits.ModTimes || lost("type") == s.traits.Types || lost("meta:k") == s.traits.Meta {
			t.Errorf("Publish: lost %q, and Probe says %+v", out.Lost, s.traits)
		}
		r, err := s.Store.Open(t.Context(), infos[i].Name, infos[i].Version)
		if err != nil {
			t.Fatal(err)
		}
		in, err := r.Info(t.Context())
		a := in.Attrs
		if err != nil || !a.ModTime.Equal(infos[i].Attrs.ModTime) || a.Mode != infos[i].Attrs.Mode || a.ContentType != infos[i].Attrs.ContentType || !maps.Equal(a.Meta, infos[i].Attrs.Meta) {
			t.Errorf("Info: got %+v, %v; Stat said %+v", in, err, infos[i])
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	outs, infos = publishAttrs(t, s, b, 1, store.Attrs{Mode: 0o6755, HasMode: true})
	for i, out := range outs {
		if infos[i].Attrs.Mode&^0o777 != 0 || !slices.Contains(out.Lost, "mode") {
			t.Errorf("setuid: got mode %o, lost %q; want it gone and told", infos[i].Attrs.Mode, out.Lost)
		}
	}
	for i, attrs := range []store.Attrs{
		{}, {HasMode: true, Mode: 0o777}, {HasMode: true, Mode: 0o400}, {Mode: 0o400},
		{ModTime: time.Unix(0, 0)}, {ModTime: time.Unix(1, 1000)}, {ModTime: time.Date(1950, 1, 2, 3, 4, 5, 600000000, time.UTC)},
		{ModTime: time.Date(2106, 2, 8, 0, 0, 0, 1000, time.FixedZone("", 3600))},
	} {
		publishAttrs(t, s, b, 2+i, attrs)
	}
}

func metadata(t *testing.T, s Subject) {
	pairs := []map[string]string{
		{"k": "v"}, {"Upper": "x"}, {"with space": "x"}, {"unicode": "é日本"}, {"empty": ""}, {"dash-key": "x"}, {"under_score": "x"}, {"": "x"},
		{"newline": "a\r\nX-Evil: 1"}, {"around": "  x "}, {"inside": "a  b\tc"}, {"long": strings.Repeat("x", 3000)}, {"ключ": "x"}, {"%41": "%41"},
		{"no-text": "\xff"}, {"key:colon": "x"}, {"key\r\nx": "x"}, {"nul": "a\x00b"}, {"del": "\x7f"}, {"0digit": "x"}, {"dot.key": "x"}, {"a+b": "x+y"},
		{"encoded": "=?UTF-8?B?eA==?="}, {"comma": "a,b;c=\"d\""}, {"mtime": "1"}, {"mode": "0777"}, {"Mtime": "1"}, {"quote": "\"x\""}, {strings.Repeat("k", 300): "x"},
		{"same": "1", "SAME": "2", "Same": "3"}, {"a-b": "1", "a_b": "2"}, {"content-type": "x/y"}, {"x-amz-meta-k": "1"}, {"class": "x"}, {"hdi_isfolder": "true"},
		{"md5chksum": "x"}, {"s3cmd-attrs": "uid:0/mode:33188"}, {"goog-reserved-file-mtime": "1"},
	}
	lots := map[string]string{}
	for i := range 40 {
		lots[fmt.Sprintf("key%d", i)] = strings.Repeat("v", 100)
	}
	pairs = append(pairs, lots)
	b := openBatch(t, s.Store, "b-1")
	for i, meta := range pairs {
		it := s.item(i, token.ObjectName(fmt.Sprint("m", i)), 4)
		if i%7 == 3 {
			it.Size = int64(s.large(2))
		}
		it.Attrs.Meta = maps.Clone(meta)
		data := Content(i, int(it.Size))
		if err := tryStage(t, b, it, data); err != nil {
			t.Errorf("staging with %q: %v", meta, err)
			continue
		}
		out := publishOne(t, b, it, data)
		wantExact(t, s.Store, it, out)
		if !maps.Equal(it.Attrs.Meta, meta) {
			t.Errorf("the caller's metadata was changed to %q", it.Attrs.Meta)
		}
		if i == 0 && s.traits.Meta == slices.Contains(out.Lost, "meta:k") {
			t.Errorf("lost %q, and Probe says %+v", out.Lost, s.traits)
		}
		wantContent(t, s.Store, it.Name, data)
	}
}

func contentTypes(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	for i, ct := range []string{
		"text/plain", "text/plain; charset=utf-8", "application/x-tar", "Text/HTML", "application/octet-stream", "image/svg+xml", "x", "not a type",
		"a/b\r\nX-Evil: y", "тип/я", " text/plain ", "binary/octet-stream", strings.Repeat("a", 300) + "/b", "a/b\x00", "application/x-www-form-urlencoded", "multipart/mixed; boundary=\"x y\"",
	} {
		publishAttrs(t, s, b, i, store.Attrs{ContentType: ct})
	}
}

// attributesResumed takes an item up again without its attributes, which the earlier stage had.
func attributesResumed(t *testing.T, s Subject) {
	it := s.item(0, "x", s.large(2))
	it.Attrs = store.Attrs{ModTime: time.Unix(1e9, 0), Mode: 0o600, HasMode: true, ContentType: "text/css", Meta: map[string]string{"k": "v"}}
	data := Content(1, s.large(2))
	st := openStage(t, openBatch(t, s.Store, "b-1"), it)
	if err := writePart(t, st, it, 0, data); err != nil {
		t.Fatal(err)
	}
	if err := st.Sync(); err != nil {
		t.Fatal(err)
	}
	after := s.kill(t)
	b := openBatch(t, after, "b-1")
	bare := it
	bare.Attrs = store.Attrs{}
	st = openStage(t, b, bare)
	if !st.Holds(0) {
		t.Fatal("a part that was synced is not held after a kill")
	}
	if err := writePart(t, st, it, 1, data); err != nil {
		t.Fatal(err)
	}
	out := publishOne(t, b, it, data)
	wantExact(t, after, it, out)
	if s.traits.Meta == slices.Contains(out.Lost, "meta:k") || s.traits.Types == slices.Contains(out.Lost, "type") || s.traits.ModTimes == slices.Contains(out.Lost, "mtime") {
		t.Errorf("lost %q, and Probe says %+v", out.Lost, s.traits)
	}
	wantContent(t, after, "x", data)
}

func attributesFromOutside(t *testing.T, s Subject) {
	if s.PutAttrs == nil {
		return
	}
	want := store.Attrs{ContentType: "text/css", Meta: map[string]string{"k": "v", "other": "some words"}}
	s.PutAttrs(t, "x", []byte("12345"), want)
	in, err := s.Store.Stat(t.Context(), "x")
	if err != nil || in.Attrs.ContentType != want.ContentType || !maps.Equal(in.Attrs.Meta, want.Meta) {
		t.Errorf("Stat: got %+v, %v, want %+v", in.Attrs, err, want)
	}
	r, err := s.Store.Open(t.Context(), "x", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := readSection(t, r, 0, 5); string(data) != "12345" || err != nil {
		t.Errorf("Section: got %q, %v", data, err)
	}
	if in, err = r.Info(t.Context()); err != nil || in.Attrs.ContentType != want.ContentType || !maps.Equal(in.Attrs.Meta, want.Meta) || in.Attrs.ModTime.IsZero() {
		t.Errorf("Info: got %+v, %v, want %+v", in.Attrs, err, want)
	}
	s.PutAttrs(t, "bare", []byte("12345"), store.Attrs{})
	if in, err = s.Store.Stat(t.Context(), "bare"); err != nil || len(in.Attrs.Meta) != 0 {
		t.Errorf("Stat of what has no metadata: got %+v, %v", in.Attrs, err)
	}
}
