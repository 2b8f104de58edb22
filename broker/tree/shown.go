package tree

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
)

// ETag returns what names the state of s in conditional requests: 16 characters of base64url between quotes. It changes whenever something
// changes that is shown of s, inherited or its own; but for how often and when it was read last.
func (t *Tree) ETag(s Spot) string {
	h := sha256.New()
	n := s.Node
	fmt.Fprintf(h, "%q %d %d %d %d", n.ID, n.Rev, n.Size, n.Objects, s.Kind)
	for _, c := range s.above {
		fmt.Fprintf(h, " %q %q %q", c.node.Owner, c.node.ACL, c.node.Data)
	}
	if !s.Known || n.Owner == "" {
		fmt.Fprintf(h, " %q", s.Owner())
	}
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12]) + `"`
}

// StorageMetadata returns what CDMI calls storage system metadata, in its forms: cdmi_owner and cdmi_acl always but for an owner that nobody is, and of
// what has a row cdmi_ctime, cdmi_atime, cdmi_mtime, cdmi_acount, cdmi_mcount, and cdmi_size and cdmi_hash where they are known. The list is the whole
// one, with what is inherited. Who is not granted READ_ACL must not be shown cdmi_acl.
func (t *Tree) StorageMetadata(s Spot) space.Metadata {
	m := space.Metadata{space.ItemACL: space.Value(MarshalList(s.Target.Logical()))}
	if o := s.Owner(); o != "" {
		m[space.ItemOwner] = text(string(o))
	}
	if !s.Known {
		return m
	}
	n := s.Node
	m["cdmi_ctime"], m["cdmi_atime"], m["cdmi_mtime"] = instant(n.Created), instant(n.Accessed), instant(n.Modified)
	m["cdmi_acount"], m["cdmi_mcount"] = number(n.Accesses), number(n.Changes)
	if n.Size != db.UnknownSize {
		m["cdmi_size"] = number(n.Size)
	}
	if n.Hash != "" && s.Settings.Has(space.Hash) && s.Settings.Hash == n.HashKind {
		m["cdmi_hash"] = text(n.Hash)
	}
	return m
}

// UserMetadata returns the user metadata of s.
func (t *Tree) UserMetadata(s Spot) (space.Metadata, error) { return t.kept(s, s.Node.User) }

// DataMetadata returns the data system metadata that s has of its own; Spot.Settings is what is in force.
func (t *Tree) DataMetadata(s Spot) (space.Metadata, error) { return t.kept(s, s.Node.Data) }

func (t *Tree) kept(s Spot, as string) (space.Metadata, error) {
	m, err := metadata(as)
	if err != nil {
		return nil, damaged(s.At, err)
	}
	return m, nil
}

// MarshalList returns entries in the form of acl.Marshal, also more than a list may have: what is inherited over many levels.
func MarshalList(entries []acl.ACE) []byte {
	var b strings.Builder
	b.WriteByte('[')
	for part := range slices.Chunk(entries, acl.MaxEntries) {
		list, err := acl.New(part...)
		if err != nil {
			panic("tree: internal error: an entry that was kept is not one: " + err.Error())
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		text := list.Marshal()
		b.Write(text[1 : len(text)-1])
	}
	b.WriteByte(']')
	return []byte(b.String())
}

func text(s string) space.Value {
	b, err := json.Marshal(s)
	if err != nil {
		panic("tree: internal error: a string has no JSON: " + err.Error())
	}
	return space.Value(b)
}

func instant(t time.Time) space.Value { return text(space.FormatTime(t)) }
func number(n int64) space.Value      { return text(strconv.FormatInt(n, 10)) }
