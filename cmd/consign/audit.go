package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxRunLine bounds a line of a file of audit records, in bytes: a run in full.
const maxRunLine = 16 << 20

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Show and verify what was recorded of attempts at access",
		Long: `Show and verify what was recorded of attempts at access: those that an AUDIT entry of an access control list names, and
those of owners and administrators who were let into a root container by what they are. The records of a
root container are for its owner, for who may read its list, and for the provider's administrators; those of a whole provider, as
north:, for its administrators alone.`,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.auditListCommand(), a.auditVerifyCommand())
	return cmd
}

func (a *app) auditListCommand() *cobra.Command {
	var q api.AuditQuery
	var since, until string
	cmd := &cobra.Command{
		Use: "list ADDRESS", Aliases: []string{"ls"}, Short: "List the records of a place and of all below it", Args: exactly("ADDRESS"),
		Long: `List the records of a place and of all below it, the oldest first. Each has a number; --after goes on behind one. A
record stands for one attempt at one place, or for a page of a listing of which the same is to be said: then it has the number of
names, and with -o json the first and the last of them.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			q.Place = args[0]
			if q.Since, err = moment(cmd, "since", since); err != nil {
				return err
			}
			if q.Until, err = moment(cmd, "until", until); err != nil {
				return err
			}
			if q.After < 0 {
				return usage(cmd, "The number of --after is negative")
			}
			return a.auditList(cmd, q)
		},
	}
	cmd.Flags().StringVar(&q.Who, "who", "", "only the attempts of this `identity`, or of a subscriber of the provider by its name")
	cmd.Flags().StringVar(&since, "since", "", "only from this `time` on, as 2026-03-01 or 2026-03-01T12:00:00Z")
	cmd.Flags().StringVar(&until, "until", "", "only up to this `time`")
	cmd.Flags().Int64Var(&q.After, "after", 0, "begin behind the record of this `number`")
	addClientFlags(cmd)
	return cmd
}

// moment reads the time of a flag; zero if it is not given.
func moment(cmd *cobra.Command, flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage(cmd, "--%s is %s and must be a time as 2026-03-01 or 2026-03-01T12:00:00Z", flag, quoted(s))
}

// auditPlace reads an address, or a provider with a colon behind it.
func auditPlace(s string) (token.Provider, error) {
	if p, ok := strings.CutSuffix(s, ":"); ok {
		return token.Provider(p), token.CheckProvider(token.Provider(p))
	}
	at, err := parseAddress(s)
	return at.Provider, err
}

// auditClient opens a session and returns the client of the account that asks about a place. The session must be closed.
func (a *app) auditClient(cmd *cobra.Command, place string) (*session, *api.Client, error) {
	at, err := auditPlace(place)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.open(cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := s.preflight(); err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, s.client(at), nil
}

func (a *app) auditList(cmd *cobra.Command, q api.AuditQuery) error {
	if q.Who != "" {
		p, err := auditPlace(q.Place)
		if err != nil {
			return err
		}
		if q.Who, err = expandWho(q.Who, p); err != nil {
			return err
		}
	}
	s, c, err := a.auditClient(cmd, q.Place)
	if err != nil {
		return err
	}
	defer s.Close()
	out := newPrinter(a, []string{"N", "TIME", "WHO", "DID", "PLACE", "WANTED", "OUTCOME", "NAMES"}, func(r api.AuditRecord) []string {
		who := r.Who
		if who == "" {
			who = "(anonymous)"
		}
		return []string{strconv.FormatInt(r.N, 10), timeText(r.At), who, r.Op, r.Place.String(), maskText(r.Want, r.Kind), string(r.Outcome), strconv.FormatInt(r.Items, 10)}
	})
	for {
		page, err := c.Audit(cmd.Context(), q)
		if err != nil {
			return err
		}
		for _, r := range page.Items {
			if err := out.Print(r); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return out.Close()
		}
		after, err := strconv.ParseInt(page.Next, 10, 64)
		if err != nil || after <= q.After {
			return problem.New(problem.Unavailable, "The broker's answer could not be read: the next page is before this one")
		}
		q.After = after
	}
}

// maskText is a mask by the names of a kind, or as it came.
func maskText(mask, kind string) string {
	m, err := acl.ParseMask(mask)
	if err != nil {
		return mask
	}
	if kind == acl.Container.String() {
		return m.Text(acl.Container)
	}
	return m.Text(acl.Object)
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "verify ADDRESS", Short: "Verify that no record was changed, added or left out", Args: exactly("ADDRESS"),
		Long: `Verify the records of all places against the roots that the broker's ledger has of them, one for each thousand records or minute. Records
that these accounts may not see take part by their hash. Those that the broker's operator moved to files are counted; with -f the
runs in such a file are verified instead. The exit status is 7 if anything is wrong.

What is not shown is that the broker recorded everything, nor that its ledger is the one that others see.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.auditVerify(cmd, args[0], files) },
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "verify the records in this `file` of the broker's state folder; may be repeated, in order")
	addClientFlags(cmd)
	return cmd
}

func (a *app) auditVerify(cmd *cobra.Command, place string, files []string) error {
	s, c, err := a.auditClient(cmd, place)
	if err != nil {
		return err
	}
	defer s.Close()
	chain := &audit.Chain{}
	if len(files) == 0 {
		err = verifyRuns(cmd.Context(), c, place, chain)
	}
	for _, f := range files {
		if err == nil {
			err = verifyFile(cmd.Context(), c, place, f, chain)
		}
	}
	if err != nil {
		return err
	}
	if a.format != table {
		return a.printJSON(chain.Counts)
	}
	a.note("good: %d runs, %d records and the hashes of %d more make up the roots in the ledger; %d are in files of the broker's operator",
		chain.Counts.Runs, chain.Counts.Records, chain.Counts.Hidden, chain.Counts.Pruned)
	return nil
}

// An auditSource is the broker as far as it says what is in the ledger of audit records.
type auditSource interface {
	AuditRuns(ctx context.Context, place string, from int64) (api.Page[api.AuditRun], error)
	AuditProof(ctx context.Context, place string, first int64) (api.AuditProof, error)
}

// verifyRuns verifies every run that the broker has.
func verifyRuns(ctx context.Context, c auditSource, place string, chain *audit.Chain) error {
	for from := int64(1); ; {
		page, err := c.AuditRuns(ctx, place, from)
		if err != nil {
			return err
		}
		for _, run := range page.Items {
			p, err := c.AuditProof(ctx, place, run.First)
			if err != nil {
				return err
			}
			if err := chain.Add(p); err != nil {
				return err
			}
			from = run.First + run.Records
		}
		if page.Next == "" || len(page.Items) == 0 {
			return nil
		}
	}
}

// verifyFile verifies the runs in a file against the leaves that the broker has.
func verifyFile(ctx context.Context, c auditSource, place, name string, chain *audit.Chain) error {
	f, err := os.Open(name)
	if err != nil {
		return problem.Wrap(err, problem.Unreadable, "The file %s cannot be read", quoted(name))
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxRunLine)
	for lines.Scan() {
		var p api.AuditProof
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return problem.Wrap(err, problem.Malformed, "The file %s is not one of audit records", quoted(name))
		}
		known, err := c.AuditProof(ctx, place, p.Run.First)
		if err != nil {
			return err
		}
		if chain.Counts.Runs == 0 {
			*chain = audit.From(p.Run.First)
		}
		p.Run, p.Leaf = known.Run, known.Leaf
		if err := chain.Add(p); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		return problem.Wrap(err, problem.Unreadable, "The file %s cannot be read", quoted(name))
	}
	if chain.Counts.Runs == 0 {
		return problem.New(problem.Malformed, "The file %s holds no run of audit records", quoted(name))
	}
	return nil
}
