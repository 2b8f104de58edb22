package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of what memory holds of reasons.
const (
	maxReasons = 64               // denials of one transfer that are told apart
	maxTurned  = 256              // agents that were refused at the door
	tellAgain  = 10 * time.Minute // after which the same denial of a transfer is an event again
)

// reasons are what a transfer was told lately of refusals. They are in memory alone: after a restart it is told again.
type reasons struct {
	told  map[string]time.Time // by what was told
	lanes map[[2]token.Identity]reason
}

// A reason is why the agents of a pair, source and destination, do not come together.
type reason struct {
	code problem.Code
	text string
}

// fresh reports whether a transfer has not been told that lately, and may still be told something. mu is held.
func (b *Broker) fresh(id token.TransferID, what string, now time.Time) bool {
	r := b.reasons[id]
	if r == nil {
		return true
	}
	at, ok := r.told[what]
	if !ok {
		return len(r.told) < maxReasons
	}
	return now.Sub(at) >= tellAgain
}

// deniedOnce records a denial of a transfer unless it was told that lately. The event is committed before the telling is remembered.
func (b *Broker) deniedOnce(ctx context.Context, w *work, t *db.Transfer, what string, code problem.Code, note string) error {
	b.mu.Lock()
	fresh := b.fresh(t.ID, what, w.now)
	b.mu.Unlock()
	if !fresh {
		return nil
	}
	id, now, over := t.ID, w.now, !t.Finished.IsZero()
	w.then(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !over {
			b.reasonsOf(id).told[what] = now
		}
	})
	return w.denied(ctx, t, code, note)
}

// reasonsOf returns what a transfer was told. mu is held.
func (b *Broker) reasonsOf(id token.TransferID) *reasons {
	r := b.reasons[id]
	if r == nil {
		r = &reasons{told: map[string]time.Time{}, lanes: map[[2]token.Identity]reason{}}
		b.reasons[id] = r
	}
	return r
}

// denied records that somebody who takes part in a transfer was refused.
func (w *work) denied(ctx context.Context, t *db.Transfer, code problem.Code, note string) error {
	return w.event(ctx, t, api.Event{Kind: api.DeniedEvent, Code: code, Note: note})
}

// refusedIn records in a write of its own that the caller was refused in the course of a batch, and returns err. A caller
// who does not take part is not named.
func (b *Broker) refusedIn(ctx context.Context, peer certs.Peer, ref api.Ref, doing string, err error, now time.Time) error {
	if err = b.deny(peer.Identity, err); !errors.As(err, new(*problem.Error)) {
		return err
	}
	bad := b.write(ctx, now, func(w *work) error {
		bt, err2 := w.Batch(ctx, ref)
		if problem.Of(err2) == problem.NotFound {
			return nil
		}
		if err2 != nil {
			return err2
		}
		who := agentText(peer.Identity)
		switch mine := bt.Src == peer.Identity || bt.Dst == peer.Identity; {
		case !mine && bt.State == db.Live:
			who = "somebody who does not take part"
		case !mine, !problem.Denial(problem.Of(err)):
			return nil
		}
		t, err2 := w.Transfer(ctx, ref.Xfr)
		if err2 != nil || !t.Finished.IsZero() {
			return err2
		}
		p := problem.As(err)
		note := fmt.Sprintf("The broker refused %s, who wanted %s batch %d: %s", who, doing, ref.Bat, within(clip(p.Sentence())))
		return b.deniedOnce(ctx, w, &t, strings.Join([]string{doing, who, string(p.Code)}, " "), p.Code, note)
	})
	return errors.Join(err, bad)
}

// Report takes in what an agent says of lanes that were refused. What is of no live batch of the caller's and the named peer is
// passed over, as is what is no denial.
func (b *Broker) Report(ctx context.Context, peer certs.Peer, rs api.Reports, now time.Time) error {
	b.heard(peer, now)
	if len(rs.Reports) > api.MaxReports {
		return b.deny(peer.Identity, problem.New(problem.TooLarge, "There are more than %d reports", api.MaxReports))
	}
	for _, r := range rs.Reports {
		if err := b.report(ctx, peer.Identity, r, now); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) report(ctx context.Context, from token.Identity, r api.Report, now time.Time) error {
	if !problem.Denial(r.Code) || r.By != api.BySelf && r.By != api.ByPeer {
		return nil
	}
	what := fmt.Sprintf("lane %s %s %s %t", from, r.By, r.Code, r.Stranger)
	b.mu.Lock()
	fresh := b.fresh(r.Xfr, what, now)
	b.mu.Unlock()
	if !fresh {
		return nil
	}
	bt, ok, err := b.sharedBatch(ctx, from, r)
	if err != nil || !ok {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		t, err := w.Transfer(ctx, r.Xfr)
		if err != nil || !t.Finished.IsZero() {
			return err
		}
		text := laneText(from, bt, r)
		w.then(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			lanes, pair := b.reasonsOf(t.ID).lanes, [2]token.Identity{bt.Src, bt.Dst}
			if _, known := lanes[pair]; (r.By == api.BySelf || !known) && !r.Stranger { // who refused knows better why
				lanes[pair] = reason{r.Code, text}
			}
			if r.By == api.BySelf && !r.Stranger && genuine(r.Code) {
				b.countDenial(denial{r.Peer, r.Code}, 1)
			}
		})
		return b.deniedOnce(ctx, w, &t, what, r.Code, text)
	})
}

// sharedBatch returns the live batch of a report if it is one of the reporter and the peer that he names.
func (b *Broker) sharedBatch(ctx context.Context, from token.Identity, r api.Report) (db.Batch, bool, error) {
	var bt db.Batch
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		bt, err = tx.Batch(ctx, r.Ref)
		return err
	})
	if problem.Of(err) == problem.NotFound {
		return bt, false, nil
	}
	ours := bt.Src == from && bt.Dst == r.Peer || bt.Dst == from && bt.Src == r.Peer
	return bt, ours && bt.State == db.Live, err
}

// genuine reports whether a refusal with that code is one of somebody whose certificate is of a trusted authority.
func genuine(code problem.Code) bool {
	switch code {
	case problem.CertMissing, problem.CertUnknown, problem.CertMisused, problem.CertMismatch:
		return false
	}
	return true
}

// laneText says for people what a report says.
func laneText(from token.Identity, bt db.Batch, r api.Report) string {
	refuser, refused := from, r.Peer
	if r.By == api.ByPeer {
		refuser, refused = r.Peer, from
	}
	why := within(clip((&problem.Error{Code: r.Code, Detail: r.Detail}).Sentence()))
	switch {
	case r.Stranger:
		return fmt.Sprintf("%s refused somebody who came for batch %d in the place of %s: %s", upper(agentText(from)), r.Bat, agentText(r.Peer), why)
	case r.At != api.AtLane:
		return fmt.Sprintf("%s refused batch %d to %s: %s", upper(agentText(refuser)), r.Bat, agentText(refused), why)
	case r.By == api.BySelf && from == bt.Src && !genuine(r.Code):
		return fmt.Sprintf("Somebody who says to be %s could not connect to %s: %s", agentText(bt.Dst), agentText(bt.Src), why)
	}
	return fmt.Sprintf("%s could not connect to %s: %s", upper(agentText(bt.Dst)), agentText(bt.Src), why)
}

// laneReason says why the agents of a batch do not come together, if one of them waits for that reason. mu is held.
func (b *Broker) laneReason(bt db.Batch, waiting problem.Code) string {
	r := b.reasons[bt.Xfr]
	if r == nil || !problem.Denial(waiting) {
		return ""
	}
	return r.lanes[[2]token.Identity{bt.Src, bt.Dst}].text
}

// agentText names an agent, as in "agent two of south".
func agentText(id token.Identity) string {
	return fmt.Sprintf("%s %s of %s", id.Role(), id.Name(), id.Provider())
}

// within makes a sentence part of another.
func within(s string) string {
	s = strings.TrimSuffix(s, ".")
	if first, rest, ok := strings.Cut(s, " "); ok && strings.ToLower(first) != first && strings.ToUpper(first) != first || first == "A" {
		return strings.ToLower(first[:1]) + first[1:] + " " + rest
	}
	return s
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// A turned is an agent that was refused before it could say anything.
type turned struct {
	code problem.Code
	text string
	at   time.Time
}

// TurnAway counts the refusal of somebody whose certificate is genuine and not good now, and returns err. An agent that is
// refused at the door cannot say so to anybody: the transfers that wait for it are told.
func (b *Broker) TurnAway(id token.Identity, err error, now time.Time) error {
	if b.deny(id, err) == nil || id.Role() != token.Agent || !slices.Contains(b.conf.Providers, id.Provider()) || !problem.Denial(problem.Of(err)) {
		return err
	}
	p := problem.As(err)
	b.mu.Lock()
	before, ok := b.turned[id]
	keep := ok || len(b.turned) < maxTurned
	if keep {
		b.turned[id] = turned{p.Code, p.Sentence(), now}
	}
	b.mu.Unlock()
	if keep && before.code != p.Code { // it knocks again every few seconds: once is enough
		b.log.Warn("agent turned away", zap.String("agent", string(id)), zap.String("code", string(p.Code)), zap.String("error", p.Sentence()))
	}
	return err
}

// turnedAway says why an agent was refused at the door, as the rest of a sentence about its absence; empty if it was not. mu is held.
func (b *Broker) turnedAway(id token.Identity) string {
	r, ok := b.turned[id]
	if !ok {
		return ""
	}
	return fmt.Sprintf("; the broker has turned %s away: %s", agentText(id), within(r.text))
}

// tendTurned tells a transfer of agents that it needs and that were refused at the door.
func (b *Broker) tendTurned(ctx context.Context, t db.Transfer, now time.Time) error {
	away := map[token.Identity]turned{}
	b.mu.Lock()
	for id, r := range b.turned {
		if s := b.sessions[id]; s != nil && s.stream != 0 {
			continue
		}
		ours := id.Provider() == t.From.Provider || id.Provider() == t.To.Provider
		if ours && now.Sub(r.at) < tellAgain && b.fresh(t.ID, turnedKey(id, r.code), now) {
			away[id] = r
		}
	}
	b.mu.Unlock()
	for id, r := range away {
		needed, err := b.needs(ctx, t, id)
		if err != nil {
			return err
		}
		if !needed {
			continue
		}
		err = b.write(ctx, now, func(w *work) error {
			t, err := w.Transfer(ctx, t.ID)
			if err != nil || !t.Finished.IsZero() {
				return err
			}
			note := fmt.Sprintf("The broker has turned %s away: %s", agentText(id), within(r.text))
			return b.deniedOnce(ctx, w, &t, turnedKey(id, r.code), r.code, note)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func turnedKey(id token.Identity, code problem.Code) string {
	return "door " + string(id) + " " + string(code)
}

// needs reports whether a transfer needs an agent: it has a batch with it, the agent exports one of its containers and no other that does
// is connected, or no agent of that provider has ever been here.
func (b *Broker) needs(ctx context.Context, t db.Transfer, id token.Identity) (bool, error) {
	needed := false
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		live, err := tx.LiveOf(ctx, id)
		if err != nil {
			return err
		}
		needed = slices.ContainsFunc(live, func(bt db.Batch) bool { return bt.Xfr == t.ID })
		for _, l := range []token.Location{t.From, t.To} {
			if needed || l.Provider != id.Provider() {
				continue
			}
			known, err := tx.Agents(ctx, l.Provider)
			if err != nil {
				return err
			}
			es, err := tx.Exporters(ctx, l.Provider, l.Container)
			if err != nil {
				return err
			}
			one := func(e db.Exporter) bool { return e.ID == id }
			another := func(e db.Exporter) bool { return e.ID != id && b.connected(e.ID) }
			needed = len(known) == 0 || slices.ContainsFunc(es, one) && !slices.ContainsFunc(es, another)
		}
		return nil
	})
	return needed, err
}

// namesDenied records that the source denied names of a page, by reason: of a large tree not of every page anew.
func (p *planner) namesDenied(ctx context.Context) error {
	told, ours := map[problem.Code]bool{}, map[string]bool{}
	for _, u := range p.refused {
		ours[u.Name] = true
	}
	for _, u := range p.odd {
		if ours[u.Name] || told[u.Code] || !problem.Denial(u.Code) {
			continue
		}
		told[u.Code] = true
		why := (&problem.Error{Code: u.Code, Detail: u.Detail}).Sentence()
		note := fmt.Sprintf("The source denied some of what is below it; the first, %q: %s", u.Name, within(why))
		if err := p.b.deniedOnce(ctx, p.w, p.t, "names "+string(u.Code), u.Code, note); err != nil {
			return err
		}
	}
	return nil
}
