package store

import (
	"context"

	"github.com/consign-transfer/consign/token"
)

// A Method is a way in which a store wipes bytes before it gives their space back, in the words of cdmi_sanitization_method. The empty Method is
// none: what was stored is given back as it is.
type Method string

// Overwrite is zeros over the whole content, durable, before the last name goes.
const Overwrite Method = "overwrite"

// An Eraser is what of a Store removes. Nothing here ever removes more than the one thing that is named.
type Eraser interface {
	// Erase removes the object name if it has that version: else problem.Changed, and problem.Missing if it is gone.
	Erase(ctx context.Context, name token.ObjectName, version token.Version) error
	// Wipe is Erase and destroys the bytes by a method. The name goes first, durably: who sees the name sees the whole object. If it was ended
	// in between, what is left is a Leftover of w.Batch, and the same Wipe goes on with it, though the name be gone or another's.
	// problem.Unsanitizable if the store does not have the method, and problem.Claimed for bytes that have another name too, which
	// would be destroyed there as well. A nil error says that the bytes are overwritten durably, as far as the store is told.
	Wipe(ctx context.Context, w Wiping) error
	// Unmake removes the subtree name if nothing is in it: else problem.NotEmpty. problem.Missing if there is no such subtree, be it an object. Durable
	// when it returns.
	Unmake(ctx context.Context, name token.ObjectName) error
	// Methods are those that Wipe takes; none if the store cannot promise any.
	Methods() []Method
	// Sanitize says how stages that are thrown away from now on are wiped, whether by Discard, by Drop or after a failure. A stage that cannot be
	// wiped because its medium fails is removed all the same; a Method that the store does not have changes nothing.
	Sanitize(m Method)
}

// A Wiping asks for one object to be removed and its bytes to be destroyed.
type Wiping struct {
	Name    token.ObjectName
	Version token.Version
	Method  Method
	Batch   BatchID // whose leftover it is until it is done; of one Wiping alone
}
