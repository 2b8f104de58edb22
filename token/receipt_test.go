package token_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestReceiptCheck(t *testing.T) {
	t.Parallel()
	caps := func(n int) []token.Hash {
		var out []token.Hash
		for i := range n {
			out = append(out, token.HashOf([]byte{byte(i)}))
		}
		return out
	}
	for _, tc := range []struct {
		name string
		edit func(*token.Receipt)
		want problem.Code
	}{
		{"good", func(*token.Receipt) {}, ""},
		{"16 capabilities", func(r *token.Receipt) { r.Caps = caps(16) }, ""},
		{"all in one second", func(r *token.Receipt) { r.Started, r.Finished = r.Iat, r.Iat }, ""},
		{"first of two parts", func(r *token.Receipt) { r.Last = false }, ""},
		{"no capability", func(r *token.Receipt) { r.Caps = nil }, problem.Malformed},
		{"17 capabilities", func(r *token.Receipt) { r.Caps = caps(17) }, problem.Malformed},
		{"one capability twice", func(r *token.Receipt) { r.Caps = append(caps(2), caps(1)...) }, problem.Malformed},
		{"bad capability", func(r *token.Receipt) { r.Caps = []token.Hash{"x"} }, problem.Malformed},
		{"from a subscriber", func(r *token.Receipt) { r.Iss = tokentest.AtA }, problem.Malformed},
		{"to an agent", func(r *token.Receipt) { r.Aud = tokentest.AgentA }, problem.Malformed},
		{"an authority to come", func(r *token.Receipt) { r.Authority = "trust" }, problem.Malformed},
		{"no batch", func(r *token.Receipt) { r.Bat = 0 }, problem.Malformed},
		{"no manifest", func(r *token.Receipt) { r.Man = "" }, problem.Malformed},
		{"no root", func(r *token.Receipt) { r.Root = "" }, problem.Malformed},
		{"no transfer", func(r *token.Receipt) { r.Xfr = "" }, problem.Malformed},
		{"no side", func(r *token.Receipt) { r.Side = "" }, problem.Malformed},
		{"no guard", func(r *token.Receipt) { r.CreateBy = "" }, problem.Malformed},
		{"a guard that there is not", func(r *token.Receipt) { r.CreateBy = "luck" }, problem.Malformed},
		{"a source that creates", func(r *token.Receipt) { r.Iss, r.Side = tokentest.AgentA, token.Source }, problem.Malformed},
		{"no part", func(r *token.Receipt) { r.Part = 0 }, problem.Malformed},
		{"negative count", func(r *token.Receipt) { r.N = -1 }, problem.Malformed},
		{"count too large", func(r *token.Receipt) { r.N = 1025 }, problem.Malformed},
		{"negative bytes", func(r *token.Receipt) { r.Bytes = -1 }, problem.Malformed},
		{"finished first", func(r *token.Receipt) { r.Finished = r.Started - 1 }, problem.Malformed},
		{"signed first", func(r *token.Receipt) { r.Iat = r.Finished - 1 }, problem.Malformed},
		{"no start", func(r *token.Receipt) { r.Started = 0 }, problem.Malformed},
		{"time beyond JSON", func(r *token.Receipt) { r.Iat = 1 << 60 }, problem.Malformed},
	} {
		r := tokentest.Receipt()
		tc.edit(&r)
		if got := problem.Of(r.Check()); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	for name, edit := range map[string]func(*token.Receipt){
		"not last": func(r *token.Receipt) { r.Last = false }, "bytes": func(r *token.Receipt) { r.Bytes = 1 },
		"other root": func(r *token.Receipt) { r.Root = token.HashOf([]byte("x")) },
	} {
		r := tokentest.EmptyReceipt()
		wantCode(t, r.Check(), "")
		edit(&r)
		if got := problem.Of(r.Check()); got != problem.Malformed {
			t.Errorf("empty, %s: got %q, want malformed", name, got)
		}
	}
}

func TestReceiptOutcomes(t *testing.T) {
	t.Parallel()
	good := tokentest.Receipt()
	got, err := good.Outcomes(tokentest.Lines())
	if err != nil || len(got) != 3 || got[2].Outcome != token.TakenBy || !slices.Equal(got[1].Lost, []string{"mode", "user.comment"}) {
		t.Fatalf("got %+v (%v)", got, err)
	}
	// rooted returns a receipt that was signed over lines, whatever they are.
	rooted := func(edit func(*token.Receipt), lines ...[]byte) (token.Receipt, [][]byte) {
		r := good
		r.N = int64(len(lines))
		root, err := token.OutcomesRoot(lines)
		if err != nil {
			t.Fatal(err)
		}
		r.Root = root
		edit(&r)
		return r, lines
	}
	l := tokentest.Lines()
	keep := func(*token.Receipt) {}
	for _, tc := range []struct {
		name string
		make func() (token.Receipt, [][]byte)
		want problem.Code
	}{
		{"one left out", func() (token.Receipt, [][]byte) { return good, l[:2] }, problem.Malformed},
		{"in another order", func() (token.Receipt, [][]byte) { return good, [][]byte{l[1], l[0], l[2]} }, problem.Malformed},
		{"one changed", func() (token.Receipt, [][]byte) {
			return good, [][]byte{l[0], l[1], bytes.Replace(l[2], []byte("2"), []byte("1"), 1)}
		}, problem.Malformed},
		{"one item twice", func() (token.Receipt, [][]byte) { return rooted(keep, l[0], l[1], l[2], l[2]) }, problem.Malformed},
		{"wrong bytes", func() (token.Receipt, [][]byte) { return rooted(func(r *token.Receipt) { r.Bytes++ }, l...) }, problem.Malformed},
		{"stored by the source", func() (token.Receipt, [][]byte) {
			return rooted(func(r *token.Receipt) { r.Side, r.CreateBy = token.Source, "" }, l...)
		}, problem.Malformed},
		{"not canonical", func() (token.Receipt, [][]byte) { return rooted(keep, l[0], l[1], append([]byte(" "), l[2]...)) }, problem.NotCanonical},
		{"huge line", func() (token.Receipt, [][]byte) { return rooted(keep, l[0], l[1], make([]byte, 1025)) }, problem.TooLarge},
	} {
		r, lines := tc.make()
		got, err := r.Outcomes(lines)
		if problem.Of(err) != tc.want || got != nil {
			t.Errorf("%s: got %v (%v), want %q", tc.name, got, err, tc.want)
		}
	}
	if got, err := tokentest.EmptyReceipt().Outcomes(nil); err != nil || len(got) != 0 {
		t.Errorf("empty: got %v (%v)", got, err)
	}
}

func TestOutcomeCheck(t *testing.T) {
	t.Parallel()
	stored, taken := tokentest.Outcomes()[0], tokentest.Outcomes()[2]
	as := func(r token.Result, code problem.Code) func(*token.Outcome) {
		return func(o *token.Outcome) { o.Outcome, o.Code = r, string(code) }
	}
	for _, tc := range []struct {
		name string
		base token.Outcome
		edit func(*token.Outcome)
		good bool
	}{
		{"stored", stored, func(*token.Outcome) {}, true},
		{"sent", stored, as(token.Sent, ""), true},
		{"existed", taken, as(token.Existed, ""), true},
		{"taken", taken, func(*token.Outcome) {}, true},
		{"changed", taken, as(token.Altered, problem.Changed), true},
		{"skipped", taken, as(token.Left, problem.Skipped), true},
		{"denied", taken, as(token.Denied, problem.PolicyRefused), true},
		{"failed", taken, as(token.Failed, problem.DiskFull), true},
		{"failed by claim", taken, as(token.Failed, problem.Claimed), true},
		{"failed in a newer way", taken, as(token.Failed, "not-invented-yet"), true},
		{"untried", taken, as(token.Untried, problem.Untried), true},
		{"untried with a reason", taken, as(token.Untried, problem.CapExpired), true},
		{"no outcome", taken, as("", problem.Taken), false},
		{"unknown outcome", taken, as("lost", problem.Taken), false},
		{"stored with a code", stored, as(token.Stored, problem.Taken), false},
		{"existed with a code", taken, as(token.Existed, problem.Taken), false},
		{"taken without a code", taken, as(token.TakenBy, ""), false},
		{"taken with another code", taken, as(token.TakenBy, problem.DiskFull), false},
		{"changed as taken", taken, as(token.Altered, problem.Taken), false},
		{"skipped as failed", taken, as(token.Failed, problem.Skipped), false},
		{"taken as failed", taken, as(token.Failed, problem.Taken), false},
		{"changed as denied", taken, as(token.Denied, problem.Changed), false},
		{"failed without a code", taken, as(token.Failed, ""), false},
		{"untried without a code", taken, as(token.Untried, ""), false},
		{"code in upper case", taken, as(token.Failed, "Disk-Full"), false},
		{"long code", taken, as(token.Failed, problem.Code(strings.Repeat("a", 65))), false},
		{"stored without digest", stored, func(o *token.Outcome) { o.Digest = "" }, false},
		{"stored without version", stored, func(o *token.Outcome) { o.Version = "" }, false},
		{"bad digest", stored, func(o *token.Outcome) { o.Digest = "x" }, false},
		{"stored with a value hash", stored, func(o *token.Outcome) { o.Hash = token.ValueDigest("MD5:" + strings.Repeat("0a", 16)) }, true},
		{"stored with a short value hash", stored, func(o *token.Outcome) { o.Hash = token.ValueDigest("SHA160:" + strings.Repeat("0a", 19)) }, false},
		{"stored with the name of a value hash alone", stored, func(o *token.Outcome) { o.Hash = "SHA256" }, false},
		{"sent with a value hash", tokentest.Outcomes()[1], as(token.Sent, ""), false},
		{"existed with a value hash", tokentest.Outcomes()[1], as(token.Existed, ""), false},
		{"taken with a value hash", tokentest.Outcomes()[1], as(token.TakenBy, problem.Taken), false},
		{"negative item", stored, func(o *token.Outcome) { o.Item = -1 }, false},
		{"item 1024", stored, func(o *token.Outcome) { o.Item = 1024 }, false},
		{"negative size", stored, func(o *token.Outcome) { o.Size = -1 }, false},
		{"long detail", taken, func(o *token.Outcome) { o.Detail = strings.Repeat("x", 257) }, false},
		{"detail with an escape", taken, func(o *token.Outcome) { o.Detail = "\x1b[2J" }, false},
		{"detail of two lines", taken, func(o *token.Outcome) { o.Detail = "a\nb" }, false},
		{"detail not UTF-8", taken, func(o *token.Outcome) { o.Detail = "\xff" }, false},
		{"long native", stored, func(o *token.Outcome) { o.Native = strings.Repeat("x", 129) }, false},
		{"long version", stored, func(o *token.Outcome) { o.Version = token.Version(strings.Repeat("x", 257)) }, false},
		{"lost unsorted", stored, func(o *token.Outcome) { o.Lost = []string{"b", "a"} }, false},
		{"lost twice", stored, func(o *token.Outcome) { o.Lost = []string{"a", "a"} }, false},
		{"lost nothing", stored, func(o *token.Outcome) { o.Lost = []string{""} }, false},
		{"lost too many", stored, func(o *token.Outcome) { o.Lost = make([]string, 17) }, false},
		{"lost long", stored, func(o *token.Outcome) { o.Lost = []string{strings.Repeat("x", 65)} }, false},
	} {
		o := tc.base
		tc.edit(&o)
		want := problem.Malformed
		if tc.good {
			want = ""
		}
		if got := problem.Of(o.Check()); got != want {
			t.Errorf("%s: got %q (%v), want %q", tc.name, got, o.Check(), want)
		}
		line, err := token.MarshalOutcome(o)
		if problem.Of(err) != want || (line == nil) != (err != nil) || bytes.ContainsAny(line, "\n\r") {
			t.Errorf("%s: got the line %q (%v), want %q", tc.name, line, err, want)
		}
	}
}

func TestOutcomeLimit(t *testing.T) {
	t.Parallel()
	o := tokentest.Outcomes()[0]
	o.Detail, o.Version, o.Native = strings.Repeat(`"`, 256), token.Version(strings.Repeat(`"`, 256)), strings.Repeat("x", 128)
	wantCode(t, o.Check(), "")
	line, err := token.MarshalOutcome(o)
	if problem.Of(err) != problem.TooLarge || line != nil {
		t.Errorf("got %d bytes (%v), want too-large", len(line), err)
	}
	if got, err := token.ParseOutcome(make([]byte, 1025)); problem.Of(err) != problem.TooLarge || got.Outcome != "" {
		t.Errorf("got %v (%v), want too-large", got, err)
	}
}

// TestResultOf: an outcome made with it passes Check, whatever the problem.
func TestResultOf(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Table() {
		o := token.Outcome{Code: string(k.Code), Outcome: token.ResultOf(k.Code)}
		if err := o.Check(); err != nil {
			t.Errorf("%s: got %v, want nil", k.Code, err)
		}
	}
	for code, want := range map[problem.Code]token.Result{"": "", "new": token.Failed, problem.Taken: token.TakenBy, problem.Hidden: token.Denied,
		problem.Untried: token.Untried, problem.Corrupt: token.Failed} {
		if got := token.ResultOf(code); got != want {
			t.Errorf("%q: got %q, want %q", code, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	dst := tokentest.Outcomes()[0]
	src := dst
	src.Outcome, src.Version = token.Sent, "a-1"
	failed := token.Outcome{Outcome: token.Failed, Code: string(problem.DiskFull)}
	with := func(o token.Outcome, f func(*token.Outcome)) token.Outcome { f(&o); return o }
	for _, tc := range []struct {
		name     string
		src, dst token.Outcome
		want     problem.Code
	}{
		{"sent and stored", src, dst, ""},
		{"sent and failed", src, failed, ""},
		{"failed and failed", failed, failed, ""},
		{"sent and taken", src, token.Outcome{Outcome: token.TakenBy, Code: "taken"}, ""},
		{"failed and stored", failed, dst, problem.Disputed},
		{"existed and stored", token.Outcome{Outcome: token.Existed}, dst, problem.Disputed},
		{"nothing and stored", token.Outcome{}, dst, problem.Disputed},
		{"another size", with(src, func(o *token.Outcome) { o.Size++ }), dst, problem.Disputed},
		{"another digest", with(src, func(o *token.Outcome) { o.Digest = "blake3:" + token.Digest(strings.Repeat("0", 64)) }), dst, problem.Disputed},
		{"another item", with(src, func(o *token.Outcome) { o.Item++ }), dst, problem.Disputed},
		{"both stored", dst, dst, problem.Disputed},
		{"both sent", src, src, problem.Disputed},
		{"stored and failed", dst, failed, problem.Disputed},
	} {
		if got := problem.Of(token.Match(tc.src, tc.dst)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
