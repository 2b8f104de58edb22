package acl_test

import (
	"slices"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// A test for each erratum of the published text that this package has to do with,
// by the numbers of the page "Readings of CDMI" of docs/adr. Each says what the text has and what is
// taken. Those of data system metadata are in broker/space.

// The table of CDMI 1.0.1 prints 0x0010000, a zero short, which is DELETE. Taken: 0x00100000.
func TestErratum01SynchronizeIsNotDelete(t *testing.T) {
	t.Parallel()
	if acl.Synchronize != 0x00100000 || mask(t, "SYNCHRONIZE") != acl.Synchronize || mask(t, "CDMI_ACE_SYNCHRONIZE") != 0x00100000 {
		t.Errorf("got %s", acl.Synchronize.Hex())
	}
	if got := mask(t, "0x0010000"); got != acl.Delete {
		t.Errorf("got %s, want the number to be what it says: DELETE", got)
	}
}

// Example 3 adds 0x00100000 for DELETE and arrives at 0x000701DF. Taken: DELETE is
// 0x00010000, and the sum is what is printed.
func TestErratum02Example3(t *testing.T) {
	t.Parallel()
	if got := mask(t, "RW_ALL | DELETE"); got != 0x000701DF {
		t.Errorf("got %s, want 0x000701DF", got.Hex())
	}
	if got := mask(t, "0x000601DF | 0x00100000"); got != 0x001601DF {
		t.Errorf("got %s, want 0x001601DF", got.Hex())
	}
}

// Example 1 ends in "0x0" in later versions. Taken: 0x0B, as the first version has it and as it adds up.
func TestErratum03Example1(t *testing.T) {
	t.Parallel()
	if got := mask(t, "READ_ALL | 0x02"); got != 0x0B {
		t.Errorf("got %s, want 0x0000000B", got.Hex())
	}
}

// The grammar gives EXECUTE as 0x80000, which is WRITE_OWNER. Taken: 0x20.
func TestErratum04ExecuteIsNotWriteOwner(t *testing.T) {
	t.Parallel()
	if got := mask(t, "CDMI_ACE_EXECUTE"); got != 0x20 {
		t.Errorf("got %s, want 0x00000020", got.Hex())
	}
	if got := acl.Mask(0x80000).String(); got != "WRITE_OWNER" {
		t.Errorf("got %s for 0x80000", got)
	}
}

// The grammar has CDMI_ACE_SET_RETENTION = 0x10000000, which is in no table. Taken: name and
// number are refused, with what to write instead; granting both of them in its place would be a guess.
func TestErratum05SetRetention(t *testing.T) {
	t.Parallel()
	_, err := acl.ParseMask("CDMI_ACE_SET_RETENTION")
	refused(t, err, problem.Malformed, "WRITE_RETENTION", "WRITE_RETENTION_HOLD")
	_, err = acl.ParseMask("0x10000000")
	refused(t, err, problem.Malformed, "0x10000000")
	if mask(t, "WRITE_RETENTION") != 0x200 || mask(t, "WRITE_RETENTION_HOLD") != 0x400 {
		t.Error("the two permissions are not those of NFSv4.1")
	}
}

// ALL_PERMS is 0x1007FFFF in 1.0.1, which lacks two permissions and has six bits that are none. Taken:
// 0x001F07FF; the old number is read as that, and never written.
func TestErratum06AllPerms(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"ALL_PERMS", "CDMI_ACE_ALL", "0x1007FFFF", "0x001F07FF", "ALL_PERMS | WRITE_OWNER", "0x1007FFFF | WRITE_OWNER"} {
		if got := mask(t, s); got != 0x001F07FF || got.Text(acl.Container) != "ALL_PERMS" || got.Hex() != "0x001F07FF" {
			t.Errorf("%s: got %s", s, got.Hex())
		}
	}
	_, err := acl.ParseMask("0x1007FFFE") // near it is not it
	refused(t, err, problem.Malformed, "0x10000000")
}

// The text XORs masks, so that what two entries grant is granted by neither. Taken: OR.
func TestErratum07TwoGrantsAreNoneLess(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object, "ALLOW alice 0x0 READ_OBJECT; ALLOW alice 0x0 READ_OBJECT, READ_METADATA", none)
	if d := acl.Evaluate(alice, tgt, acl.ReadObject|acl.ReadMetadata); d.Outcome != acl.Allowed {
		t.Errorf("got %+v", d)
	}
}

// The text denies on any requested bit; NFSv4 only on one that is not allowed yet.
// Taken: the text as it stands, which denies more.
func TestErratum08DenyOfWhatWasAllowed(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object, "ALLOW alice 0x0 READ_OBJECT; DENY alice 0x0 READ_OBJECT; ALLOW alice 0x0 WRITE_OBJECT", none)
	if d := acl.Evaluate(alice, tgt, acl.ReadObject|acl.WriteObject); d.Outcome != acl.Denied {
		t.Errorf("got %+v, want denied where NFSv4 would grant", d)
	}
	for _, m := range []acl.Mask{acl.ReadObject, acl.WriteObject} { // a single bit makes no difference
		if d := acl.Evaluate(alice, tgt, m); d.Outcome != acl.Allowed {
			t.Errorf("%s: got %+v", m, d)
		}
	}
}

// The text clears CONTAINER_INHERIT on the child, so that nothing would reach a grandchild. Taken:
// it stays, and INHERIT_ONLY ends where the entry takes effect.
func TestErratum09ContainersHandOn(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{"CONTAINER_INHERIT", "CONTAINER_INHERIT,INHERIT_ONLY", "CONTAINER_INHERIT,OBJECT_INHERIT,INHERIT_ONLY"} {
		tgt := target(t, acl.Container, none, none, none, "ALLOW alice "+flags+" 0x1", none)
		if d := acl.Evaluate(alice, tgt, 1); d.Outcome != acl.Allowed {
			t.Errorf("%s: got %+v three levels below", flags, d)
		}
	}
}

// The text says that NO_PROPAGATE is not inherited at all. Taken: NFSv4, direct children inherit it, nobody below them.
func TestErratum10NoPropagate(t *testing.T) {
	t.Parallel()
	const entry = "ALLOW alice OBJECT_INHERIT,CONTAINER_INHERIT,NO_PROPAGATE 0x1"
	for _, kind := range []acl.Kind{acl.Object, acl.Container} {
		if d := acl.Evaluate(alice, target(t, kind, none, entry, none), 1); d.Outcome != acl.Allowed {
			t.Errorf("%s, a child: got %+v", kind, d)
		}
		if d := acl.Evaluate(alice, target(t, kind, none, none, entry, none), 1); d.Granted() {
			t.Errorf("%s, a grandchild: got %+v", kind, d)
		}
	}
}

// The grammar of 1.0.1 has a fifth member acetime, of which no text says what it does. Taken:
// four members; it is refused, not dropped in silence.
func TestErratum11NoTimeOfAnEntry(t *testing.T) {
	t.Parallel()
	_, err := acl.Parse([]byte(`[{"acetype":"0x00","identifier":"alice","aceflags":"0x00","acemask":"0x01","acetime":"0x00"}]`))
	refused(t, err, problem.UnknownField, `"acetime"`)
}

// The text speaks of two types, its table has three. Taken: three.
func TestErratum12Audit(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object, "AUDIT alice 0x0 0x1; ALLOW alice 0x0 0x1", none)
	if d := acl.Evaluate(alice, tgt, 1); d.Outcome != acl.Allowed || d.Audited != 1 {
		t.Errorf("got %+v", d)
	}
}

// The grammar lacks flags and permissions of the tables, and names others otherwise.
// Taken: all of the tables, by both names.
func TestErratum13BothNames(t *testing.T) {
	t.Parallel()
	a, err := acl.Parse([]byte(`[{"acetype":"CDMI_ACE_ACCESS_DENIED_TYPE","identifier":"eng",` +
		`"aceflags":"CDMI_ACE_OBJECT_INHERIT_ACE | CDMI_ACE_FLAGS_IDENTIFIER_GROUP | INHERITED","acemask":"CDMI_ACE_WRITE_OWNER | SYNCHRONIZE"}]`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := acl.Parse([]byte(`[{"acetype":"CDMI_ACE_ACCESS_DENY","identifier":"eng",` +
		`"aceflags":"CDMI_ACE_FLAGS_OBJECT_INHERIT_ACE, IDENTIFIER_GROUP, CDMI_ACE_FLAGS_INHERITED_ACE","acemask":"0x00180000"}]`))
	if err != nil || !a.Equal(b) {
		t.Errorf("got %s and %s, %v", a.Marshal(), b.Marshal(), err)
	}
}

// 1.1.1 refuses readers of "non-attribute fields" who lack READ_ATTRIBUTES. Taken: readers of attribute fields.
func TestErratum14ReadAttributes(t *testing.T) {
	t.Parallel()
	if got := acl.Readable(acl.AllPerms&^acl.ReadAttributes, acl.Attributes, acl.Value); !slices.Equal(got, []acl.Part{acl.Value}) {
		t.Errorf("got %v, want the value and no attributes", got)
	}
}

// 1.1.1 refuses writers of "non-attribute fields" who lack WRITE_ATTRIBUTES. Taken: writers of attribute fields.
func TestErratum15WriteAttributes(t *testing.T) {
	t.Parallel()
	if got := acl.Writable(acl.AllPerms&^acl.WriteAttributes, acl.Attributes, acl.Value); !slices.Equal(got, []acl.Part{acl.Attributes}) {
		t.Errorf("got %v denied, want the attributes alone", got)
	}
}

// The table has RW_ALL = 0x0006006F, which lacks a bit of RW and grants EXECUTE; the example 0x000601DF. READ is
// used and defined nowhere. Taken: the example's; READ = 0x89, without READ_ACL; neither is ever written.
func TestErratum16Composites(t *testing.T) {
	t.Parallel()
	if m := mask(t, "RW_ALL"); m != 0x000601DF || m&acl.RW != acl.RW || m&acl.Execute != 0 {
		t.Errorf("RW_ALL: got %s", m.Hex())
	}
	if m := mask(t, "READ"); m != 0x89 || m&acl.ReadACL != 0 {
		t.Errorf("READ: got %s", m.Hex())
	}
	for _, m := range []acl.Mask{acl.RWAll, acl.Read, acl.ReadAll, 0x0006006F} {
		for _, name := range m.Names(acl.Object) {
			if name == "RW_ALL" || name == "READ" || name == "READ_ALL" {
				t.Errorf("%s is written as %s", m.Hex(), name)
			}
		}
	}
}

// The default list of an object has flags that mean nothing on objects. Taken: kept as given, without effect.
func TestErratum17FlagsOnObjects(t *testing.T) {
	t.Parallel()
	a := acl.Default()
	for _, e := range a.All() {
		if e.Flags != acl.ObjectInherit|acl.ContainerInherit {
			t.Errorf("got the flags %s", e.Flags)
		}
	}
	tgt := acl.Target{Path: []acl.Level{{ACL: a, Owner: "olga"}, {}}}
	if d := acl.Evaluate(olga, tgt, acl.AllPerms); d.Outcome != acl.Allowed {
		t.Errorf("got %+v", d)
	}
	if shown := tgt.Logical(); len(shown) != 1 || shown[0].Flags != acl.ObjectInherit|acl.ContainerInherit {
		t.Errorf("got %v, want it as it was given", shown)
	}
}
