package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// A tally is what the races of one kind came to.
type tally struct {
	Kind    string  `json:"kind"`
	Races   int     `json:"races"`
	OneWon  int     `json:"one_winner"`
	Taken   int     `json:"loser_says_taken"`
	Content int     `json:"content_is_the_winners"`
	Seconds float64 `json:"seconds"`
}

func (t tally) good() bool { return t.OneWon == t.Races && t.Taken == t.Races && t.Content == t.Races }

// A racer orders one of the two copies.
type racer struct {
	client  *api.Client
	signers []token.Signer
	chains  []string
	ids     []token.Identity
	from    token.Location
	to      token.Provider
}

// race lets two transfers want the same destination name, first through one
// broker, then through two brokers that know nothing of each other.
func race(ctx context.Context, b *bench) error {
	w, second, err := b.newRaceWorld(ctx)
	if err != nil {
		return err
	}
	kinds := []struct {
		name    string
		brokers [2]*localnet.Broker
	}{
		{"one-broker", [2]*localnet.Broker{w.broker, w.broker}},
		{"two-brokers", [2]*localnet.Broker{w.broker, second}},
	}
	for _, kind := range kinds {
		t, err := w.raceKind(ctx, kind.name, kind.brokers)
		if err != nil {
			return fmt.Errorf("racing through %s: %w", kind.name, err)
		}
		if err := b.report(t); err != nil {
			return err
		}
		if !t.good() {
			return errBroken
		}
	}
	return nil
}

// newRaceWorld is newWorld with a second broker that both agents listen to.
func (b *bench) newRaceWorld(ctx context.Context) (*world, *localnet.Broker, error) {
	w := &world{bench: b, from: filepath.Join(b.dir, "src"), to: filepath.Join(b.dir, "dst")}
	for _, p := range []token.Provider{"north", "south"} {
		if err := b.net.AddProvider(p); err != nil {
			return nil, nil, err
		}
	}
	var brokers []*localnet.Broker
	for _, domain := range []token.Provider{"hub", "pub"} {
		made, err := b.net.AddBroker(ctx, domain)
		if err != nil {
			return nil, nil, err
		}
		brokers = append(brokers, made)
	}
	w.broker = brokers[0]
	for _, dir := range []string{w.from, w.to} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, fmt.Errorf("making a container: %w", err)
		}
	}
	for _, side := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(w.from, side), []byte(strings.Repeat(side, small)), 0o600); err != nil {
			return nil, nil, fmt.Errorf("making a racer's object: %w", err)
		}
	}
	var err error
	if w.source, err = b.net.AddAgent("north", "one", []localnet.Export{{Container: "src", Dir: w.from, Read: true}}, brokers); err != nil {
		return nil, nil, err
	}
	if w.destination, err = b.net.AddAgent("south", "one", []localnet.Export{{Container: "dst", Dir: w.to, Create: true}}, brokers); err != nil {
		return nil, nil, err
	}
	for _, p := range []*localnet.Proc{brokers[0].Proc, brokers[1].Proc, w.source.Proc, w.destination.Proc} {
		if err := p.Start(ctx); err != nil {
			return nil, nil, err
		}
	}
	return w, brokers[1], nil
}

func (w *world) raceKind(ctx context.Context, kind string, brokers [2]*localnet.Broker) (tally, error) {
	started := time.Now()
	t := tally{Kind: kind, Races: w.rounds}
	var racers [2]*racer
	for i, side := range []token.ObjectName{"a", "b"} {
		r, err := w.newRacer(brokers[i], fmt.Sprintf("%s-%s", kind, side), "south")
		if err != nil {
			return t, err
		}
		r.from = token.Location{Provider: "north", Container: "src", Name: side}
		racers[i] = r
	}
	for i := range w.rounds {
		name := token.ObjectName(fmt.Sprintf("%s/%d", kind, i))
		ends, err := raceOnce(ctx, racers, name)
		if err != nil {
			return t, fmt.Errorf("race %d: %w", i, err)
		}
		got, err := os.ReadFile(filepath.Join(w.to, filepath.FromSlash(string(name))))
		if err != nil {
			return t, fmt.Errorf("reading what won race %d: %w", i, err)
		}
		t.count(ends, got, small)
	}
	t.Seconds = time.Since(started).Seconds()
	return t, nil
}

// small is the size of what races, in bytes.
const small = 5000

// count adds one race. A race is good if exactly one is complete, the other
// says taken, and the object is what the winner sent: n times its letter.
func (t *tally) count(ends [2]api.Transfer, got []byte, n int) {
	winner := -1
	for i, e := range ends {
		if e.State == api.Complete {
			if winner >= 0 {
				return
			}
			winner = i
		}
	}
	if winner < 0 {
		return
	}
	t.OneWon++
	loser := ends[1-winner]
	if loser.State == api.Failed && loser.Outcomes[token.TakenBy] == 1 && loser.Problem != nil && loser.Problem.Code == "taken" {
		t.Taken++
	}
	if string(got) == strings.Repeat(string("ab"[winner]), n) {
		t.Content++
	}
}

// raceOnce orders both copies at the same moment and waits for both.
func raceOnce(ctx context.Context, racers [2]*racer, name token.ObjectName) ([2]api.Transfer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var ends [2]api.Transfer
	g, gctx := errgroup.WithContext(ctx)
	for i, r := range racers {
		g.Go(func() (err error) {
			ends[i], err = r.copy(gctx, token.Location{Provider: r.to, Container: "dst", Name: name})
			return err
		})
	}
	return ends, g.Wait()
}

// newRacer makes a subscriber who copies from north to a provider.
func (w *world) newRacer(b *localnet.Broker, name string, to token.Provider) (*racer, error) {
	files, err := w.net.Account(name, "north", to)
	if err != nil {
		return nil, err
	}
	r := &racer{to: to}
	var first *certs.Pair
	for _, f := range files {
		pair, err := certs.OpenPair(f["cert"], f["key"])
		if err != nil {
			return nil, fmt.Errorf("opening an account: %w", err)
		}
		if first == nil {
			first = pair
		}
		signer, err := token.NewSigner(pair.Signer())
		if err != nil {
			return nil, err
		}
		_, chain, id := pair.Current()
		r.signers, r.chains, r.ids = append(r.signers, signer), append(r.chains, string(chain.PEM())), append(r.ids, id)
	}
	trust, err := certs.OpenTrust(w.net.Trust())
	if err != nil {
		return nil, fmt.Errorf("opening the trust bundles: %w", err)
	}
	r.client = api.NewClient(b.URL, certs.BrokerClient(first, trust, b.ID))
	return r, nil
}

// copy orders one copy and waits for its end.
func (r *racer) copy(ctx context.Context, to token.Location) (api.Transfer, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return api.Transfer{}, fmt.Errorf("making an id: %w", err)
	}
	now := time.Now()
	o := token.Order{
		Accounts: r.ids, Do: token.Copy, Iat: now.Unix(), Exp: now.Add(time.Hour).Unix(), Filters: []token.Filter{},
		From: r.from, ID: token.TransferID(id.String()), IfExists: token.Fail, Scope: token.One, To: to,
	}
	var signed api.SignedOrder
	for i, s := range r.signers {
		jws, err := s.Order(o)
		if err != nil {
			return api.Transfer{}, err
		}
		signed.JWS, signed.Chains = append(signed.JWS, jws), append(signed.Chains, r.chains[i])
	}
	t, err := r.client.Submit(ctx, signed)
	if err != nil {
		return t, err
	}
	for !t.State.Ended() {
		if t, err = r.client.Transfer(ctx, t.ID, t.Seq, api.MaxWait); err != nil {
			return t, err
		}
	}
	if t.Finished == nil {
		return t, errors.New("the transfer ended without a time")
	}
	return t, nil
}
