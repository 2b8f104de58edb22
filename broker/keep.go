package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxKeptPage = 1 << 20       // bytes of metadata in a page
	maxAhead    = 7 * 24 * 3600 // seconds that an agent's number may be ahead of our clock
)

// A keeping is how far an agent's copy of its provider's log of holds and retentions is. Broker.mu guards it.
type keeping struct {
	from int64 // it has made the log durable up to here
	sent int64 // the page on its way leads here; from if there is none
	anew bool  // the next page begins the log anew
}

// keepHello takes in how far an agent says that it keeps the log, and returns where it goes on and the newest number. Numbers never fall behind what
// an agent has seen: a log that a backup has put back goes on beyond it, and what the agent kept meanwhile stays in force there.
func (b *Broker) keepHello(ctx context.Context, w *work, agent token.Identity, said int64) (keeping, int64, error) {
	p := agent.Provider()
	if said < 0 || said > (w.now.Unix()+maxAhead)*1000 {
		return keeping{}, 0, problem.New(problem.Malformed, "The hello says that the log of holds is kept up to a number that does not exist yet")
	}
	newest, err := w.NewestKeep(ctx, p)
	if err != nil {
		return keeping{}, 0, err
	}
	if said > newest {
		b.log.Warn("an agent keeps holds and retentions that are not in the database, which was put back or made anew; they stay in force there",
			zap.String("agent", string(agent)), zap.Int64("kept", said), zap.Int64("newest", newest))
		if err := w.RaiseKeeps(ctx, p, said); err != nil {
			return keeping{}, 0, err
		}
		newest = said
	}
	floor, err := w.KeepFloor(ctx, p)
	if err != nil {
		return keeping{}, 0, err
	}
	k := keeping{from: said, sent: said}
	if said < floor {
		k = keeping{anew: true}
	}
	return k, newest, w.SetKept(ctx, agent, k.from)
}

// pushKept has every connected agent of a provider told of what is new in its log.
func (b *Broker) pushKept(p token.Provider) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if s.stream != 0 && s.id.Provider() == p {
			s.out = append(s.out, outgoing{kept: true})
			poke(s.ready)
		}
	}
}

// keptPage returns the next page for an agent; nil if there is nothing new, or a page is on its way.
func (b *Broker) keptPage(ctx context.Context, s *session) (*api.KeptPage, error) {
	b.mu.Lock()
	k := s.keeping
	b.mu.Unlock()
	if k.sent > k.from {
		return nil, nil
	}
	var ks []db.Keep
	var newest int64
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if ks, err = tx.KeepsAfter(ctx, s.id.Provider(), k.from, api.MaxKept+1); err != nil {
			return err
		}
		newest, err = tx.NewestKeep(ctx, s.id.Provider())
		return err
	})
	if err != nil || len(ks) == 0 && !k.anew {
		return nil, err
	}
	page := &api.KeptPage{Anew: k.anew, Records: []api.Kept{}, Seq: newest, Last: true}
	size := 0
	for i, r := range ks {
		if i == api.MaxKept || size > maxKeptPage {
			page.Seq, page.Last = ks[i-1].Seq, false
			break
		}
		page.Records = append(page.Records, r.Kept())
		size += len(r.Data)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.keeping.sent, s.keeping.anew = page.Seq, false
	return page, nil
}

// Kept takes in up to which number an agent has made its provider's log of holds and retentions durable.
func (b *Broker) Kept(ctx context.Context, peer certs.Peer, m api.KeptMark, now time.Time) error {
	b.mu.Lock()
	s := b.sessions[peer.Identity]
	ok := s != nil && m.Seq == s.keeping.sent
	b.mu.Unlock()
	if !ok {
		return problem.New(problem.LeaseLost, "No page of the log of holds leads to %d now; say hello", m.Seq)
	}
	if err := b.write(ctx, now, func(w *work) error { return w.SetKept(ctx, peer.Identity, m.Seq) }); err != nil {
		return err
	}
	b.mu.Lock()
	if s.keeping.sent == m.Seq {
		s.keeping.from = m.Seq
	}
	b.mu.Unlock()
	b.heard(peer, now)
	b.post(peer.Identity, outgoing{kept: true})
	return nil
}

// A holding says which of the agents that export a container keep what is in force for a place, so that they refuse to erase it whatever a broker says.
type holding struct {
	seq    int64 // of the newest record above or at the place; 0 if nothing there binds an erasure
	agents int
	kept   int
}

// holdsOf returns how far what binds the erasure of a place has reached the agents that could carry one out.
func holdsOf(ctx context.Context, tx *db.Tx, at token.Location, kind acl.Kind) (holding, error) {
	var h holding
	names := []token.ObjectName{""}
	for i, c := range at.Name {
		if c == '/' {
			names = append(names, at.Name[:i])
		}
	}
	if at.Name != "" {
		names = append(names, at.Name)
	}
	for i, name := range names {
		k := acl.Container
		if i == len(names)-1 && name != "" {
			k = kind
		}
		r, _, err := tx.KeepOf(ctx, token.Location{Provider: at.Provider, Container: at.Container, Name: name}, k)
		if err != nil {
			return holding{}, err
		}
		h.seq = max(h.seq, r.Seq)
	}
	es, err := tx.Exporters(ctx, at.Provider, at.Container)
	if err != nil {
		return holding{}, err
	}
	for _, e := range es {
		h.agents++
		if e.Kept >= h.seq {
			h.kept++
		}
	}
	return h, nil
}

// checkSanitization reports why what a place asks for cannot be: problem.Unsanitizable if an agent that exports the container has a store without that method. Without an agent
// nothing is known, and nothing is promised.
func checkSanitization(s space.Settings, at token.Location, es []db.Exporter) error {
	if s.Sanitization == "" {
		return nil
	}
	if len(es) == 0 {
		return problem.New(problem.Unsanitizable, "No agent exports the container %q now, so that nobody knows whether its store can wipe by %q", at.Container, s.Sanitization)
	}
	for _, e := range es {
		if !slices.Contains(e.Export.Sanitizes, s.Sanitization) {
			return problem.New(problem.Unsanitizable, "The store of the container %q cannot wipe by %q; it can by %s", at.Container, s.Sanitization, methods(e.Export.Sanitizes))
		}
	}
	return nil
}

// checkWished reports why what is in force for a place since a change of its metadata cannot be, if it was not in force before: see checkSanitization.
func (b *Broker) checkWished(ctx context.Context, tx *db.Tx, was, is tree.Spot) error {
	if is.Settings.Sanitization == was.Settings.Sanitization {
		return nil
	}
	es, err := tx.Exporters(ctx, is.At.Provider, is.At.Container)
	if err != nil {
		return err
	}
	return checkSanitization(is.Settings, is.At, es)
}

func methods(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
