package azure

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
)

const longest = "0199d6f0-1c3e-7abc-8def-0123456789ab-9223372036854775807-0123456789abcdef" // the longest that an agent makes

func TestBlockIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]store.Origin{}
	for _, tc := range []struct {
		origin store.Origin
		told   bool
	}{
		{store.OriginOf(longest, 99_999), true},
		{store.OriginOf(longest, 0), true},
		{"a/0", true},
		{"a/1", true},
		{"a/10", true},
		{"A-z-0/12345", true},
		{"-/7", true},
		{store.OriginOf(longest, 100_000), false},
		{store.OriginOf(longest+"0", 0), false},
		{"a/01", false},
		{"a/-1", false},
		{"a/", false},
		{"a", false},
		{"", false},
		{"with space/1", false},
		{"a/b/1", false},
		{"ä/1", false},
	} {
		up := uploadID(tc.origin)
		if other, twice := seen[up]; twice {
			t.Errorf("%q and %q have the same ID", tc.origin, other)
		}
		seen[up] = tc.origin
		for _, part := range []int64{0, 1, maxBlocks - 1} {
			id := blockID(up, part)
			raw, err := base64.StdEncoding.DecodeString(id)
			if err != nil || len(id) != 84 || len(raw) != 63 {
				t.Errorf("%q: got %q of %d bytes (%v), want base64 of 63 bytes", tc.origin, id, len(raw), err)
			}
			gotUp, gotPart, ok := parseBlock(id)
			if !ok || gotUp != up || gotPart != part {
				t.Errorf("%q: got %q %d %v, want %q %d", id, gotUp, gotPart, ok, up, part)
			}
		}
		want := tc.origin
		if !tc.told {
			want = ""
		}
		if got := originOf(up); got != want {
			t.Errorf("%q: got the origin %q, want %q", tc.origin, got, want)
		}
	}
}

func TestForeignBlocksAreNotOurs(t *testing.T) {
	t.Parallel()
	ours := blockID(uploadID("b/1"), 2)
	for _, id := range []string{
		"", "AAAA", strings.Repeat("A", 84), strings.Repeat("B", 84), strings.Repeat("H", 84), strings.Repeat("0", 84),
		ours[:83], ours + "0", "C" + ours[1:],
		ours[:79] + "50000", ours[:79] + "-0001", ours[:79] + "+0001", ours[:74] + "-0001" + ours[79:], ours[:74] + "x0001" + ours[79:],
		"B/" + ours[2:], "B///" + ours[4:], ours[:2] + "/b" + ours[4:],
		"B" + strings.Repeat("/", 73) + "0000100002",
	} {
		if up, part, ok := parseBlock(id); ok {
			t.Errorf("%q: got %q %d, want none of ours", id, up, part)
		}
	}
}

func FuzzParseBlock(f *testing.F) {
	f.Add(blockID(uploadID("b/1"), 2))
	f.Add(blockID(uploadID("not plain"), 49_999))
	f.Fuzz(func(t *testing.T, id string) {
		up, part, ok := parseBlock(id)
		if !ok {
			return
		}
		if blockID(up, part) != id {
			t.Errorf("%q: got %q %d, which is another", id, up, part)
		}
		if o := originOf(up); o != "" && uploadID(o) != up {
			t.Errorf("%q: got the origin %q, which is another's", id, o)
		}
	})
}
