package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// An Agent is what an agent last said of itself.
type Agent struct {
	ID      token.Identity
	Version string
	Slots   int
	Listen  []string
	Seen    time.Time
}

// AddProvider notes that a provider is served. One that is there already is fine.
func (t *Tx) AddProvider(ctx context.Context, p token.Provider, now time.Time) error {
	return t.exec(ctx, "adding a provider", `INSERT INTO providers (name, added) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, string(p), ms(now))
}

// SeeSubscriber notes that a subscriber was here.
func (t *Tx) SeeSubscriber(ctx context.Context, id token.Identity, now time.Time) error {
	return t.exec(ctx, "noting a subscriber", `INSERT INTO subscribers (id, provider, seen) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET seen = excluded.seen`, string(id), string(id.Provider()), ms(now))
}

// PutAgent replaces what is known of an agent and what it exports.
func (t *Tx) PutAgent(ctx context.Context, a Agent, exports []api.Export) error {
	listen, err := json.Marshal(a.Listen)
	if err != nil {
		return err
	}
	p := string(a.ID.Provider())
	if err := t.exec(ctx, "noting an agent", `INSERT INTO agents (id, provider, version, slots, listen, seen) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET version = excluded.version, slots = excluded.slots, listen = excluded.listen, seen = excluded.seen`,
		string(a.ID), p, a.Version, a.Slots, string(listen), ms(a.Seen)); err != nil {
		return err
	}
	if err := t.exec(ctx, "forgetting exports", `DELETE FROM containers WHERE agent = ?`, string(a.ID)); err != nil {
		return err
	}
	for _, e := range exports {
		if err := t.exec(ctx, "noting an export", `INSERT INTO containers (provider, name, agent, can_read, can_create, part_size, max_parts,
			session, max_items, max_bytes, place, owner, can_erase, sanitizes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, p, string(e.Container), string(a.ID), bit(e.Read), bit(e.Create),
			e.PartSize, e.MaxParts, bit(e.Session), e.MaxItems, e.MaxBytes, e.Place, string(e.Owner), bit(e.Erase), lines(e.Sanitizes)); err != nil {
			return err
		}
	}
	return nil
}

// SeeAgent notes that an agent was here.
func (t *Tx) SeeAgent(ctx context.Context, id token.Identity, now time.Time) error {
	return t.exec(ctx, "noting an agent", `UPDATE agents SET seen = ? WHERE id = ?`, ms(now), string(id))
}

// Agents returns the agents of a provider, by identity; of all providers if p is empty.
func (t *Tx) Agents(ctx context.Context, p token.Provider) ([]Agent, error) {
	var out []Agent
	err := t.each(ctx, "reading agents", `SELECT id, version, slots, listen, seen FROM agents WHERE provider = ? OR ? = '' ORDER BY id`,
		[]any{string(p), string(p)}, func(r *sql.Rows) error {
			var a Agent
			var listen string
			var seen int64
			if err := r.Scan(&a.ID, &a.Version, &a.Slots, &listen, &seen); err != nil {
				return err
			}
			a.Seen = at(seen)
			out = append(out, a)
			return json.Unmarshal([]byte(listen), &out[len(out)-1].Listen)
		})
	return out, err
}

// An Exporter is an agent that exports a container, and how.
type Exporter struct {
	Agent
	Export api.Export
	Kept   int64 // up to which number it keeps its provider's log of holds and retentions
}

// Exporters returns the agents that export a container, by identity.
func (t *Tx) Exporters(ctx context.Context, p token.Provider, c token.Container) ([]Exporter, error) {
	var out []Exporter
	err := t.each(ctx, "reading exporters", `SELECT a.id, a.version, a.slots, a.listen, a.seen, c.can_read, c.can_create, c.part_size, c.max_parts,
		c.session, c.max_items, c.max_bytes, c.place, c.owner, c.can_erase, c.sanitizes, a.kept
		FROM containers c JOIN agents a ON a.id = c.agent WHERE c.provider = ? AND c.name = ? ORDER BY a.id`,
		[]any{string(p), string(c)}, func(r *sql.Rows) error {
			e := Exporter{Export: api.Export{Container: c}}
			var listen string
			var sanitizes string
			var seen, read, create, session, erase int64
			if err := r.Scan(&e.ID, &e.Version, &e.Slots, &listen, &seen, &read, &create, &e.Export.PartSize, &e.Export.MaxParts,
				&session, &e.Export.MaxItems, &e.Export.MaxBytes, &e.Export.Place, &e.Export.Owner, &erase, &sanitizes, &e.Kept); err != nil {
				return err
			}
			e.Export.Erase, e.Export.Sanitizes = erase != 0, unlines(sanitizes)
			e.Seen, e.Export.Read, e.Export.Create, e.Export.Session = at(seen), read != 0, create != 0, session != 0
			if err := json.Unmarshal([]byte(listen), &e.Listen); err != nil {
				return err
			}
			out = append(out, e)
			return nil
		})
	return out, err
}

// Containers returns the names of the containers that any agent of a provider exports.
func (t *Tx) Containers(ctx context.Context, p token.Provider) ([]token.Container, error) {
	var out []token.Container
	err := t.each(ctx, "reading containers", `SELECT DISTINCT name FROM containers WHERE provider = ? ORDER BY name`, []any{string(p)}, func(r *sql.Rows) error {
		var c token.Container
		err := r.Scan(&c)
		out = append(out, c)
		return err
	})
	return out, err
}
