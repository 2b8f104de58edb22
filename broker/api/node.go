package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/consign-transfer/consign/token"
)

// Limits of the namespace's surface.
const (
	MaxFound    = 1000 // hits of one page of a search
	MaxPosition = 4096 // characters of the cursor of a search
)

// A NodeKind says what a place of the namespace is. An object and a container may have one name.
type NodeKind string

const (
	ObjectNode    NodeKind = "object"
	ContainerNode NodeKind = "container"
)

// An ACE is one entry of an access control list, in the members and words of CDMI. Masks and flags are read as names or numbers, and written as
// names.
type ACE struct {
	Type       string `json:"acetype"` // ALLOW, DENY or AUDIT
	Identifier string `json:"identifier"`
	Flags      string `json:"aceflags"`
	Mask       string `json:"acemask"`
}

// Items are pieces of CDMI metadata by their names: each value is JSON, as it was given.
type Items map[string]json.RawMessage

// A Node is an object or container as the namespace knows it. What the caller may not read is left out.
type Node struct {
	At    token.Location `json:"at"`
	Kind  NodeKind       `json:"kind"`
	ETag  string         `json:"etag"`         // for If-Match; changes whenever anything here does
	Known bool           `json:"known"`        // there is a row of its own; else all is from the containers above
	ID    string         `json:"id,omitempty"` // of CDMI; of a row
	Owner string         `json:"owner,omitempty"`
	// Permissions are those that the caller has here, by their names.
	Permissions []string `json:"permissions"`
	// ACL is the logical list: its own entries, then those that it inherits, with the flag INHERITED. Nil: the caller may not read it.
	ACL []ACE `json:"acl,omitzero"`
	// The metadata are nil where the caller may not read them.
	User     Items     `json:"user_metadata,omitzero"`
	Storage  Items     `json:"storage_metadata,omitzero"` // what is, written by the broker alone
	Data     Items     `json:"data_metadata,omitzero"`    // its own wishes
	Settings []Setting `json:"settings,omitzero"`         // the wishes in force, by name
	// Provided is what of each wish is true, by the name of the wish.
	Provided map[string]Provision `json:"provided,omitzero"`
	// Digest is the BLAKE3 of the object as it was consigned.
	Digest token.Digest `json:"digest,omitempty"`
}

// A Setting is one item of data system metadata that is in force, and where it was said.
type Setting struct {
	Item  string           `json:"item"`
	Value json.RawMessage  `json:"value"`
	From  []token.Location `json:"from"` // one, but for holds, which add up
}

// A NodeBrief is what an Entry of a listing tells of its row.
type NodeBrief struct {
	ID     string       `json:"id"`
	Owner  string       `json:"owner,omitempty"`
	Digest token.Digest `json:"digest,omitempty"`
}

// A NodeChange is what is to be changed of a node, all of it or nothing. A nil or empty member leaves things as they are.
type NodeChange struct {
	ACL   *[]ACE  `json:"acl,omitempty"`   // in place of its own entries; those that are marked INHERITED are passed over
	Owner *string `json:"owner,omitempty"` // its owner may give it to another, and an administrator may take it
	// Metadata replaces all user and data system metadata; Set and Unset change items of them.
	Metadata *Items   `json:"metadata,omitempty"`
	Set      Items    `json:"set,omitempty"`
	Unset    []string `json:"unset,omitempty"`
	// ReleaseHold is a hold that the place has of its own and that goes, for administrators of the provider; nothing else changes with it.
	ReleaseHold string `json:"release_hold,omitempty"`
}

// An Explanation is the walk of a list, entry by entry, and what it came to.
type Explanation struct {
	At        token.Location `json:"at"`
	Kind      NodeKind       `json:"kind"`
	Principal string         `json:"principal"`
	Groups    []string       `json:"groups"` // of the place's provider, that the principal is in; of others those alone that the entries name, but for administrators
	Wanted    []string       `json:"wanted"` // permissions by name
	Granted   bool           `json:"granted"`
	Outcome   string         `json:"outcome"` // allowed, for-owner, for-administrator, denied, unmentioned
	Missing   []string       `json:"missing"`
	Sentence  string         `json:"sentence"`
	Steps     []AccessStep   `json:"steps"` // entries that the caller may read
	Text      string         `json:"text"`  // the same for people
}

// An AccessStep is one entry that a walk came by.
type AccessStep struct {
	At      token.Location `json:"at"`    // where it stands
	Entry   int            `json:"entry"` // there, from 1
	ACE     ACE            `json:"ace"`
	Verdict string         `json:"verdict"` // elsewhere, stranger, silent, allows, denies, audits, unread
	Bits    []string       `json:"bits"`    // what it newly allowed, denied or audits of what was asked for
}

// A Search says what is looked for among the rows of the namespace. All that is said must hold.
type Search struct {
	At     token.Location // what is below it; a provider alone is all its containers
	Name   string         // a pattern as of filters, of names relative to At
	Digest token.Digest
	Item   string // of user metadata; with Value
	Value  string // JSON, or the text of a JSON string
	Cursor string
	Limit  int // hits; 0 is MaxFound
}

// A Found is one hit of a search.
type Found struct {
	At       token.Location `json:"at"`
	Kind     NodeKind       `json:"kind"`
	Node     NodeBrief      `json:"node"`
	Size     int64          `json:"size"`
	Modified time.Time      `json:"modified,omitzero"`
	Metadata Items          `json:"user_metadata,omitempty"`
}

// A Group is identities of any provider that lists of one provider name together.
type Group struct {
	Provider token.Provider `json:"provider"`
	Name     string         `json:"name"`
	Count    int64          `json:"count"` // of its members; 0 where nobody keeps a list of them
	// Reserved groups are kept by nobody: "subscribers" is every subscriber of the provider, and "ADMINUSERS@" its administrators, whom the
	// broker's configuration names.
	Reserved bool `json:"reserved,omitempty"`
}

// A GroupChange says who comes into a group and who leaves it. A group comes to be with its first member, and goes with its last one.
type GroupChange struct {
	Add    []token.Identity `json:"add,omitempty"`
	Remove []token.Identity `json:"remove,omitempty"`
}

// A GroupChanged counts those of a GroupChange who were not in the group before, and those who were.
type GroupChanged struct {
	Added   int `json:"added"`
	Removed int `json:"removed"`
}

func nodePath(rest string, at token.Location, kind NodeKind, more ...string) string {
	return query("/v1/nodes"+rest, append([]string{"at", at.String(), "kind", string(kind)}, more...)...)
}

// Node returns what the namespace knows of a place, as far as the caller may read it. Without a kind it is what there is a row for, an object before
// a container; else an object. problem.NotPermitted or problem.Hidden: nothing of it.
func (c *Client) Node(ctx context.Context, at token.Location, kind NodeKind) (Node, error) {
	var n Node
	err := c.do(ctx, call{method: http.MethodGet, path: nodePath("", at, kind)}, &n)
	return n, err
}

// ChangeNode changes a node and returns it as it is then. With ifMatch, the ETag of a node that was read, problem.Outdated says that somebody
// else was quicker; nothing is changed then, as after any other failure.
func (c *Client) ChangeNode(ctx context.Context, at token.Location, kind NodeKind, change NodeChange, ifMatch string) (Node, error) {
	var n Node
	err := c.do(ctx, call{method: http.MethodPatch, path: nodePath("", at, kind), body: change, match: ifMatch}, &n)
	return n, err
}

// ExplainAccess returns what the lists make of an attempt of who, an identity, at permissions, as a mask in words.
func (c *Client) ExplainAccess(ctx context.Context, at token.Location, kind NodeKind, who, want string) (Explanation, error) {
	var e Explanation
	err := c.do(ctx, call{method: http.MethodGet, path: nodePath("/explain", at, kind, "who", who, "want", want)}, &e)
	return e, err
}

// Find returns a page of what a search found that the caller may see. A page may have few hits, or none, and a Next: a bounded part
// was searched.
func (c *Client) Find(ctx context.Context, s Search) (Page[Found], error) {
	var p Page[Found]
	where := s.At.String()
	if s.At.Container == "" {
		where = string(s.At.Provider)
	}
	path := query("/v1/find", "at", where, "name", s.Name, "digest", string(s.Digest), "item", s.Item, "value", s.Value,
		"cursor", s.Cursor, "limit", number(int64(s.Limit)))
	err := c.do(ctx, call{method: http.MethodGet, path: path}, &p)
	return p, err
}

// Groups returns the groups of a provider by name: to its administrators all, to others those that they are in.
func (c *Client) Groups(ctx context.Context, p token.Provider) (Page[Group], error) {
	var page Page[Group]
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/groups/" + url.PathEscape(string(p))}, &page)
	return page, err
}

func groupPath(p token.Provider, name string) string {
	return "/v1/groups/" + url.PathEscape(string(p)) + "/" + url.PathEscape(name)
}

// Members returns a page of the members of a group, for administrators of its provider and for its members.
func (c *Client) Members(ctx context.Context, p token.Provider, name, cursor string) (Page[token.Identity], error) {
	var page Page[token.Identity]
	err := c.do(ctx, call{method: http.MethodGet, path: query(groupPath(p, name), "cursor", cursor)}, &page)
	return page, err
}

// ChangeGroup puts identities into a group and takes others out of it, for administrators of its provider.
func (c *Client) ChangeGroup(ctx context.Context, p token.Provider, name string, change GroupChange) (GroupChanged, error) {
	var g GroupChanged
	err := c.do(ctx, call{method: http.MethodPatch, path: groupPath(p, name), body: change}, &g)
	return g, err
}

// RemoveGroup removes a group with all its members, for administrators of its provider. Entries of lists that name it are for nobody then.
func (c *Client) RemoveGroup(ctx context.Context, p token.Provider, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: groupPath(p, name)}, nil)
}
