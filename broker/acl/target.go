package acl

// A Kind says what something is: it decides what an entry above is inherited by,
// and the names of permissions.
type Kind uint8

const (
	Object    Kind = iota // data objects, and whatever else holds nothing
	Container             // what holds objects and containers
)

// String returns "object" or "container".
func (k Kind) String() string {
	if k == Container {
		return "container"
	}
	return "object"
}

// A Level is an object or container with what is kept of its own.
type Level struct {
	ACL   ACL // entries that are marked Inherited are not its own and have no effect
	Owner Who // empty: nobody
	Group Who // empty: none
}

// A Target is what somebody wants access to. Path begins with the thing itself and
// goes up, each followed by the container that holds it; it ends with the root
// container, and leaves none out. An object that is in no container has a path of one. The zero value is
// nothing, and nobody has access to it. The caller must not change Path while a decision is made.
type Target struct {
	Kind Kind
	Path []Level
}

// Root reports whether t is a root container.
func (t Target) Root() bool { return t.Kind == Container && len(t.Path) == 1 }

// Parent returns the container that holds t, and whether there is one.
func (t Target) Parent() (Target, bool) {
	if len(t.Path) < 2 {
		return Target{}, false
	}
	return Target{Container, t.Path[1:]}, true
}

// inForce reports whether e, which stands levels above what is asked for, which is of
// kind k, decides about it. Flags that let an entry be inherited travel with it, so
// distance counts for NoPropagate alone; InheritOnly ends where an entry takes effect below.
func (e *ACE) inForce(levels int, k Kind) bool {
	switch {
	case e.Flags&Inherited != 0:
		return false
	case levels == 0:
		return e.Flags&InheritOnly == 0
	case levels > 1 && e.Flags&NoPropagate != 0:
		return false
	case k == Container:
		return e.Flags&ContainerInherit != 0
	}
	return e.Flags&ObjectInherit != 0
}

// Logical returns the entries of t as they are shown: its own in their order, then
// those that it inherits, from the nearest container on, in the order that they have
// there, marked Inherited. One that a container only hands on to its objects has InheritOnly
// too. Entries that have lost their way of being inherited have lost its flags. There may be more than MaxEntries.
func (t Target) Logical() []ACE {
	var shown []ACE
	for levels, l := range t.Path {
		for _, e := range l.ACL.entries {
			if e.Flags&Inherited != 0 {
				continue
			}
			if levels == 0 {
				shown = append(shown, e)
			} else if f, ok := e.handedDown(levels, t.Kind); ok {
				e.Flags = f
				shown = append(shown, e)
			}
		}
	}
	return shown
}

// handedDown returns the flags with which e is shown levels below where it stands,
// on something of kind k, and whether it is shown there at all.
func (e *ACE) handedDown(levels int, k Kind) (Flags, bool) {
	kept := e.Flags&^inheritFlags | Inherited
	switch {
	case e.inForce(levels, k):
		if k == Container && e.Flags&NoPropagate == 0 {
			kept |= e.Flags & (ObjectInherit | ContainerInherit)
		}
		return kept, true
	case k == Container && e.Flags&ObjectInherit != 0 && e.Flags&NoPropagate == 0:
		return kept | ObjectInherit | InheritOnly, true
	}
	return 0, false
}
