package acl

// A Deletion is what CheckDelete comes to: two decisions, of which both must grant.
type Deletion struct {
	Self   Decision // DELETE on the object or container itself
	Parent Decision // DELETE_OBJECT or DELETE_SUBCONTAINER on what holds it
}

// Granted reports whether both decisions grant.
func (d Deletion) Granted() bool { return d.Self.Granted() && d.Parent.Granted() }

// CheckDelete decides whether p may delete t. It takes DELETE on t, and DELETE_OBJECT or
// DELETE_SUBCONTAINER on the container that holds it; one of them alone does not do. Where no container
// holds t, Parent is Allowed by no entry. It does not look at what t holds, nor at retention and holds.
func CheckDelete(p Principal, t Target) Deletion {
	d := Deletion{Self: Evaluate(p, t, Delete), Parent: Decision{Outcome: Allowed, At: nowhere}}
	if parent, ok := t.Parent(); ok {
		d.Parent = Evaluate(p, parent, DeleteObject) // by its other name DELETE_SUBCONTAINER
	}
	return d
}

// CheckOwner decides whether p may make owner the owner of t. The owner itself may,
// with WRITE_OWNER; an administrator may take ownership and nothing else, without an
// entry that says so, which is to be recorded. Nobody else may, WRITE_OWNER or not, and
// nobody may give t to a special identifier.
func CheckOwner(p Principal, t Target, owner Who) Decision {
	d := Evaluate(p, t, WriteOwner)
	refused := Decision{Outcome: Unmentioned, Missing: WriteOwner, At: nowhere, Audited: d.Audited}
	switch {
	case len(t.Path) == 0 || owner == "" || owner.Special():
		return refused
	case p.owns(&t.Path[0]) && d.Granted():
		return d
	case p.administrates() && owner == p.Name:
		return Decision{Outcome: ForAdministrator, Missing: WriteOwner, At: nowhere, Audited: d.Audited}
	case d.Granted():
		return refused
	}
	return d
}
