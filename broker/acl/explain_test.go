package acl_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

// TestExplanation is the whole page that a walk is shown as.
func TestExplanation(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object,
		"ALLOW carol 0x0 READ_OBJECT; ALLOW bob INHERIT_ONLY ALL_PERMS; AUDIT bob 0x0 RW; ALLOW bob INHERITED 0x1; ALLOW bob 0x0 READ_OBJECT; ALLOW bob 0x0 READ_OBJECT",
		"ALLOW bob CONTAINER_INHERIT DELETE_SUBCONTAINER; ALLOW bob OBJECT_INHERIT READ_ACL",
		"ALLOW bob OBJECT_INHERIT,NO_PROPAGATE READ; DENY eng OBJECT_INHERIT,IDENTIFIER_GROUP WRITE_OBJECT, DELETE; ALLOW \"a b\" OBJECT_INHERIT 0x0; ALLOW bob OBJECT_INHERIT RW")
	got := acl.Explain(bob, tgt, acl.ReadObject|acl.WriteObject).Text("north:/c/x", "", "north:/")
	const want = `bob asks for WRITE_OBJECT, READ_OBJECT on north:/c/x
  north:/c/x  1  ALLOW  carol   NO_FLAGS                          READ_OBJECT           not for bob
  north:/c/x  2  ALLOW  bob     INHERIT_ONLY                      ALL_PERMS             only to be inherited
  north:/c/x  3  AUDIT  bob     NO_FLAGS                          RW                    audits WRITE_OBJECT, READ_OBJECT
  north:/c/x  4  ALLOW  bob     INHERITED                         READ_OBJECT           marked as inherited, but stands here: no effect
  north:/c/x  5  ALLOW  bob     NO_FLAGS                          READ_OBJECT           allows READ_OBJECT
  north:/c/x  6  ALLOW  bob     NO_FLAGS                          READ_OBJECT           allows what is allowed already
  its parent  1  ALLOW  bob     CONTAINER_INHERIT                 DELETE_SUBCONTAINER   not inherited by objects
  its parent  2  ALLOW  bob     OBJECT_INHERIT                    READ_ACL              names nothing of it
  north:/     1  ALLOW  bob     NO_PROPAGATE, OBJECT_INHERIT      READ_ATTRIBUTES, READ_METADATA, LIST_CONTAINER  inherited by direct children alone
  north:/     2  DENY   eng     IDENTIFIER_GROUP, OBJECT_INHERIT  DELETE, ADD_OBJECT    denies WRITE_OBJECT
  north:/     3  ALLOW  "a b"   OBJECT_INHERIT                    0x00000000            not for bob
  north:/     4  ALLOW  bob     OBJECT_INHERIT                    RW                    not read: already decided
bob does not get WRITE_OBJECT on north:/c/x: entry 2 of north:/ denies it.
The attempt at WRITE_OBJECT, READ_OBJECT is to be recorded.
`
	if squeeze(got) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	lines := strings.Split(got, "\n")
	if strings.Index(lines[1], "not for bob") != strings.Index(lines[10], "denies") || strings.Index(lines[1], "ALLOW") != strings.Index(lines[12], "ALLOW") {
		t.Errorf("the columns do not stand below each other:\n%s", got)
	}
}

// squeeze makes every run of spaces one.
func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	return strings.Join(lines, "\n")
}

func TestSentences(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind  acl.Kind
		lists []string
		who   acl.Principal
		ask   acl.Mask
		want  string
	}{
		{acl.Object, []string{"ALLOW alice 0x0 0x1", none}, alice, 3, "alice does not get WRITE_OBJECT on itself: no entry allows it."},
		{acl.Container, []string{none, none}, alice, 2, "alice does not get ADD_OBJECT on itself: no entry allows it."},
		{acl.Object, []string{none, none, none, "DENY EVERYONE@ OBJECT_INHERIT 0x1"}, anonymous, 1, "somebody anonymous does not get READ_OBJECT on itself: entry 1 of 3 levels up denies it."},
		{acl.Object, []string{none, "ALLOW alice OBJECT_INHERIT 0x1"}, alice, 1, "alice gets READ_OBJECT on itself: entry 1 of its parent allows the last of it."},
		{acl.Container, []string{"ALLOW olga 0x0 LIST_CONTAINER"}, olga, 3, "olga gets ADD_OBJECT, LIST_CONTAINER on itself as the owner of a root container: no entry allows ADD_OBJECT."},
		{acl.Container, []string{none}, root, 1, "root gets LIST_CONTAINER on itself as an administrator at a root container: no entry allows LIST_CONTAINER."},
		{acl.Object, []string{none, none}, alice, 0, "alice asked for nothing on itself."},
	} {
		if got := acl.Explain(tc.who, target(t, tc.kind, tc.lists...), tc.ask).Sentence(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// TestNamesDoNotWriteToATerminal: whatever is called how it likes, the page is lines of plain text.
func TestNamesDoNotWriteToATerminal(t *testing.T) {
	t.Parallel()
	evil := acl.Who("a\u202e\u2028b")
	a, err := acl.New(acl.ACE{Who: evil, Mask: 1})
	if err != nil {
		t.Fatal(err)
	}
	page := acl.Explain(named("x\x1b[2J\n"), acl.Target{Path: []acl.Level{{ACL: a}, {}}}, 1).Text("c/\x1b]0;owned\a", "\r")
	for _, r := range page + a.Text(acl.Object) {
		if r != '\n' && (r < ' ' || r > '~') {
			t.Fatalf("got %q", page)
		}
	}
	if again, err := acl.ParseText(a.Text(acl.Object)); err != nil || !again.Equal(a) {
		t.Errorf("got %v, %v", again, err)
	}
}

func TestWhyAnEntryIsNotInherited(t *testing.T) {
	t.Parallel()
	const entry = "ALLOW alice OBJECT_INHERIT,NO_PROPAGATE 0x1"
	for want, tgt := range map[string]acl.Target{
		"not inherited by containers":        target(t, acl.Container, none, entry, none),
		"inherited by direct children alone": target(t, acl.Object, none, none, entry),
		"not inherited by objects":           target(t, acl.Object, none, none, "ALLOW alice NO_PROPAGATE 0x1"),
	} {
		if page := acl.Explain(alice, tgt, 1).Text(); !strings.Contains(page, want) {
			t.Errorf("got %s, want %q in it", page, want)
		}
	}
}

// TestExplanationHasEveryEntry, in the order of the walk.
func TestExplanationHasEveryEntry(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object, "DENY bob 0x0 0x1; ALLOW bob 0x0 0x1", "ALLOW bob OBJECT_INHERIT 0x1", none, "AUDIT bob OBJECT_INHERIT 0x1")
	e := acl.Explain(bob, tgt, 1)
	want := []struct {
		at      acl.Place
		verdict acl.Verdict
		bits    acl.Mask
	}{
		{acl.Place{Level: 0, Entry: 0}, acl.Denies, 1}, {acl.Place{Level: 0, Entry: 1}, acl.Unread, 0},
		{acl.Place{Level: 1, Entry: 0}, acl.Unread, 0}, {acl.Place{Level: 3, Entry: 0}, acl.Audits, 1},
	}
	if len(e.Steps) != len(want) {
		t.Fatalf("got %d steps, want %d", len(e.Steps), len(want))
	}
	for i, w := range want {
		if s := e.Steps[i]; s.At != w.at || s.Verdict != w.verdict || s.Bits != w.bits {
			t.Errorf("step %d: got %+v, want %+v", i, s, w)
		}
	}
}
