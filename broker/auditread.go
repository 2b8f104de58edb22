package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// auditPlace reads the place of a query: a provider with a colon behind it, or an address.
func (b *Broker) auditPlace(place string) (token.Location, error) {
	at := token.Location{}
	if p, ok := strings.CutSuffix(place, ":"); ok {
		at.Provider = token.Provider(p)
	} else {
		var err error
		if at, err = token.ParseLocation(place); err != nil {
			return token.Location{}, err
		}
	}
	if !slices.Contains(b.conf.Providers, at.Provider) {
		return token.Location{}, problem.New(problem.UnknownProvider, "The broker does not know the provider %q", clip(string(at.Provider)))
	}
	return at, nil
}

// mayAudit decides whether the caller may read the records of a place: an administrator of its provider may, and who is granted READ_ACL at its
// root container by a list or as its owner. The list of a root container that nobody owns does not count: it lets every subscriber read lists, and records
// name what their reader may not see.
func (b *Broker) mayAudit(ctx context.Context, tx *db.Tx, a tree.Attempt, at token.Location) error {
	if a.By.Status == acl.Administrating {
		return nil
	}
	if at.Container == "" {
		return problem.New(problem.NotPermitted, "The audit records of all containers of %s are for its administrators", at.Provider)
	}
	root, err := b.tree.Spot(ctx, tx, token.Location{Provider: at.Provider, Container: at.Container}, acl.Container)
	if err != nil {
		return err
	}
	if err := b.tree.Decide(a, root, acl.ReadACL); err != nil {
		return err
	}
	if _, given := root.OwnList(); !given && root.Owner() == "" {
		return &problem.Error{
			Code: problem.NotPermitted, Detail: fmt.Sprintf("Nobody owns %s: its audit records are for administrators of %s", root.Names[0], at.Provider),
			Remedy: "Ask an administrator of the provider to take ownership, or to give it a list that grants READ_ACL.",
		}
	}
	return nil
}

// audited reads what the caller may read of audit records of a place.
func (b *Broker) audited(ctx context.Context, peer certs.Peer, place string, now time.Time, read func(*db.Tx, token.Location) error) error {
	at, err := b.auditPlace(place)
	if err != nil {
		return b.deny(peer.Identity, err)
	}
	err = b.asking(ctx, peer.Identity, at.Provider, opAudit, now, func(tx *db.Tx, a tree.Attempt) error {
		if err := b.mayAudit(ctx, tx, a, at); err != nil {
			return err
		}
		return read(tx, at)
	})
	if err != nil {
		return b.deny(peer.Identity, err)
	}
	return nil
}

// Audit returns a page of audit records, the oldest first.
func (b *Broker) Audit(ctx context.Context, peer certs.Peer, q api.AuditQuery, now time.Time) (api.Page[api.AuditRecord], error) {
	page := api.Page[api.AuditRecord]{Items: []api.AuditRecord{}}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, api.MaxPage)
	err := b.audited(ctx, peer, q.Place, now, func(tx *db.Tx, at token.Location) error {
		rs, err := tx.Audit(ctx, filterOf(at, q), q.After, limit)
		for _, r := range rs {
			page.Items = append(page.Items, auditForm(r))
			if len(rs) == limit {
				page.Next = strconv.FormatInt(r.N, 10)
			}
		}
		return err
	})
	if err != nil {
		return api.Page[api.AuditRecord]{}, err
	}
	return page, nil
}

func filterOf(at token.Location, q api.AuditQuery) db.AuditFilter {
	return db.AuditFilter{Provider: at.Provider, Container: at.Container, Below: at.Name, Who: acl.Who(q.Who), Since: q.Since, Until: q.Until}
}

// AuditRuns returns a page of runs that begin with record from or later.
func (b *Broker) AuditRuns(ctx context.Context, peer certs.Peer, place string, from int64, now time.Time) (api.Page[api.AuditRun], error) {
	page := api.Page[api.AuditRun]{Items: []api.AuditRun{}}
	err := b.audited(ctx, peer, place, now, func(tx *db.Tx, _ token.Location) error {
		runs, err := tx.AuditRuns(ctx, from, api.MaxPage)
		for _, r := range runs {
			page.Items = append(page.Items, runForm(r))
			if len(runs) == api.MaxPage {
				page.Next = strconv.FormatInt(r.First+r.Records, 10)
			}
		}
		return err
	})
	if err != nil {
		return api.Page[api.AuditRun]{}, err
	}
	return page, nil
}

// AuditProof returns the run that begins with record first: the records of place in full, of all others the hash.
func (b *Broker) AuditProof(ctx context.Context, peer certs.Peer, place string, first int64, now time.Time) (api.AuditProof, error) {
	var p api.AuditProof
	err := b.audited(ctx, peer, place, now, func(tx *db.Tx, at token.Location) error {
		runs, err := tx.AuditRuns(ctx, first, 1)
		if err != nil {
			return err
		}
		if len(runs) == 0 || runs[0].First != first {
			return problem.New(problem.NotFound, "No run of audit records begins with record %d", first)
		}
		p, err = proofOf(ctx, tx, runs[0], func(r db.AuditRecord) bool { return placedIn(at, r.Place) })
		return err
	})
	if err != nil {
		return api.AuditProof{}, err
	}
	return p, nil
}

// placedIn reports whether place is at, or below it; with an empty container at is all of its provider.
func placedIn(at, place token.Location) bool {
	if place.Provider != at.Provider || at.Container != "" && place.Container != at.Container {
		return false
	}
	return at.Name == "" || place.Name == at.Name || strings.HasPrefix(string(place.Name), string(at.Name)+"/")
}
