package token_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestStandingOrderCheck(t *testing.T) {
	t.Parallel()
	type edit func(*token.Order)
	for _, tc := range []struct {
		name string
		base token.Order
		edit edit
		want problem.Code
	}{
		{"every hour", tokentest.Standing(), func(*token.Order) {}, ""},
		{"every minute", tokentest.Standing(), func(o *token.Order) { o.Period = 60 }, ""},
		{"two runs", tokentest.Standing(), func(o *token.Order) { o.Period = o.Exp - o.Iat - 1 }, ""},
		{"within one provider", tokentest.Standing(), func(o *token.Order) {
			o.To.Provider, o.Accounts = "a.example", []token.Identity{tokentest.AtA}
		}, ""},
		{"every 59 s", tokentest.Standing(), func(o *token.Order) { o.Period = 59 }, problem.Malformed},
		{"every -1 s", tokentest.Standing(), func(o *token.Order) { o.Period = -1 }, problem.Malformed},
		{"one run", tokentest.Standing(), func(o *token.Order) { o.Period = o.Exp - o.Iat }, problem.Malformed},
		{"period that overflows", tokentest.Standing(), func(o *token.Order) { o.Period = 1<<63 - 1 }, problem.Malformed},
		{"object with a period", tokentest.OneObject(), func(o *token.Order) { o.Period = 3600 }, problem.Malformed},
		{"list with a period", tokentest.Asking(token.List), func(o *token.Order) { o.Period = 3600 }, problem.Malformed},
		{"make with a period", tokentest.Asking(token.Make), func(o *token.Order) { o.Period = 3600 }, problem.Malformed},
		{"copy with a target", tokentest.Order(), func(o *token.Order) { o.Target = tokentest.Standing().ID }, problem.Malformed},

		{"withdraw", tokentest.Withdrawal(), func(*token.Order) {}, ""},
		{"withdraw by the other account", tokentest.Withdrawal(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AtA} }, ""},
		{"withdraw by both", tokentest.Withdrawal(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AtA, tokentest.AtB} }, problem.Malformed},
		{"withdraw by nobody", tokentest.Withdrawal(), func(o *token.Order) { o.Accounts = nil }, problem.Malformed},
		{"withdraw by an agent", tokentest.Withdrawal(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AgentA} }, problem.Malformed},
		{"withdraw nothing", tokentest.Withdrawal(), func(o *token.Order) { o.Target = "" }, problem.Malformed},
		{"withdraw what is no id", tokentest.Withdrawal(), func(o *token.Order) { o.Target = "all" }, problem.Malformed},
		{"withdraw itself", tokentest.Withdrawal(), func(o *token.Order) { o.Target = o.ID }, problem.Malformed},
		{"withdraw with a source", tokentest.Withdrawal(), func(o *token.Order) { o.From = tokentest.Order().From }, problem.Malformed},
		{"withdraw with a destination", tokentest.Withdrawal(), func(o *token.Order) { o.To = tokentest.Order().To }, problem.Malformed},
		{"withdraw with a scope", tokentest.Withdrawal(), func(o *token.Order) { o.Scope = token.One }, problem.Malformed},
		{"withdraw with a limit", tokentest.Withdrawal(), func(o *token.Order) { o.Limits.Items = 1 }, problem.Malformed},
		{"withdraw with filters", tokentest.Withdrawal(), func(o *token.Order) { o.Filters = tokentest.Order().Filters }, problem.Malformed},
		{"withdraw with if_exists", tokentest.Withdrawal(), func(o *token.Order) { o.IfExists = token.Skip }, problem.Malformed},
		{"withdraw every hour", tokentest.Withdrawal(), func(o *token.Order) { o.Period = 3600 }, problem.Malformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := tc.base
			tc.edit(&o)
			wantCode(t, o.Check(), tc.want)
		})
	}
	wantCode(t, tokentest.Withdrawal().Covers(tokentest.Manifest().Items[0]), problem.OrderNotCovered)
	wantCode(t, tokentest.Withdrawal().Selects("2026/a"), problem.OrderNotCovered)
}

// TestRunsAreTold: each run has an id of its own, which names it, and no other order has one of them.
func TestRunsAreTold(t *testing.T) {
	t.Parallel()
	o, other := tokentest.Standing(), tokentest.Standing()
	other.Limits.Items--
	seen := map[token.TransferID]int64{}
	last := (o.Exp - o.Iat - 1) / o.Period
	for k := range last + 1 {
		xfr := o.Run(k)
		if _, err := token.ParseTransferID(string(xfr)); err != nil {
			t.Fatalf("run %d: got %q (%v), want a transfer id", k, xfr, err)
		}
		if before, ok := seen[xfr]; ok {
			t.Fatalf("runs %d and %d have the id %s", before, k, xfr)
		}
		seen[xfr] = k
		if got, ok := o.RunOf(xfr); got != k || !ok {
			t.Errorf("got run %d %v of %s, want %d", got, ok, xfr, k)
		}
		if got, ok := other.RunOf(xfr); k > 0 && (ok || got != 0) {
			t.Errorf("run %d of one order: got it as run %d of another", k, got)
		}
	}
	if o.Run(0) != o.ID || last != 167 {
		t.Errorf("got %s as run 0 of %d, want %s", o.Run(0), last, o.ID)
	}
	for _, k := range []int64{-1, last + 1, 1 << 62, -1 << 63} {
		if got := o.Run(k); got != "" {
			t.Errorf("got %s as run %d, want none", got, k)
		}
	}
	once := tokentest.Order()
	for _, k := range []int64{-1, 1, 2} {
		if got := once.Run(k); got != "" {
			t.Errorf("got %s as run %d of an order that runs once, want none", got, k)
		}
	}
	if k, ok := once.RunOf(once.ID); k != 0 || !ok || once.Run(0) != once.ID {
		t.Errorf("got run %d %v, want 0", k, ok)
	}
	for _, xfr := range []token.TransferID{"", "x", once.ID, tokentest.Withdrawal().ID, o.Run(1)[:35], o.Run(1) + "0", "{" + o.Run(1) + "}"} {
		if k, ok := o.RunOf(xfr); k != 0 || ok {
			t.Errorf("got run %d %v of %q, want none", k, ok, xfr)
		}
	}
}

// TestRunOfInverts is TestRunsAreTold at random, with every bit of an id turned.
func TestRunOfInverts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewChaCha8([32]byte{7}))
	const digits = "0123456789abcdef"
	for range 200 {
		o := tokentest.Standing()
		o.Iat = 1 + r.Int64N(1<<r.IntN(53))
		o.Exp = min(o.Iat+122+r.Int64N(400*86400-122), 1<<53-1)
		o.Period = 60 + r.Int64N(o.Exp-o.Iat-60)
		if o.Check() != nil {
			continue
		}
		k := r.Int64N((o.Exp-o.Iat-1)/o.Period + 1)
		xfr := o.Run(k)
		if got, ok := o.RunOf(xfr); got != k || !ok {
			t.Fatalf("%+v: got run %d %v, want %d", o, got, ok, k)
		}
		at := r.IntN(len(xfr))
		if xfr[at] == '-' {
			continue
		}
		turned := xfr[:at] + token.TransferID(digits[r.IntN(16)]) + xfr[at+1:]
		if got, ok := o.RunOf(turned); ok && turned != xfr {
			t.Fatalf("%+v: got run %d of %s, which is not %s", o, got, turned, xfr)
		}
	}
}

func TestRunIsDue(t *testing.T) {
	t.Parallel()
	o, once := tokentest.Standing(), tokentest.Order()
	for _, tc := range []struct {
		name  string
		order token.Order
		k     int64
		at    int64
		want  problem.Code
	}{
		{"the first at once", o, 0, o.Iat, ""},
		{"the first, 60 s early", o, 0, o.Iat - 60, ""},
		{"the first, 61 s early", o, 0, o.Iat - 61, problem.OrderNotDue},
		{"the second too early", o, 1, o.Iat + 3539, problem.OrderNotDue},
		{"the second within the skew", o, 1, o.Iat + 3540, ""},
		{"the second much later", o, 1, o.Iat + 100*3600, ""},
		{"the last", o, 167, o.Exp - 1, ""},
		{"one behind the last", o, 168, o.Exp, problem.OrderNotCovered},
		{"a negative one", o, -1, o.Exp, problem.OrderNotCovered},
		{"one that overflows", o, 1 << 60, o.Exp, problem.OrderNotCovered},
		{"the only one", once, 0, once.Iat, ""},
		{"the second of one", once, 1, once.Exp - 1, problem.OrderNotCovered},
	} {
		wantCode(t, tc.order.CheckRun(tc.k, time.Unix(tc.at, 0)), tc.want)
		if t.Failed() {
			t.Fatal(tc.name)
		}
	}
	for at, want := range map[int64]int64{o.Iat - 9999: 0, o.Iat: 0, o.Iat + 3599: 0, o.Iat + 3600: 1, o.Iat + 7*3600 + 5: 7, o.Exp - 1: 167, o.Exp + 1<<40: 167} {
		if got := o.RunAt(time.Unix(at, 0)); got != want {
			t.Errorf("%d s after the first: got run %d, want %d", at-o.Iat, got, want)
		}
		if got := once.RunAt(time.Unix(at, 0)); got != 0 {
			t.Errorf("an order that runs once: got run %d", got)
		}
	}
}

func FuzzRunOf(f *testing.F) {
	n := 0
	for _, v := range vectors(f, acceptedFile) {
		if v.Kind == "run" {
			f.Add(v.Xfr)
			n++
		}
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
	f.Add(string(tokentest.Standing().ID))
	f.Add("01938c5e-7a00-7abc-8def-0123456789AC")
	o := tokentest.Standing()
	f.Fuzz(func(t *testing.T, s string) {
		k, ok := o.RunOf(token.TransferID(s))
		if ok && string(o.Run(k)) != s || !ok && k != 0 {
			t.Fatalf("got run %d %v of %q, whose id is %s", k, ok, s, o.Run(k))
		}
	})
}
