package broker

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

// A ring is the capability keys in use: the one that signs, and all that are published, which are two at most. It is never changed.
type ring struct {
	signer token.Signer
	jwks   []byte
}

// A rotation is what is durable about the capability keys. The database knows which key signs, the state folder has the private keys:
// a key is renamed to its place after the commit that gives it its part, and again at the next start if that was cut off.
type rotation struct {
	Active string `json:"active"`               // id of the key that signs
	Next   string `json:"next,omitempty"`       // id of the one that is published and does not sign yet
	Since  int64  `json:"next_since,omitempty"` // when that was published, ms
	Old    string `json:"old,omitempty"`        // JWKS of the one before, as long as something that it signed may live
	Until  int64  `json:"old_until,omitempty"`  // ms
}

func readRotation(ctx context.Context, tx *db.Tx) (r rotation, err error) {
	text, err := tx.Meta(ctx, "keys")
	if err != nil || text == "" {
		return rotation{}, err
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return rotation{}, fmt.Errorf("reading the state of the capability keys: %w", err)
	}
	return r, nil
}

// saveRotation writes the state of the keys and the leaf of its change.
func (w *work) saveRotation(ctx context.Context, r rotation, change facts) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the state of the capability keys: %w", err)
	}
	if err := w.SetMeta(ctx, "keys", string(text)); err != nil {
		return err
	}
	_, err = w.leaf(ctx, db.KeyLeaf, change)
	return err
}

// openKeys finds the key that signs, and finishes what an earlier life has begun.
func (b *Broker) openKeys(ctx context.Context, now time.Time) error {
	key, err := openKey(b.conf.State, keyFile)
	if err != nil {
		return err
	}
	var r rotation
	if err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		r, err = readRotation(ctx, tx)
		return err
	}); err != nil {
		return err
	}
	if id, err := token.KeyID(key.Public()); err != nil || id != r.Active {
		if err != nil {
			return fmt.Errorf("naming the capability key: %w", err)
		}
		for _, name := range []string{nowFile, nextFile} {
			late, err := openKeyIfAny(b.conf.State, name)
			if err != nil {
				return err
			}
			if late != nil && keyID(late) == r.Active {
				if err := putInPlace(b.conf.State, name); err != nil {
					return err
				}
				return b.useKeys(late, nil, r.Old)
			}
		}
		return b.write(ctx, now, func(w *work) error { return b.replaceKey(ctx, w, r, key, "replaced") })
	}
	next, err := openKeyIfAny(b.conf.State, nextFile)
	if err != nil {
		return err
	}
	if next != nil && keyID(next) != r.Next {
		next = nil // it is published in a moment
	}
	return b.useKeys(key, next, r.Old)
}

func keyID(key crypto.Signer) string {
	id, err := token.KeyID(key.Public())
	if err != nil {
		return "" // of no Ed25519 key, which openKey does not return
	}
	return id
}

// useKeys has active sign from now on, and publishes it with the others.
func (b *Broker) useKeys(active, next crypto.Signer, old string) error {
	signer, err := token.NewSigner(active)
	if err != nil {
		return fmt.Errorf("preparing the capability key: %w", err)
	}
	pubs := []crypto.PublicKey{active.Public()}
	if next != nil {
		pubs = append(pubs, next.Public())
	}
	set, err := token.NewKeySet(b.self, pubs...)
	if err != nil {
		return fmt.Errorf("publishing the capability key: %w", err)
	}
	if old != "" {
		before, err := token.ParseKeySet([]byte(old), b.self)
		if err != nil {
			return fmt.Errorf("publishing the capability key before: %w", err)
		}
		set = set.Merge(before)
	}
	jwks, err := set.JWKS()
	if err != nil {
		return fmt.Errorf("publishing the capability key: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = ring{signer, jwks}
	return nil
}

// signer is the key that signs now.
func (b *Broker) signer() token.Signer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys.signer
}

// Keys returns the JWKS of the capability keys. The caller must not modify it.
func (b *Broker) Keys() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys.jwks
}

// tendKeys does what is due for the capability keys. What an operator wants is in the state folder: a key to come, or one to be used at
// once.
func (b *Broker) tendKeys(ctx context.Context, now time.Time) error {
	var r rotation
	if err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		r, err = readRotation(ctx, tx)
		return err
	}); err != nil {
		return err
	}
	urgent, err := openKeyIfAny(b.conf.State, nowFile)
	if err != nil {
		return err
	}
	if urgent != nil {
		return b.useNow(ctx, r, urgent, now)
	}
	next, err := openKeyIfAny(b.conf.State, nextFile)
	if err != nil {
		return err
	}
	due := func(ms int64, after time.Duration) bool { return !now.Before(time.UnixMilli(ms).Add(after)) }
	switch {
	case next != nil && keyID(next) == r.Active: // it was not put in its place
		return putInPlace(b.conf.State, nextFile)
	case next == nil && r.Next != "":
		return b.announceKeys(ctx, now, rotation{Active: r.Active, Old: r.Old, Until: r.Until}, next, facts{"change": "not used", "kid": r.Next})
	case r.Old != "" && due(r.Until, 0):
		return b.announceKeys(ctx, now, rotation{Active: r.Active, Next: r.Next, Since: r.Since}, next, facts{"change": "withdrawn", "keys": json.RawMessage(r.Old)})
	case next == nil || r.Old != "": // two keys are enough: the next one waits until the one before is gone
		return nil
	case keyID(next) != r.Next:
		return b.announceKeys(ctx, now, rotation{Active: r.Active, Next: keyID(next), Since: now.UnixMilli()}, next,
			facts{"change": "published", "kid": keyID(next)})
	case due(r.Since, b.conf.KeyAhead):
		return b.switchKeys(ctx, r, next, now)
	}
	return nil
}

// announceKeys publishes other keys beside the one that signs on.
func (b *Broker) announceKeys(ctx context.Context, now time.Time, r rotation, next crypto.Signer, change facts) error {
	active, err := openKey(b.conf.State, keyFile)
	if err != nil {
		return err
	}
	if keyID(active) != r.Active {
		return errors.New("the file of the capability key was replaced while the broker runs; restart it")
	}
	if err := b.write(ctx, now, func(w *work) error { return w.saveRotation(ctx, r, change) }); err != nil {
		return err
	}
	if r.Next == "" {
		next = nil
	}
	b.log.Info("capability keys announced", zap.Any("change", change["change"]), zap.String("active", r.Active), zap.String("next", r.Next))
	return b.useKeys(active, next, r.Old)
}

// switchKeys has the next key sign, which every agent knows by now. The one before stays published for as long as
// anything that it has signed may live.
func (b *Broker) switchKeys(ctx context.Context, r rotation, next crypto.Signer, now time.Time) error {
	before, err := openKey(b.conf.State, keyFile)
	if err != nil {
		return err
	}
	set, err := token.NewKeySet(b.self, before.Public())
	if err != nil {
		return fmt.Errorf("publishing the capability key before: %w", err)
	}
	old, err := set.JWKS()
	if err != nil {
		return fmt.Errorf("publishing the capability key before: %w", err)
	}
	err = b.write(ctx, now, func(w *work) error {
		last, err := w.LastCapabilityOfAll(ctx)
		if err != nil {
			return err
		}
		if own := now.Add(b.conf.CapabilityLife); own.After(last) {
			last = own // of a capability that is being minted
		}
		r = rotation{Active: keyID(next), Old: string(old), Until: last.Add(token.ClockSkew).UnixMilli()}
		return w.saveRotation(ctx, r, facts{"before": keyID(before), "change": "active", "kid": r.Active})
	})
	if err != nil {
		return err
	}
	if err := b.useKeys(next, nil, r.Old); err != nil {
		return err
	}
	b.log.Info("a new capability key signs", zap.String("kid", r.Active), zap.Time("old_until", time.UnixMilli(r.Until)))
	return putInPlace(b.conf.State, nextFile)
}

// useNow has a key sign at once and publishes no other. What older ones have signed is good nowhere any more, as soon as agents have
// asked for keys, which the list of revocations makes them do.
func (b *Broker) useNow(ctx context.Context, r rotation, key crypto.Signer, now time.Time) error {
	if keyID(key) != r.Active {
		err := b.write(ctx, now, func(w *work) error { return b.replaceKey(ctx, w, r, key, "replaced at once") })
		if err != nil {
			return err
		}
		b.log.Warn("the capability key was replaced at once; what the one before has signed is not good any more", zap.String("kid", keyID(key)), zap.String("before", r.Active))
		if err := b.write(ctx, now, func(w *work) error { return b.newEpoch(ctx, w, facts{"key": keyID(key)}) }); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(b.conf.State, nextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the next capability key: %w", err)
	}
	return putInPlace(b.conf.State, nowFile)
}

// replaceKey makes key the only one. Live batches get new capabilities.
func (b *Broker) replaceKey(ctx context.Context, w *work, r rotation, key crypto.Signer, how string) error {
	change := facts{"change": how, "kid": keyID(key)}
	if r.Active != "" {
		change["before"] = r.Active
	} else {
		change["change"] = "active"
	}
	if err := w.saveRotation(ctx, rotation{Active: keyID(key)}, change); err != nil {
		return err
	}
	if err := b.useKeys(key, nil, ""); err != nil { // if the commit fails, the next start or step begins anew
		return err
	}
	live, err := w.LiveAll(ctx)
	if err != nil {
		return err
	}
	for _, bt := range live {
		bt.Cnf = "" // so that its delivery mints
		if err := w.PutBatch(ctx, bt); err != nil {
			return err
		}
		w.then(func() { b.postBoth(bt) })
	}
	return nil
}
