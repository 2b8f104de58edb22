package agent

import (
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api/reach"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Defaults and limits of a Config. Counts.
const (
	DefaultLanes          = 4
	MaxLanes              = 64
	DefaultWantersPerLane = 2
	MaxWantersPerLane     = 8
	DefaultSlots          = 4
	MaxSlots              = 64
	MaxExports            = 1024
	MaxBrokers            = 64
)

// A Config is everything an agent is told. Its zero value serves nobody; fields without "Optional" are required.
// It is read once, at Open; only the files behind Pair and Trust are
// read again while the agent runs, by whoever calls their Reload, and policy by whoever calls SetPolicy.
type Config struct {
	// Pair is the agent's certificate and key, of role agent. Statements are signed with its key.
	Pair *certs.Pair
	// Trust holds the roots of the own provider (whose subscribers sign orders), of every provider
	// whose agents are peers, and of the brokers' domains.
	Trust *certs.Trust
	// Brokers may give tasks. At least one, at most MaxBrokers, each with its own identity.
	Brokers []Broker
	// Exports are the containers that are served, and for whom; SetPolicy replaces the latter while the agent runs. An agent
	// without exports is refused.
	Exports []Export
	// Groups are the groups of subscribers that rules of Exports name. Optional.
	Groups policy.Groups
	// State is the directory of journals, spent marks and cached keys. It is made if
	// it does not exist, and belongs to one agent alone.
	State string
	// Listen is the UDP address that peers dial, for example ":4433". Optional: empty means that
	// this agent only dials, so that it can receive but not serve.
	Listen string
	// Advertise holds the host:port that peers are told to dial. Optional: empty
	// means the address that Listen was bound to, which must then not be the unspecified one.
	Advertise []string
	// Dial says which addresses may be dialled. Optional: the zero value is any address but those
	// that DialPolicy names.
	Dial DialPolicy
	// Lanes is the number of connections to one peer. Optional: 0 is DefaultLanes; at most MaxLanes.
	Lanes int
	// WantersPerLane is how many wants are under way on one lane for one batch. Optional: 0 is
	// DefaultWantersPerLane; at most MaxWantersPerLane. Memory is a chunk for each wanter, lane and slot.
	WantersPerLane int
	// Slots is how many batches run at once as source, and as many as destination. Optional: 0 is
	// DefaultSlots; at most MaxSlots.
	Slots int
	// Rate bounds what this agent receives, and what it sends, in bytes a second each. Optional: 0 is no limit.
	Rate int64
	// Version is told to brokers and peers. Optional.
	Version string
	// Logger takes the agent's log. Optional: nil is silence.
	Logger *zap.Logger
	// Metrics takes the agent's counters. Optional: nil is none.
	Metrics prometheus.Registerer

	hooks hooks
}

// hooks let a test stand in for what lies around the agent; the zero value is the real world.
type hooks struct {
	state  disk.FS                                       // instead of a file system rooted at State
	boot   string                                        // instead of the kernel's boot id
	broker func(Broker) control                          // instead of the HTTP client
	moved  func(what string, item int, chunk int64) bool // called after each part is journalled, with its first chunk; false ends the want
	quick  bool                                          // waits and intervals of seconds become milliseconds
	settle time.Duration                                 // instead of store.Settle; 0 is that
	memory int64                                         // instead of stageMemory; 0 is that
	ahead  int64                                         // instead of aheadMemory; 0 is that
}

// A Broker is one that may give tasks to this agent.
type Broker struct {
	ID  token.Identity // of role broker; its certificate must name exactly this
	URL string         // base of its HTTP surface, for example https://broker.example:8443
}

// An Export is a container that an agent serves, and for whom: by Rules, or, without them, by one rule that Read, Create and
// Subscribers spell. The store's own credentials are never the check.
type Export struct {
	Container token.Container
	Store     store.Store // closed by the owner, after Run has returned
	Read      bool        // its objects may be listed and read
	Create    bool        // objects may be created in it
	// Unsafe lets objects be created in a store that does not create exclusively, as Probe measures it: then only this agent's own
	// look before it creates keeps a name from being made twice, and every receipt of the container says so. Each start warns.
	Unsafe bool
	// Subscribers of the own provider that may use it; empty is every one of them.
	Subscribers []token.Identity
	// Rules say who may do what below which name; the first that fits decides. Optional: then Read, Create and Subscribers do.
	Rules []policy.Rule
	// Brokers that may use it; empty is every configured one.
	Brokers []token.Identity
	// Place is where the store is. Brokers are told; optional: empty says nothing.
	Place space.Region
	// Owner is whose the container is, for brokers that know no owner of it yet. Optional: empty says nothing.
	Owner token.Identity
	// Session are the brokers on whose word alone, without an order that the account signed, the rules apply. Empty is none.
	Session []token.Identity
}

// A DialPolicy says which addresses of peers may be dialled. It is asked about the address
// that a name resolved to, just before dialling, so that a name cannot be changed in between.
//
// Without Allow every address may be dialled but loopback, link-local (which holds the metadata
// services of clouds), multicast, broadcast and unspecified ones, also as a gateway from IPv6 to IPv4 carries them. With Allow only
// addresses within one of its prefixes may be.
type DialPolicy struct {
	Allow []netip.Prefix
}

// Permits returns nil if addr may be dialled and problem.PolicyRefused otherwise.
func (p DialPolicy) Permits(addr netip.Addr) error {
	addr = addr.Unmap()
	if len(p.Allow) > 0 {
		if slices.ContainsFunc(p.Allow, func(n netip.Prefix) bool { return n.Contains(addr.WithZone("")) }) {
			return nil
		}
		return problem.New(problem.PolicyRefused, "The peer's address is not one that this agent may dial")
	}
	if reach.Inner(addr) {
		return problem.New(problem.PolicyRefused, "The peer's address is a loopback, link-local, multicast or metadata address, which this agent dials only if its dial.allow names it")
	}
	return nil
}

// Check returns problem.BadConfig naming the first setting that is wrong, or nil. It touches neither disk nor network.
func (c Config) Check() error {
	if c.Pair == nil || c.Trust == nil {
		return problem.New(problem.BadConfig, "An agent needs a certificate and trust bundles")
	}
	if id := c.Pair.Identity(); id.Role() != token.Agent {
		return problem.New(problem.BadConfig, "The certificate names %s, which is not an agent", id)
	}
	if c.State == "" && c.hooks.state == nil {
		return problem.New(problem.BadConfig, "An agent needs a state directory")
	}
	for _, n := range []struct {
		name     string
		got, max int
	}{{"lanes", c.Lanes, MaxLanes}, {"wanters per lane", c.WantersPerLane, MaxWantersPerLane}, {"slots", c.Slots, MaxSlots}} {
		if n.got < 0 || n.got > n.max {
			return problem.New(problem.BadConfig, "The number of %s is %d and must be from 0 to %d", n.name, n.got, n.max)
		}
	}
	if c.Rate < 0 {
		return problem.New(problem.BadConfig, "The rate is negative")
	}
	if err := c.checkBrokers(); err != nil {
		return err
	}
	return c.checkExports()
}

func (c Config) checkBrokers() error {
	if len(c.Brokers) == 0 || len(c.Brokers) > MaxBrokers {
		return problem.New(problem.BadConfig, "An agent needs from 1 to %d brokers and has %d", MaxBrokers, len(c.Brokers))
	}
	seen := map[token.Identity]bool{}
	for _, b := range c.Brokers {
		if id, err := token.ParseIdentity(string(b.ID)); err != nil || id.Role() != token.Broker {
			return problem.New(problem.BadConfig, "%q is not a broker's identity", b.ID)
		}
		if seen[b.ID] {
			return problem.New(problem.BadConfig, "The broker %s is configured twice", b.ID)
		}
		seen[b.ID] = true
		if u, err := url.Parse(b.URL); err != nil || u.Scheme != "https" || u.Host == "" {
			return problem.New(problem.BadConfig, "The address of broker %s is not an https URL", b.ID)
		}
	}
	return nil
}

func (c Config) checkExports() error {
	if len(c.Exports) == 0 || len(c.Exports) > MaxExports {
		return problem.New(problem.BadConfig, "An agent needs from 1 to %d exports and has %d", MaxExports, len(c.Exports))
	}
	seen := map[token.Container]bool{}
	for _, e := range c.Exports {
		if err := token.CheckContainer(e.Container); err != nil {
			return err
		}
		switch {
		case seen[e.Container]:
			return problem.New(problem.BadConfig, "The container %q is exported twice", e.Container)
		case e.Store == nil:
			return problem.New(problem.BadConfig, "The container %q has no store", e.Container)
		}
		seen[e.Container] = true
		if err := e.checkSaid(); err != nil {
			return err
		}
		if err := e.checkPolicy(c.Brokers); err != nil {
			return err
		}
	}
	_, err := newRulebook(c.Pair.Identity().Provider(), c.Exports, c.Groups)
	return err
}

// checkSaid checks what brokers are told of the container and nobody here decides by.
func (e Export) checkSaid() error {
	if e.Place != "" {
		if _, err := space.ParseRegion(string(e.Place)); err != nil {
			return problem.Wrap(err, problem.BadConfig, "The place of the container %q is no region: %s", e.Container, problem.As(err).Detail)
		}
	}
	if e.Owner != "" {
		if id, err := token.ParseIdentity(string(e.Owner)); err != nil || id.Role() != token.Subscriber {
			return problem.Wrap(err, problem.BadConfig, "The owner of the container %q is not a whole identity, as in spiffe://north/subscriber/alice", e.Container)
		}
	}
	return nil
}

// checkPolicy checks what can be said of one export's policy without the others.
func (e Export) checkPolicy(brokers []Broker) error {
	simple := e.Read || e.Create || len(e.Subscribers) > 0
	switch {
	case len(e.Rules) > 0 && simple:
		return problem.New(problem.BadConfig, "The container %q has rules, and read, create or subscribers beside them; the rules say all of it", e.Container)
	case len(e.Rules) == 0 && !e.Read && !e.Create:
		return problem.New(problem.BadConfig, "The container %q is exported neither to read nor to create", e.Container)
	}
	for _, b := range slices.Concat(e.Brokers, e.Session) {
		if !slices.ContainsFunc(brokers, func(x Broker) bool { return x.ID == b }) {
			return problem.New(problem.BadConfig, "The container %q names the broker %q, which is not configured", e.Container, b)
		}
	}
	return nil
}
