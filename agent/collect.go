package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// MaxFindings bounds the findings of one container that are listed.
const MaxFindings = 10_000

// A CollectMode says whether Collect removes what it finds. The zero value only looks.
type CollectMode int

const (
	LookOnly    CollectMode = iota
	DropOrphans             // also drop what is ours and belongs to no live batch
)

// A Verdict is what Collect makes of a leftover.
type Verdict string

// The verdicts. Nothing but an orphan is ever touched.
const (
	VerdictLive     Verdict = "live"     // of a batch in our journals: it is needed
	VerdictOrphan   Verdict = "orphan"   // ours, of no live batch, and still there
	VerdictDropped  Verdict = "dropped"  // was an orphan
	VerdictForeign  Verdict = "foreign"  // another agent's or another program's
	VerdictUnknown  Verdict = "unknown"  // cannot be told whose it is
	VerdictExpiring Verdict = "expiring" // ours, of no live batch, and only time removes it: see Leftover.Expires
)

// A Finding is one leftover.
type Finding struct {
	store.Leftover
	Verdict Verdict
}

// A ContainerReport is what was found in one container that may be created in.
type ContainerReport struct {
	Container token.Container
	Lists     bool            // leftovers were found by asking the store; false: only those that were noted
	Findings  []Finding       // at most MaxFindings
	Counts    map[Verdict]int // of all, also beyond MaxFindings
	Err       error           // why the report is not whole, or orphans are still there; nil if all went well
}

// A Report is what Collect found and did.
type Report struct {
	// Running: an agent is using the state directory. Then nothing was dropped here; the agent does so by
	// itself, at its start and once a minute.
	Running    bool
	Containers []ContainerReport // in the order of Config.Exports; only those in which anybody may create
}

// Collect reports everything unpublished that is in the stores of conf, and whose it is; with DropOrphans it drops what
// belongs to this agent and to none of its unfinished batches. It opens no socket and asks no broker. It fails with
// problem.BadConfig or with what the state directory said; failures of one container are in its report.
func Collect(ctx context.Context, conf Config, mode CollectMode) (Report, error) {
	if err := conf.Check(); err != nil {
		return Report{}, err
	}
	self := conf.Pair.Identity()
	c := &collector{conf: conf, self: self, drop: mode == DropOrphans, a: &Agent{conf: conf, self: self, boot: conf.hooks.boot}}
	err := c.open()
	if err != nil {
		return Report{}, errors.Join(err, c.close())
	}
	rep := Report{Running: c.running}
	for _, e := range conf.Exports {
		if e.Creates() {
			rep.Containers = append(rep.Containers, c.container(ctx, e))
		}
	}
	return rep, c.close()
}

// A collector is one Collect.
type collector struct {
	conf    Config
	self    token.Identity
	drop    bool
	running bool              // another process has the lock
	a       *Agent            // that never runs
	shared  disk.FS           // of a running agent; nil otherwise
	batches disk.FS           // the journals
	noted   map[string]string // of a running agent
}

// open takes the state directory, or looks at it if an agent is running. It is not made here, since every stage would be an
// orphan beside an empty one.
func (c *collector) open() error {
	if c.conf.hooks.state == nil {
		if _, err := os.Stat(c.conf.State); err != nil {
			return problem.Wrap(err, problem.BadConfig, "The state directory cannot be opened; it is what tells live stages from dead ones")
		}
	}
	if c.a.boot == "" {
		var err error
		if c.a.boot, err = journal.BootID(); err != nil {
			return err
		}
	}
	err := c.a.openState()
	if !errors.Is(err, disk.ErrLocked) {
		c.batches = c.a.batchDir
		return err
	}
	c.running, c.drop = true, false
	if c.shared, err = disk.Open(c.conf.State); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The state directory cannot be opened")
	}
	if c.noted, err = journal.ReadSet(c.shared, stagesFile, c.a.boot, time.Now()); err != nil {
		return err
	}
	if c.batches, err = c.shared.OpenDir(batchesDir); errors.Is(err, fs.ErrNotExist) {
		return problem.New(problem.Draining, "An agent has just begun to use the state directory; try again")
	}
	return err
}

func (c *collector) close() error {
	err := c.a.Close()
	if c.shared != nil {
		if c.batches != nil {
			err = errors.Join(err, c.batches.Close())
		}
		err = errors.Join(err, c.shared.Close())
	}
	return err
}

// A tally is how much was found of one batch of ours.
type tally struct{ dead, expiring int }

// container reports on one container. Leftovers are found first and live batches afterwards, so that one which begins in
// between is live.
func (c *collector) container(ctx context.Context, e Export) ContainerReport {
	rep := ContainerReport{Container: e.Container, Counts: map[Verdict]int{}}
	if c.running {
		e.Store.Keep(copyNotes(c.noted, e.Container))
	} else {
		e.Store.Keep(newNotes(c.a.stages, e.Container))
	}
	traits, err := e.Store.Probe(ctx)
	if err != nil && problem.Of(err) != problem.NotExclusive { // nothing is created here
		rep.Err = err
		return rep
	}
	rep.Lists = traits.Lists
	ours := map[store.BatchID]tally{}
	rep.Err = e.Store.Leftovers(ctx, func(l store.Leftover) bool { c.find(&rep, ours, l); return true })
	live, err := liveStages(c.batches, c.self)
	if err != nil { // anything may be live
		rep.Err = errors.Join(rep.Err, err)
		live = map[store.BatchID]bool{}
		for id := range ours {
			live[id] = true
		}
	}
	verdicts := map[store.BatchID]Verdict{}
	for id, t := range ours {
		v, err := c.judge(ctx, e.Store, id, live[id])
		rep.Err = errors.Join(rep.Err, err)
		if verdicts[id] = v; v == VerdictLive {
			rep.Counts[v] += t.dead + t.expiring
			continue
		}
		if t.dead > 0 {
			rep.Counts[v] += t.dead
		}
		if t.expiring > 0 {
			rep.Counts[VerdictExpiring] += t.expiring
		}
	}
	for i := range rep.Findings {
		f := &rep.Findings[i]
		if v, own := verdicts[f.Batch]; own && (f.Verdict == "" || v == VerdictLive) {
			f.Verdict = v
		}
	}
	return rep
}

// find takes one leftover in. The verdict on what is ours comes later.
func (c *collector) find(rep *ContainerReport, ours map[store.BatchID]tally, l store.Leftover) {
	f := Finding{Leftover: l}
	switch t := ours[l.Batch]; {
	case l.Batch == "":
		f.Verdict = VerdictUnknown
		rep.Counts[f.Verdict]++
	case !ownStages(l.Batch, c.self):
		f.Verdict = VerdictForeign
		rep.Counts[f.Verdict]++
	case l.Expires.IsZero():
		ours[l.Batch] = tally{t.dead + 1, t.expiring}
	default:
		f.Verdict = VerdictExpiring
		ours[l.Batch] = tally{t.dead, t.expiring + 1}
	}
	if len(rep.Findings) < MaxFindings {
		rep.Findings = append(rep.Findings, f)
	}
}

// judge decides about the stages of a batch of ours, and drops them if they are to be dropped.
func (c *collector) judge(ctx context.Context, s store.Store, id store.BatchID, live bool) (Verdict, error) {
	switch {
	case live:
		return VerdictLive, nil
	case !c.drop:
		return VerdictOrphan, nil
	}
	if err := dropStages(ctx, s, id); err != nil {
		return VerdictOrphan, err
	}
	return VerdictDropped, nil
}
