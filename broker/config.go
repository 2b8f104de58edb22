package broker

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// minCapabilityLife leaves room for a renewal at two thirds of it while a broker starts again.
const minCapabilityLife = time.Minute

// Config is all that an operator decides. Required: Identity, Trust, Providers, State. The
// zero value of every other field is its default.
type Config struct {
	// Identity is the broker's own certificate, of role broker. Its key serves TLS alone.
	Identity *certs.Pair
	// Trust judges every subscriber and agent. It must know the domain of each provider.
	Trust *certs.Trust
	// Providers lists the providers between which this broker moves objects, at least one.
	Providers []token.Provider
	// State is the folder of the capability key and the database, which Init made. Nothing
	// else may write there but CreateNextKey and ReplaceKey, and it must not be on a network file system.
	State string

	// CapabilityLife is how long a capability is valid; 15 min by default, 1 min to 6 h. The shorter, the
	// sooner a broker that is switched off stops its agents.
	CapabilityLife time.Duration
	// KeyAhead is how long a new capability key is published before it signs; 20 min by default, which is twice the time after
	// which agents ask for keys.
	KeyAhead time.Duration
	// LeaseGrace is how long an agent may be away before its batches may go to
	// another agent of its provider; 10 min by default. They also wait for the end of the capability.
	LeaseGrace time.Duration
	// UnmatchedAfter is how long the destination's receipt waits for the source's before its outcomes
	// count without it; 24 h by default.
	UnmatchedAfter time.Duration
	// MaxReady is how many batches of one transfer wait for agents before its listing pauses; 32 by default.
	MaxReady int
	// LookupWait is how long a lookup waits for an agent; 20 s by default.
	LookupWait time.Duration

	// Places says where stores are: a Location without container is for all containers of its provider, one with a container for that
	// alone, and counts more. It binds only where the agents say the same; no place at all is unknown. Optional.
	Places map[token.Location]space.Region
	// Space is what there is to decide of the namespace: administrators, who must be of Providers, limits of user metadata, and the
	// enterprise number. By default there is no administrator, and no limit but those of broker/space.
	Space tree.Config

	// AuditKeep is how long audit records stay in the database; older ones are moved to files of the folder audit in State, about a day a
	// file. 0: for ever.
	AuditKeep time.Duration

	// Courier calls webhooks. Optional: without one there are none.
	Courier Courier

	// Version is what the broker says of its program. Optional.
	Version string
	// Log takes what operators must know; nothing by default. Outside data is only in fields.
	Log *zap.Logger
}

// Check returns problem.BadConfig naming the first field that is wrong, or nil. It touches neither disk nor network.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults returns c with every default filled in, or problem.BadConfig naming the field.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Identity == nil:
		return c, problem.New(problem.BadConfig, "The broker has no identity")
	case c.Identity.Identity().Role() != token.Broker:
		return c, problem.New(problem.BadConfig, "The broker's certificate is of role %q, not %q", c.Identity.Identity().Role(), token.Broker)
	case c.Trust == nil:
		return c, problem.New(problem.BadConfig, "The broker trusts nobody: there are no trust bundles")
	case len(c.Providers) == 0:
		return c, problem.New(problem.BadConfig, "The broker serves no provider")
	case c.State == "":
		return c, problem.New(problem.BadConfig, "The broker has no state folder")
	case c.CapabilityLife != 0 && (c.CapabilityLife < minCapabilityLife || c.CapabilityLife > token.MaxCapabilityLife):
		return c, problem.New(problem.BadConfig, "The capability life %s is not from %s to %s", c.CapabilityLife, minCapabilityLife, token.MaxCapabilityLife)
	case c.KeyAhead < 0 || c.LeaseGrace < 0 || c.UnmatchedAfter < 0 || c.MaxReady < 0 || c.LookupWait < 0 || c.AuditKeep < 0:
		return c, problem.New(problem.BadConfig, "A duration or number of the broker is negative")
	}
	known := map[token.Provider]bool{}
	for _, p := range c.Trust.Providers() {
		known[p] = true
	}
	for _, p := range c.Providers {
		if !known[p] {
			return c, problem.New(problem.BadConfig, "There is no trust bundle for the provider %q", p)
		}
	}
	if err := c.checkPlaces(); err != nil {
		return c, err
	}
	if _, err := tree.New(c.Space); err != nil {
		return c, err
	}
	for _, id := range c.Space.Administrators {
		if !slices.Contains(c.Providers, id.Provider()) {
			return c, problem.New(problem.BadConfig, "The administrator %s is of no provider that the broker serves", id)
		}
	}
	setDefault(&c.CapabilityLife, 15*time.Minute)
	setDefault(&c.KeyAhead, 20*time.Minute)
	setDefault(&c.LeaseGrace, 10*time.Minute)
	setDefault(&c.UnmatchedAfter, 24*time.Hour)
	setDefault(&c.MaxReady, 32)
	setDefault(&c.LookupWait, 20*time.Second)
	setDefault(&c.Version, "unknown")
	setDefault(&c.Log, zap.NewNop())
	return c, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
