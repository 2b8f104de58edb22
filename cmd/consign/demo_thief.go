package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// compact is what a signed statement looks like, wherever it is kept.
var compact = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}`)

// A loot is a capability that was found on a disk.
type loot struct {
	jws    string
	claims token.Capability
}

// steal looks through the files of the dead agent for a right to read from north.
func (d *demo) steal() error {
	err := filepath.WalkDir(d.south.State, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // of our own demonstration
		if err != nil {
			return fmt.Errorf("reading a journal: %w", err)
		}
		for _, jws := range compact.FindAll(data, -1) {
			if c, ok := claimsOf(string(jws)); ok && c.Aud == d.north.ID && c.Do == token.Read && c.Iat >= d.stolen.claims.Iat {
				d.stolen = loot{string(jws), c}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d.stolen.jws == "" {
		return errors.New("there is no capability in the journal of the agent")
	}
	c := d.stolen.claims
	d.proof("found: a capability to read batch %d of %s from %s, valid for another %s",
		c.Bat, c.Xfr, c.Aud, time.Unix(c.Exp, 0).Sub(d.a.now()).Round(time.Second))
	return nil
}

// claimsOf reads the payload of a capability without judging it.
func claimsOf(jws string) (token.Capability, bool) {
	var c token.Capability
	parts := strings.Split(jws, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return c, false
	}
	return c, c.Aud != "" && c.Cnf != ""
}

// replay presents the stolen capability again, after its batch is complete.
func (d *demo) replay(ctx context.Context) error {
	d.say("The thief presents the stolen capability to the agent of north: over QUIC, as the protocol has it, first with the stolen " +
		"key of the agent that it was made for, then with that of another agent of south, whose certificate is just as good.")
	for _, attempt := range []struct {
		as   *localnet.Agent
		want problem.Code
	}{{d.south, problem.CapSpent}, {d.other, problem.CapNotYours}} {
		err := d.present(ctx, attempt.as)
		if problem.Of(err) != attempt.want {
			return fmt.Errorf("presenting the capability as %s: got %w, want %s", attempt.as.ID, orNothing(err), attempt.want)
		}
		d.proof("as %s: refused, %s (%s)", attempt.as.ID, strings.TrimSuffix(lowerFirst(problem.As(err).Sentence()), "."), attempt.want)
	}
	return nil
}

// orNothing gives a missing error a text.
func orNothing(err error) error {
	if err == nil {
		return errors.New("a welcome")
	}
	return err
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// present dials the source with the key of an agent and says hello with the stolen capability. It
// returns nil if that was welcome.
func (d *demo) present(ctx context.Context, as *localnet.Agent) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	pair, err := certs.OpenPair(as.Cert, as.Key)
	if err != nil {
		return err
	}
	trust, err := certs.OpenTrust(d.net.Trust())
	if err != nil {
		return err
	}
	c := d.stolen.claims
	hello, err := wire.Append(nil, wire.Hello{
		Batch: wire.Batch{Xfr: c.Xfr, Bat: c.Bat}, Version: wire.Version, Lanes: 1, Man: c.Man, Ord: c.Ord, Capability: d.stolen.jws,
	})
	if err != nil {
		return err
	}
	end, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end.Close()) }()
	lane, err := end.Dial(ctx, d.north.Listen, certs.PeerClient(pair, trust, wire.ALPN, d.north.ID))
	if err != nil {
		return err
	}
	stream, err := lane.Open(ctx)
	if err != nil {
		return err
	}
	defer stream.Abandon(problem.Cancelled)
	if deadline, ok := ctx.Deadline(); ok {
		if err := stream.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := stream.Write(hello); err != nil {
		return err
	}
	if err := stream.CloseWrite(); err != nil {
		return err
	}
	_, err = wire.ReadWelcome(stream)
	return err
}
