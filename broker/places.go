package broker

import (
	"context"
	"slices"
	"strings"
	"unicode"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// checkPlaces returns problem.BadConfig naming the first entry of Places that is wrong, or nil.
func (c Config) checkPlaces() error {
	for at, r := range c.Places {
		if !slices.Contains(c.Providers, at.Provider) || at.Name != "" {
			return problem.New(problem.BadConfig, "The setting places names %s, which is neither a provider of the broker nor a container of one", placeKey(at))
		}
		if _, err := space.ParseRegion(string(r)); err != nil {
			return problem.Wrap(err, problem.BadConfig, "The setting places says of %s what is no region: %s", placeKey(at), problem.As(err).Detail)
		}
	}
	return nil
}

// placeKey spells an entry of Places as configurations do.
func placeKey(at token.Location) string {
	if at.Container == "" {
		return problem.Quote(string(at.Provider))
	}
	return problem.Quote(string(at.Provider) + ":/" + string(at.Container))
}

// Limits of what an agent says of the methods of a store.
const (
	maxMethods = 16
	maxMethod  = 64 // bytes
)

// checkSaid reports what is wrong with what an agent says of a container's place, its owner and the methods of its store.
func checkSaid(e api.Export) error {
	if len(e.Sanitizes) > maxMethods {
		return problem.New(problem.TooLarge, "The hello names more than %d methods to wipe of one store", maxMethods)
	}
	for _, m := range e.Sanitizes {
		if m == "" || len(m) > maxMethod || strings.ContainsFunc(m, unicode.IsControl) {
			return problem.New(problem.Malformed, "The hello names a method to wipe that is none")
		}
	}
	if e.Place != "" {
		if _, err := space.ParseRegion(e.Place); err != nil {
			return err
		}
	}
	if e.Owner == "" {
		return nil
	}
	id, err := token.ParseIdentity(string(e.Owner))
	if err == nil && id.Role() != token.Subscriber {
		err = problem.New(problem.Malformed, "The hello says that a container is owned by %q, which is no subscriber", e.Owner)
	}
	return err
}

// ownRoots lets the containers that an agent exports belong to whom it says, as far as they belong to nobody yet.
func (b *Broker) ownRoots(ctx context.Context, w *work, agent token.Identity, exports []api.Export) error {
	for _, e := range exports {
		if e.Owner == "" {
			continue
		}
		root := token.Location{Provider: agent.Provider(), Container: e.Container}
		taken, err := b.tree.OwnRoot(ctx, w.Tx, root, e.Owner, w.now)
		if err != nil {
			return err
		}
		if taken {
			if _, err := w.leaf(ctx, db.AccessLeaf, facts{"at": root.String(), "by": agent, "kind": acl.Container.String(), "owner": e.Owner}); err != nil {
				return err
			}
			b.log.Info("a container has an owner now, as its agent says", zap.String("container", root.String()), zap.String("owner", string(e.Owner)),
				zap.String("agent", string(agent)))
		}
	}
	return nil
}

// placeOf returns where a container is: what our configuration says, if every agent that exports the container says the same. Else,
// and if nobody exports it, it is the unknown region. It is attested: nobody has measured it.
func (b *Broker) placeOf(at token.Location, es []db.Exporter) space.Region {
	if len(es) == 0 {
		return ""
	}
	ours := b.ourPlace(at)
	for _, e := range es {
		ours = space.Agreed(ours, space.Region(e.Export.Place))
	}
	return ours
}

// ourPlace returns what our configuration says of where a container is.
func (b *Broker) ourPlace(at token.Location) space.Region {
	if r, ok := b.conf.Places[token.Location{Provider: at.Provider, Container: at.Container}]; ok {
		return r
	}
	return b.conf.Places[token.Location{Provider: at.Provider}]
}
