package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain/name": "plain/name", "with space": "with space", "żółć": "żółć",
		"a\x1b[2Jb": `"a\x1b[2Jb"`, "a\nb": `"a\nb"`, "a\u202eb": `"a\u202eb"`, "\xff": `"\xff"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q): got %s, want %s", in, got, want)
		}
	}
}

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "90s": 90 * time.Second, "1h30m": 90 * time.Minute} {
		if got, err := parseSpan(in); err != nil || got != want {
			t.Errorf("parseSpan(%q): got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "d", "-1h", "1.5d", "99999d", "soon"} {
		if got, err := parseSpan(in); problem.Of(err) != problem.Usage {
			t.Errorf("parseSpan(%q): got %v, %v; want problem usage", in, got, err)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"0": 0, "10": 10, "1k": 1000, "1KiB": 1024, "3MiB": 3 << 20, "2GB": 2e9, "4TiB": 4 << 40} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q): got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "1.5MiB", "MiB", "9999999999TiB", "1 Mib"} {
		if got, err := parseSize(in); problem.Of(err) != problem.Usage {
			t.Errorf("parseSize(%q): got %v, %v; want problem usage", in, got, err)
		}
	}
}

// TestListOutputs checks the three forms of a list of none, one and three values.
func TestListOutputs(t *testing.T) {
	t.Parallel()
	for n := range 4 {
		for _, f := range []format{table, jsonOne, jsonLines} {
			var out bytes.Buffer
			a := &app{streams: streams{out: &out}, format: f}
			p := newPrinter(a, []string{"NAME"}, func(e api.Entry) []string { return []string{string(e.Name)} })
			for i := range n {
				if err := p.Print(api.Entry{Name: token.ObjectName("x<y" + strings.Repeat("z", i))}); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			got := 0
			switch f {
			case table:
				got = strings.Count(out.String(), "\n") - 1
			case jsonLines:
				for line := range strings.Lines(out.String()) {
					var e api.Entry
					if err := json.Unmarshal([]byte(line), &e); err != nil {
						t.Errorf("jsonl line %q: %v", line, err)
					}
					got++
				}
			case jsonOne:
				var es []api.Entry
				if err := json.Unmarshal(out.Bytes(), &es); err != nil {
					t.Errorf("json %q: %v", out.String(), err)
				}
				got = len(es)
			}
			if got != n {
				t.Errorf("%s of %d: got %d values in %q", f, n, got, out.String())
			}
		}
	}
}

// TestGaugeIsHonest checks that there is no rate before bytes moved, and no time left before there is a
// rate and a plan.
func TestGaugeIsHonest(t *testing.T) {
	t.Parallel()
	var g gauge
	at := time.Unix(1_000_000, 0)
	look := func(seconds int, moved int64, planned bool) string {
		g.look(api.Transfer{Bytes: 100 << 20, BytesMoved: moved, Planned: planned, Items: 2}, at.Add(time.Duration(seconds)*time.Second))
		return g.text()
	}
	for _, c := range []struct {
		seconds    int
		moved      int64
		planned    bool
		rate, left string
	}{
		{0, 0, false, "", ""},
		{1, 0, true, "", ""},
		{2, 20 << 20, false, "10.0 MiB/s", ""},
		{4, 40 << 20, true, "10.0 MiB/s", "6s left"},
		{5, 10 << 20, true, "", ""},          // taken back: nothing is known any more
		{6, 10<<20 + 64, true, "64 B/s", ""}, // days and days are no news
	} {
		got := look(c.seconds, c.moved, c.planned)
		if c.rate == "" && strings.Contains(got, "/s") || !strings.Contains(got, c.rate) {
			t.Errorf("at %d s: got %q, want the rate %q", c.seconds, got, c.rate)
		}
		if c.left == "" && strings.Contains(got, "left") || !strings.Contains(got, c.left) {
			t.Errorf("at %d s: got %q, want %q", c.seconds, got, c.left)
		}
	}
}

// TestEveryStateHasAnExit checks what a transfer that was waited for exits with.
func TestEveryStateHasAnExit(t *testing.T) {
	t.Parallel()
	disk := api.ProblemOf(problem.New(problem.DiskFull, "full"))
	for state, c := range map[api.State]struct {
		p    *api.Problem
		exit int
	}{
		api.Complete: {nil, 0}, api.Partial: {nil, 8}, api.Failed: {disk, 5}, api.Cancelled: {nil, 1}, api.Expired: {nil, 1},
	} {
		var errOut bytes.Buffer
		a := &app{streams: streams{err: &errOut}, format: table}
		if got := a.report(resultOf(api.Transfer{State: state, Problem: c.p})); got != c.exit {
			t.Errorf("exit of %s: got %d, want %d (%s)", state, got, c.exit, errOut.String())
		}
	}
}

// TestNoProblemIsASuccess: nobody may take a failed transfer for a copy, whatever its code.
func TestNoProblemIsASuccess(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Table() {
		a := &app{streams: streams{err: io.Discard}, format: table}
		failed := api.Transfer{State: api.Failed, Problem: api.ProblemOf(problem.New(k.Code, "said"))}
		if got := a.report(resultOf(failed)); got == problem.ExitOK {
			t.Errorf("the exit status of a transfer that failed with %q is %d", k.Code, got)
		}
	}
}

func TestSizesForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 1<<20 + 1: "1.0 MiB", 1000 << 10: "1000.0 KiB",
		1<<30 - 1: "1.0 GiB", 1 << 62: "4.0 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d): got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		7 * 24 * time.Hour: "7d", 6 * time.Hour: "6h", 25 * time.Hour: "25h", 90 * time.Minute: "1h30m", time.Minute: "1m", 61 * time.Second: "1m1s", 0: "0s",
	} {
		if got := spanText(d); got != want {
			t.Errorf("spanText(%d): got %s, want %s", d, got, want)
		}
	}
}

// TestExitTableIsWhole checks that 'consign help exit-codes' explains every status that a code can have.
func TestExitTableIsWhole(t *testing.T) {
	t.Parallel()
	known := map[int]bool{}
	for _, row := range exitTable {
		known[row.code] = true
	}
	for _, k := range problem.Table() {
		if !known[k.Exit] {
			t.Errorf("the exit status %d of %q is not explained", k.Exit, k.Code)
		}
	}
	code, out, _ := invoke(t, nil, "help", "exit-codes")
	if code != 0 || !strings.Contains(out, "130") || !strings.Contains(out, "taken") {
		t.Errorf("help exit-codes: got status %d and %q", code, out)
	}
}

// TestEvilBrokerWritesToATerminal: whatever field of an answer holds it, no escape sequence comes through to who reads tables, events and notes.
func TestEvilBrokerWritesToATerminal(t *testing.T) {
	t.Parallel()
	const evil = "x\x1b]0;owned\x07\x1b[2J\r\u202eb"
	var out, errOut bytes.Buffer
	a := &app{streams: streams{out: &out, err: &errOut}, format: table, now: time.Now}
	events := &eventPrinter{a: a}
	for _, e := range []api.Event{
		{Xfr: evil, Kind: evil, Note: evil}, {Account: evil, Kind: evil, Note: evil, Code: evil, Remedy: evil},
	} {
		if err := events.print(e); err != nil {
			t.Fatal(err)
		}
	}
	rows := newPrinter(a, []string{"ID", "STATE"}, func(s string) []string { return []string{s, "(" + s + ")"} })
	if err := rows.Print(evil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rows.Close(), a.printPairs([][2]string{{"state", evil}})); err != nil {
		t.Fatal(err)
	}
	a.note("waiting: %s", evil)
	a.report(&problem.Error{Code: evil, Detail: evil, Remedy: evil})
	for where, text := range map[string]string{"output": out.String(), "errors": errOut.String()} {
		for _, r := range strings.ReplaceAll(text, "\n", "") {
			if !unicode.IsPrint(r) {
				t.Errorf("the standard %s holds %q:\n%q", where, r, text)
				break
			}
		}
		if strings.Count(text, "owned") < 2 {
			t.Errorf("the standard %s does not tell what came:\n%q", where, text)
		}
	}
}
