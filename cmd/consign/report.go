package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// An ending is an error that has an exit status of its own. Its text is printed as it
// stands; an empty one prints nothing, because all was said.
type ending struct {
	code int
	text string
}

func (e *ending) Error() string { return e.text }

// An exitAs is an error with another exit status than that of its code.
type exitAs struct {
	code int
	err  error
}

func (e *exitAs) Error() string { return e.err.Error() }

// Unwrap returns the error that is printed.
func (e *exitAs) Unwrap() error { return e.err }

// report prints err and returns the exit status for it.
func (a *app) report(err error) int {
	if err == nil {
		return problem.ExitOK
	}
	var end *ending
	if errors.As(err, &end) {
		if end.text != "" {
			fmt.Fprintln(a.err, end.text)
		}
		return end.code
	}
	if errors.Is(err, context.Canceled) && problem.Of(err) == problem.Cancelled {
		fmt.Fprintln(a.err, "consign: interrupted")
		return problem.ExitInterrupted
	}
	p := problem.As(a.signers.explain(err))
	if p.Code == problem.Internal && p.Detail == "" {
		// Nothing of ours classified it: it is of this machine, and its text is fit for its owner.
		p = &problem.Error{Code: problem.Internal, Detail: upperFirst(err.Error()), Remedy: "Correct what is named and try again."}
	}
	if a.format != table {
		a.reportJSON(p)
	} else {
		a.reportText(p)
	}
	var as *exitAs
	if errors.As(err, &as) {
		return as.code
	}
	return problem.Lookup(p.Code).Exit
}

func (a *app) reportText(p *problem.Error) {
	fmt.Fprintf(a.err, "consign: %s (%s)\n", printableLines(strings.TrimSuffix(p.Sentence(), ".")), printable(string(p.Code)))
	if cause := causeText(p); cause != "" {
		fmt.Fprintf(a.err, "cause: %s\n", printableLines(cause))
	}
	if advice := p.Advice(); advice != "" {
		fmt.Fprintf(a.err, "hint: %s\n", printable(advice))
	}
}

// causeText is the cause of a problem that was found on this machine, unless it says the same again.
func causeText(p *problem.Error) string {
	if p.Cause == nil || strings.Contains(p.Sentence(), p.Cause.Error()) {
		return ""
	}
	if inner, ok := p.Cause.(*problem.Error); ok && inner.Cause == nil && strings.Contains(p.Sentence(), strings.TrimSuffix(inner.Sentence(), ".")) { //nolint:errorlint // what is wrapped deeper has more to say
		return ""
	}
	return p.Cause.Error()
}

func (a *app) reportJSON(p *problem.Error) {
	data, err := json.Marshal(api.ProblemOf(p))
	if err != nil {
		a.reportText(p)
		return
	}
	fmt.Fprintf(a.err, "%s\n", data)
}

// exitCodesTopic is the help topic that 'consign help exit-codes' shows.
func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("The exit status is stable; no number is ever used again for anything else.\n\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, row.text)
	}
	b.WriteString("\nThe code in brackets that ends an error, for example (taken), is stable too. Each has one\nexit status:\n\n")
	for _, row := range exitTable {
		var codes []string
		for _, k := range problem.Table() {
			if k.Exit == row.code {
				codes = append(codes, string(k.Code))
			}
		}
		if len(codes) > 0 {
			fmt.Fprintf(&b, "  %3d  %s\n", row.code, strings.Join(wrapWords(codes, 80), "\n       "))
		}
	}
	return &cobra.Command{Use: "exit-codes", Short: "The exit status of consign", Long: strings.TrimRight(b.String(), "\n")}
}

// exitTable says what each exit status means.
var exitTable = []struct {
	code int
	text string
}{
	{problem.ExitOK, "success; for a transfer that was waited for: complete"},
	{problem.ExitFailed, "failed"},
	{problem.ExitUsage, "the command, an address or the configuration is wrong"},
	{problem.ExitNotFound, "not found"},
	{problem.ExitDenied, "not permitted, or the certificate is not good"},
	{problem.ExitTemporary, "temporary; trying again may help"},
	{problem.ExitExists, "the name exists already; nothing is ever replaced"},
	{problem.ExitIntegrity, "integrity: bytes, digests or signatures do not agree"},
	{problem.ExitPartial, "partial: some items of the transfer were not transferred"},
	{problem.ExitWaitTimeout, "the time given for waiting passed; the transfer goes on"},
	{problem.ExitInterrupted, "interrupted; a transfer that was waited for goes on"},
}

// wrapWords joins words by spaces into lines of at most width bytes.
func wrapWords(words []string, width int) []string {
	var lines []string
	line := ""
	for _, w := range words {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}
