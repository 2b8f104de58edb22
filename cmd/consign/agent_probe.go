package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) agentProbeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "probe", Short: "Measure what the stores of this agent's containers really do",
		Long: `Measure, as an agent does when it starts, what the store of each container really does: whether it creates exclusively
when several try at once, whether it lists what is staged, which parts it takes, which metadata it keeps. For that it
creates a few small objects and uploads below .consign in each container that may be created in, and removes them; a
container that is only read is listed. Nothing else is touched, and an agent may run meanwhile.

The exit status is 1 if a store is refused, even if allow_unsafe_store would let the agent start.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.agentProbe(cmd) },
	}
}

// A probed is one container in the result of 'consign agent probe'.
type probed struct {
	Container   token.Container `json:"container"`
	Store       string          `json:"store"`
	Verdict     string          `json:"verdict"` // "good", "refused", "unsafe and allowed", "failed"
	Exclusive   string          `json:"exclusive"`
	PartSize    int64           `json:"part_size,omitempty"` // bytes
	MaxParts    int64           `json:"max_parts,omitempty"`
	PartDigests string          `json:"part_digests,omitempty"`
	Lists       bool            `json:"lists"` // what is staged is found by asking the store
	Keeps       []string        `json:"keeps"` // of metadata: "mode", "mtime", "type", "meta"
	Problem     *problemReport  `json:"problem,omitempty"`
}

// Verdicts of a probe.
const (
	probeGood    = "good"
	probeRead    = "read only, and it can be listed"
	probeRefused = "refused"
	probeAllowed = "unsafe, and allowed"
	probeFailed  = "failed"
)

func (a *app) agentProbe(cmd *cobra.Command) error {
	cfg, values, err := a.agentSettings(cmd)
	if err != nil {
		return err
	}
	conf, _, err := a.openAgent(cmd.Context(), cfg, values)
	if err != nil {
		return err
	}
	defer closeStores(conf)
	out := newPrinter(a, []string{"CONTAINER", "STORE", "VERDICT", "EXCLUSIVE BY", "PARTS", "PART DIGEST", "LISTS STAGES", "KEEPS"}, probed.row)
	var first error
	for i, e := range conf.Exports {
		p, err := probe(cmd.Context(), e)
		p.Store = cfg.Exports[i].address()
		switch {
		case err == nil:
		case first == nil:
			first = err
		default: // the first is printed at the end
			a.note("%s", printable(problem.As(err).Sentence()))
		}
		if err := out.Print(p); err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), first)
}

func (p probed) row() []string {
	yes := map[bool]string{true: "yes", false: "no"}
	parts, lists := "-", "-"
	if p.PartSize > 0 {
		parts, lists = fmt.Sprintf("%d x %s", p.MaxParts, bytesText(p.PartSize)), yes[p.Lists]
	}
	return []string{
		printable(string(p.Container)), printable(p.Store), p.Verdict, orExample(p.Exclusive, "-"), parts, orExample(p.PartDigests, "-"), lists,
		orExample(strings.Join(p.Keeps, ","), "-"),
	}
}

// probe measures one container. The error is why the agent would not start, or would not if it were not allowed by name.
func probe(ctx context.Context, e agent.Export) (probed, error) {
	p := probed{Container: e.Container, Verdict: probeGood, Keeps: []string{}}
	if !e.Creates() {
		err := e.Store.List(ctx, "", "", func(store.Info, error) bool { return false })
		if p.Verdict = probeRead; err != nil {
			p.Verdict = probeFailed
		}
		p.Problem = reportOf(err)
		return p, inContainer(e.Container, err)
	}
	t, err := e.Store.Probe(ctx)
	p.Exclusive, p.PartSize, p.MaxParts, p.PartDigests, p.Lists = t.Exclusive, t.PartSize, t.MaxParts, t.PartDigests, t.Lists
	for _, k := range []struct {
		name string
		is   bool
	}{{"mtime", t.ModTimes}, {"mode", t.Modes}, {"type", t.Types}, {"meta", t.Meta}} {
		if k.is {
			p.Keeps = append(p.Keeps, k.name)
		}
	}
	switch {
	case err == nil:
	case problem.Of(err) == problem.NotExclusive && e.Unsafe:
		p.Verdict = probeAllowed
	case problem.Of(err) == problem.NotExclusive || problem.Of(err) == problem.BadConfig:
		p.Verdict = probeRefused
	default:
		p.Verdict = probeFailed
	}
	p.Problem = reportOf(err)
	err = inContainer(e.Container, err)
	if p.Verdict == probeRefused || p.Verdict == probeAllowed {
		err = &exitAs{problem.ExitFailed, err}
	}
	return p, err
}

// inContainer puts the container before what is wrong with it.
func inContainer(c token.Container, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	p := problem.As(err)
	return &problem.Error{Code: p.Code, Detail: fmt.Sprintf("The container %s: %s", quoted(string(c)), p.Sentence()), Remedy: p.Remedy, Cause: p.Cause}
}
