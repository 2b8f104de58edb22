package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) agentGCCommand() *cobra.Command {
	var look bool
	cmd := &cobra.Command{
		Use: "gc", Short: "Find what unfinished work left in the stores, and remove what nobody needs",
		Long: `List everything unpublished in the stores of this agent's containers (stage files, multipart uploads, blocks, part
objects) with a verdict, and remove the orphans: what is certainly ours and belongs to no unfinished batch. What may be
somebody else's is never touched. A running agent does the same by itself; while one uses the state folder, this command
only looks.

  live      of a batch in the journals: it is needed
  dropped   was an orphan, and is removed
  orphan    ours and of no unfinished batch, but not removed: --dry-run, an agent runs, or it failed
  expiring  ours and of no unfinished batch; the service itself removes it, at the time given
  unknown   it cannot be told whose it is: left alone
  foreign   another agent's or another program's: left alone

The exit status is 0 if every store was looked through and no removal failed.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mode := agent.DropOrphans
			if look {
				mode = agent.LookOnly
			}
			return a.agentGC(cmd, mode)
		},
	}
	cmd.Flags().BoolVar(&look, "dry-run", false, "only look")
	cmd.Flags().String("state", "", "the agent keeps its state in this `folder`")
	return cmd
}

// A collected is one container in the JSON of 'consign agent gc'.
type collected struct {
	Container token.Container       `json:"container"`
	Lists     bool                  `json:"lists"` // found by asking the store; false: only what the journal has noted
	Counts    map[agent.Verdict]int `json:"counts"`
	Findings  []finding             `json:"findings"`
	Problem   *problemReport        `json:"problem,omitempty"`
}

// A finding is one leftover. Times are zero, and left out, where they are not known.
type finding struct {
	Container token.Container  `json:"-"`
	Verdict   agent.Verdict    `json:"verdict"`
	Kind      string           `json:"kind"`
	Name      token.ObjectName `json:"name,omitempty"`
	ID        string           `json:"id,omitempty"`
	Batch     string           `json:"batch,omitempty"`
	Since     time.Time        `json:"since,omitzero"`
	Expires   time.Time        `json:"expires,omitzero"`
}

// A problemReport is a failure in a result.
type problemReport struct {
	Code   problem.Code `json:"code"`
	Detail string       `json:"detail"`
	Cause  string       `json:"cause,omitempty"`
}

func reportOf(err error) *problemReport {
	if err == nil {
		return nil
	}
	p := problem.As(err)
	return &problemReport{Code: p.Code, Detail: p.Sentence(), Cause: causeText(p)}
}

func (a *app) agentGC(cmd *cobra.Command, mode agent.CollectMode) error {
	cfg, values, err := a.agentSettings(cmd)
	if err != nil {
		return err
	}
	conf, _, err := a.openAgent(cmd.Context(), cfg, values)
	if err != nil {
		return err
	}
	defer closeStores(conf)
	r, err := agent.Collect(cmd.Context(), conf, mode)
	if err != nil {
		return err
	}
	return errors.Join(a.printCollected(r), failedContainers(r))
}

// failedContainers returns the failure of the first container whose report is not whole.
func failedContainers(r agent.Report) error {
	for _, c := range r.Containers {
		if c.Err != nil {
			return inContainer(c.Container, c.Err)
		}
	}
	return nil
}

func (a *app) printCollected(r agent.Report) error {
	all := make([]collected, 0, len(r.Containers))
	for _, c := range r.Containers {
		one := collected{Container: c.Container, Lists: c.Lists, Counts: c.Counts, Findings: []finding{}, Problem: reportOf(c.Err)}
		for _, f := range c.Findings {
			one.Findings = append(one.Findings, finding{
				Container: c.Container, Verdict: f.Verdict, Kind: f.Kind, Name: f.Name, ID: f.ID, Batch: string(f.Batch), Since: f.Since, Expires: f.Expires,
			})
		}
		all = append(all, one)
	}
	if a.format != table {
		return a.printJSON(map[string]any{"running": r.Running, "containers": all})
	}
	if r.Running {
		a.note("an agent uses this state folder, so nothing was removed here; it removes its orphans by itself within a minute")
	}
	if err := a.printFindings(all); err != nil {
		return err
	}
	for _, c := range all {
		a.note("%s: %s", printable(string(c.Container)), countsText(c.Counts))
		if !c.Lists {
			a.note("%s: the store cannot list what is staged in it, so this works from the journal: what the journal does not know of is not found", printable(string(c.Container)))
		}
	}
	return nil
}

func (a *app) printFindings(all []collected) error {
	out := newPrinter(a, []string{"CONTAINER", "VERDICT", "KIND", "NAME", "BATCH", "SINCE", "EXPIRES"}, func(f finding) []string {
		return []string{
			printable(string(f.Container)), string(f.Verdict), f.Kind, printable(orExample(string(f.Name), "-")), orExample(f.Batch, "-"),
			timeText(f.Since), timeText(f.Expires),
		}
	})
	for _, c := range all {
		for _, f := range c.Findings {
			if err := out.Print(f); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// countsText is how many there are of each verdict.
func countsText(counts map[agent.Verdict]int) string {
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(counts)) {
		if counts[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[v], v))
		}
	}
	if len(parts) == 0 {
		return "nothing is left over"
	}
	return strings.Join(parts, ", ")
}
