package problem_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

var update = flag.Bool("update", false, "write docs/spec/problems.md anew")

// constants returns the string constants of type Code in table.go, by name.
func constants(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "table.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != gotoken.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != "Code" {
				continue
			}
			for i, name := range v.Names {
				text, err := strconv.Unquote(v.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out[name.Name] = text
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("table.go has no codes")
	}
	return out
}

func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	exits := map[int]bool{problem.ExitOK: true, problem.ExitFailed: true, problem.ExitUsage: true, problem.ExitNotFound: true, problem.ExitDenied: true,
		problem.ExitTemporary: true, problem.ExitExists: true, problem.ExitIntegrity: true, problem.ExitPartial: true}
	form := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	codes := map[problem.Code]bool{}
	for i, k := range problem.Table() {
		if codes[k.Code] {
			t.Errorf("%s is there twice", k.Code)
		}
		codes[k.Code] = true
		if k.Number != uint64(i)+1 {
			t.Errorf("%s: got number %d, want %d: append only", k.Code, k.Number, i+1)
		}
		if !form.MatchString(string(k.Code)) {
			t.Errorf("%q is not of lower-case words joined by '-'", k.Code)
		}
		if k.HTTP != 200 && (k.HTTP < 400 || k.HTTP > 599) || !exits[k.Exit] {
			t.Errorf("%s: got status %d and exit %d", k.Code, k.HTTP, k.Exit)
		}
		if k.Retry != problem.Never && k.Retry != problem.Later {
			t.Errorf("%s: got retry %d", k.Code, k.Retry)
		}
		if k.Title == "" || strings.HasSuffix(k.Title, ".") || strings.Contains(k.Title, "\n") {
			t.Errorf("%s: got the title %q, want one sentence without full stop", k.Code, k.Title)
		}
		if !strings.HasSuffix(k.Remedy, ".") || strings.Contains(k.Remedy, "\n") {
			t.Errorf("%s: got the remedy %q, want one sentence", k.Code, k.Remedy)
		}
		if c := k.Cause(); !strings.HasSuffix(c, ".") || strings.Contains(c, "\n") || strings.Contains(c, "|") {
			t.Errorf("%s: got the cause %q, want one sentence: add it to causes.go", k.Code, c)
		}
		if got := problem.Lookup(k.Code); got != k {
			t.Errorf("%s: got %+v", k.Code, got)
		}
		if got, ok := problem.ByNumber(k.Number); !ok || got != k {
			t.Errorf("%d: got %+v %v", k.Number, got, ok)
		}
	}
	names := constants(t)
	for name, code := range names {
		if !codes[problem.Code(code)] {
			t.Errorf("%s = %q has no row", name, code)
		}
	}
	if len(names) != len(codes) {
		t.Errorf("got %d constants and %d rows, want as many", len(names), len(codes))
	}
}

func TestUnknownIsAFailure(t *testing.T) {
	t.Parallel()
	if k := problem.Lookup("from-a-newer-peer"); k.Exit == problem.ExitOK || k.Code != problem.Internal {
		t.Errorf("got %+v, want the row of internal", k)
	}
	for _, n := range []uint64{0, uint64(len(problem.Table())) + 1, 1 << 62} {
		if k, ok := problem.ByNumber(n); ok || k != (problem.Kind{}) {
			t.Errorf("%d: got %+v, want none", n, k)
		}
	}
	rows := problem.Table()
	rows[0].Title = "changed by a caller"
	if problem.Table()[0].Title == rows[0].Title {
		t.Error("Table gave its own rows away")
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	cause := errors.New("/secret/path: no such file")
	taken := problem.Wrap(cause, problem.Taken, "The name %q exists.", "x")
	for _, tc := range []struct {
		err   error
		want  problem.Code
		retry bool
	}{
		{nil, "", false},
		{taken, problem.Taken, false},
		{fmt.Errorf("publishing: %w", taken), problem.Taken, false},
		{problem.Wrap(taken, problem.Internal, "Outer."), problem.Internal, true},
		{context.Canceled, problem.Cancelled, false},
		{fmt.Errorf("waiting: %w", context.DeadlineExceeded), problem.Timeout, true},
		{cause, problem.Internal, true},
		{problem.New(problem.DiskFull, "Full."), problem.DiskFull, true},
	} {
		if got := problem.Of(tc.err); got != tc.want || problem.MayRetry(tc.err) != tc.retry {
			t.Errorf("%v: got %q %v, want %q %v", tc.err, got, problem.MayRetry(tc.err), tc.want, tc.retry)
		}
	}
	if !errors.Is(taken, cause) {
		t.Error("the cause is not seen through")
	}
}

// TestNothingLeaks: the public texts never hold the cause.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	cause := errors.New("/secret/path: no such file")
	for _, err := range []error{cause, problem.Wrap(cause, problem.Taken, "The name exists."), fmt.Errorf("opening: %w", cause)} {
		e := problem.As(err)
		if strings.Contains(e.Sentence()+e.Advice(), "secret") || e.Sentence() == "" || e.Advice() == "" {
			t.Errorf("%v: got %q %q", err, e.Sentence(), e.Advice())
		}
		if !strings.Contains(e.Error(), "secret") {
			t.Errorf("%v: got %q for our own log, want the cause", err, e.Error())
		}
	}
	if problem.As(nil) != nil {
		t.Error("got an error for nil")
	}
	e := &problem.Error{Code: problem.Taken, Remedy: "Look."}
	if e.Sentence() != problem.Lookup(problem.Taken).Title || e.Advice() != "Look." {
		t.Errorf("got %q %q", e.Sentence(), e.Advice())
	}
}

const head = `# Problems

Version 1. Written by ` + "`go test ./token/problem -update`" + `; do not edit.

Every failure that crosses a wire is one of these. A *code* never changes its
number or its meaning, and rows are only appended. Over HTTP a problem is
` + "`application/problem+json`" + ` (RFC 9457) with the member ` + "`code`" + `; over QUIC the
number is the application error code (RFC 9000 section 19.19); the command line
ends with the exit code. A receiver that does not know a code MUST treat it as
` + "`internal`" + `. *Retry* says whether the same request may succeed later without any
change by the asker.

The member ` + "`type`" + ` of a problem is ` + "`/problems/`" + ` and the code, relative to the broker that sent it (RFC 3986 section 5).
` + "`GET /problems/{code}`" + ` answers the row of that code, to everybody: it is the only path that needs no certificate.

## Exit codes

| exit | meaning |
|---:|---|
| 0 | ok |
| 1 | failed |
| 2 | usage: the command, the configuration or the input is wrong |
| 3 | not found |
| 4 | denied |
| 5 | temporary: try again |
| 6 | exists |
| 7 | integrity: bytes or statements contradict each other |
| 8 | partial: some items were not transferred |
| 75 | the time given to --wait is over; the transfer goes on |
| 130 | interrupted |

## Codes

| number | code | HTTP | exit | retry | title | cause | remedy |
|---:|---|---:|---:|---|---|---|---|
`

func TestPageIsFresh(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(head)
	for _, k := range problem.Table() {
		retry := "never"
		if k.Retry == problem.Later {
			retry = "later"
		}
		fmt.Fprintf(&b, "| %d | `%s` | %d | %d | %s | %s | %s | %s |\n", k.Number, k.Code, k.HTTP, k.Exit, retry, k.Title, k.Cause(), k.Remedy)
	}
	const path = "../../docs/spec/problems.md"
	if *update {
		if err := os.MkdirAll("../../docs/spec", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/spec/problems.md is stale; run go test ./token/problem -update")
	}
	for _, n := range []int{problem.ExitOK, problem.ExitFailed, problem.ExitUsage, problem.ExitNotFound, problem.ExitDenied, problem.ExitTemporary,
		problem.ExitExists, problem.ExitIntegrity, problem.ExitPartial, problem.ExitWaitTimeout, problem.ExitInterrupted} {
		if !strings.Contains(head, fmt.Sprintf("\n| %d | ", n)) {
			t.Errorf("exit code %d is not on the page", n)
		}
	}
}
