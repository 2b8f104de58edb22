package agent

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	postMin = time.Second
	postMax = 5 * time.Minute
)

// sign makes the receipt of the batch over its outcomes, with the certificate in use.
func (b *batch) sign(outs []token.Outcome, now time.Time) (*api.SignedReceipt, token.Receipt, error) {
	cert, chain, id := b.a.conf.Pair.Current()
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, token.Receipt{}, problem.New(problem.Internal, "The agent's key cannot sign")
	}
	signer, err := token.NewSigner(key)
	if err != nil {
		return nil, token.Receipt{}, err
	}
	b.mu.Lock()
	caps := append([]token.Hash(nil), b.caps...)
	b.mu.Unlock()
	started := min(b.started, now.Unix())
	r := token.Receipt{
		Aud: b.key.iss, Authority: b.will.authority, Bat: b.key.bat, Caps: caps, CreateBy: b.guard(), Finished: now.Unix(), Iat: now.Unix(), Iss: id,
		Man: b.hash, N: int64(len(outs)), Ord: b.will.ord, Part: 1, Last: true, Side: b.side(), Started: started, Xfr: b.key.xfr,
	}
	lines := make([][]byte, len(outs))
	var text strings.Builder
	for i, o := range outs {
		if lines[i], err = lineOf(&o); err != nil {
			return nil, token.Receipt{}, fmt.Errorf("encoding the outcome of item %d: %w", o.Item, err)
		}
		text.Write(lines[i])
		text.WriteByte('\n')
		if o.Outcome == token.Stored || o.Outcome == token.Sent {
			r.Bytes += o.Size
		}
	}
	if r.Root, err = token.OutcomesRoot(lines); err != nil {
		return nil, token.Receipt{}, fmt.Errorf("merging the outcomes: %w", err)
	}
	jws, err := signer.Receipt(r)
	if err != nil {
		return nil, token.Receipt{}, fmt.Errorf("signing the receipt: %w", err)
	}
	return &api.SignedReceipt{JWS: jws, Chain: string(chain.PEM()), Lines: text.String()}, r, nil
}

// guard says who kept the names of the batch from being created twice.
func (b *batch) guard() token.Guard {
	switch {
	case b.key.do != token.Create:
		return ""
	case b.a.unsafe[b.export.Container]:
		return token.GuardAgent
	}
	return token.GuardStore
}

// post hands the receipt in, as often as it takes. It gives up only when the broker refuses it for good
// and has ended the batch, or when everything about the order may be forgotten.
func (b *batch) post(ctx context.Context, r api.SignedReceipt) error {
	pause := b.a.backoff(postMin, postMax)
	told := false
	for {
		_, err := b.s.ctl.PostReceipt(ctx, r)
		if err == nil {
			b.a.metrics.receipts.WithLabelValues(string(b.side())).Inc()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !problem.MayRetry(err) && b.dropCtx.Err() != nil || time.Now().After(endOf(b.will.Order)) {
			b.log.Error("the broker does not take the receipt; giving it up", zap.Error(err))
			return nil //nolint:nilerr // handled: the batch ends without it
		}
		if !told {
			b.log.Warn("the receipt waits for the broker", zap.Error(err))
			told = true
		}
		if err := b.s.a.sleepOr(ctx, pause.NextBackOff(), b.s.nextHello()); err != nil {
			return err
		}
	}
}

// failed is the outcome of an item that err ended.
func failed(item int, size int64, err error) token.Outcome {
	e := problem.As(err)
	return token.Outcome{
		Item: int64(item), Size: size, Outcome: token.ResultOf(e.Code), Code: string(e.Code), Detail: clip(e.Sentence(), token.MaxDetailSize), Lost: []string{},
	}
}

// Names of lost attributes, as stores and wire spell them.
const (
	lostMeta = "meta:"  // begins the name of an item of user metadata
	lostMore = "meta:*" // stands for those that an outcome has no room to name
)

// lineOf returns the line of an outcome. What is too long for one names fewer of the attributes that were lost, and says so, and then leaves out
// the store's own digest: the rest always fits.
func lineOf(o *token.Outcome) ([]byte, error) {
	for {
		line, err := token.MarshalOutcome(*o)
		if problem.Of(err) != problem.TooLarge {
			return line, err
		}
		if fewer, ok := fewerLost(o.Lost); ok {
			o.Lost = fewer
			continue
		}
		if o.Native == "" {
			return nil, err
		}
		o.Native = ""
	}
}

// lostNames makes a list of lost attributes fit for a statement.
func lostNames(lost []string) []string {
	out := []string{}
	for _, name := range lost {
		if name = clip(name, token.MaxLostSize); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	for len(out) > token.MaxLost {
		fewer, ok := fewerLost(out)
		if !ok {
			return out[:token.MaxLost]
		}
		out = fewer
	}
	return out
}

// fewerLost returns a sorted list with one item of user metadata less, or two, and with lostMore; ok is false if it names none.
func fewerLost(lost []string) (fewer []string, ok bool) {
	for i := len(lost) - 1; i >= 0; i-- {
		if !strings.HasPrefix(lost[i], lostMeta) || lost[i] == lostMore {
			continue
		}
		fewer = slices.Delete(slices.Clone(lost), i, i+1)
		if at, there := slices.BinarySearch(fewer, lostMore); !there {
			fewer = slices.Insert(fewer, at, lostMore)
		}
		return fewer, true
	}
	return nil, false
}

// clip makes s fit for a statement: at most limit bytes of UTF-8 without control characters.
func clip(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
