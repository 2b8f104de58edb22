package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxGroupsSize bounds the file of groups, bytes.
const maxGroupsSize = 16 << 20

// A ruleConfig lets some accounts do something below a name. The first rule of an export that fits the account, the right, the name and the
// peer decides; what none fits is refused.
type ruleConfig struct {
	// Who are identities of subscribers of the own provider, group:NAME, or * for every one of them. Needed.
	Who []policy.Who `koanf:"who"`
	// May are read, create, list and erase. Needed.
	May []policy.Right `koanf:"may"`
	// Below is a name in the container, as in archive/2026: the rule is for it and all below it. Default: all of the container.
	Below token.ObjectName `koanf:"below"`
	// From are the providers whose objects may be created here. Default: any.
	From []token.Provider `koanf:"from"`
	// To are the providers that objects may be read to. Default: any.
	To []token.Provider `koanf:"to"`
	// MaxObject bounds one object, as in 1GiB. Default 0, no bound.
	MaxObject size `koanf:"max_object"`
	// MaxBatchBytes and MaxBatchItems bound what is read or created at once. Default 0, no bound but the format's.
	MaxBatchBytes size  `koanf:"max_batch_bytes"`
	MaxBatchItems int64 `koanf:"max_batch_items"`
	// Rate bounds the bytes a second of all that the rule allows, each way. Default 0, no bound.
	Rate size `koanf:"rate"`
}

func (r ruleConfig) rule() policy.Rule {
	return policy.Rule{Who: r.Who, May: r.May, Below: r.Below, From: r.From, To: r.To, Limits: policy.Limits{
		Object: int64(r.MaxObject), Bytes: int64(r.MaxBatchBytes), Items: r.MaxBatchItems, Rate: int64(r.Rate),
	}}
}

// export is what the configuration says of a container, without its store.
func (e exportConfig) export() agent.Export {
	out := agent.Export{
		Container: e.Container, Read: e.Read, Create: e.Create, Unsafe: e.AllowUnsafeStore, Subscribers: e.Subscribers, Brokers: e.Brokers,
		Session: e.Session, Place: e.Place, Owner: e.Owner,
	}
	for _, r := range e.Rules {
		out.Rules = append(out.Rules, r.rule())
	}
	return out
}

// readGroups returns the groups of the configuration and those of the file that it names.
func (c agentConfig) readGroups() (policy.Groups, error) {
	groups := policy.Groups{}
	maps.Copy(groups, c.Groups)
	if c.GroupsFile == "" {
		return groups, nil
	}
	data, err := readBounded(string(c.GroupsFile), maxGroupsSize)
	if err != nil {
		return nil, err
	}
	read, err := strictYAML{file: string(c.GroupsFile), shape: shapeOf(reflect.TypeFor[policy.Groups]()), origin: map[string]string{}}.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	for name, list := range read {
		if _, twice := groups[name]; twice {
			return nil, problem.New(problem.BadConfig, "The group %s is both in the configuration and in %s", quoted(name), quoted(string(c.GroupsFile)))
		}
		members, ok := list.([]any)
		if !ok {
			return nil, problem.New(problem.BadConfig, "The group %s is not a list", quoted(name))
		}
		groups[name] = make([]token.Identity, len(members))
		for i, m := range members {
			groups[name][i] = token.Identity(fmt.Sprint(m))
		}
	}
	return groups, nil
}

// readBounded reads a regular file of at most limit bytes; problem.BadConfig otherwise.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The file %s cannot be read", quoted(name))
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, problem.Wrap(err, problem.BadConfig, "%s is not a file", quoted(name))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The file %s cannot be read", quoted(name))
	}
	if int64(len(data)) > limit {
		return nil, problem.New(problem.BadConfig, "The file %s is larger than %d bytes", quoted(name), limit)
	}
	return data, nil
}

// A policyFiles keeps an agent's local policy as its files have it: the rules of the exports, the groups and the file of groups. All else
// in them is read at start alone.
type policyFiles struct {
	files []string                                  // of the configuration, of which some may not exist
	read  func() (agentConfig, error)               // reads them
	set   func([]agent.Export, policy.Groups) error // agent.SetPolicy
	log   *zap.Logger

	mu     sync.Mutex        // guards all below
	groups string            // the file of groups, as it was named last
	print  [sha256.Size]byte // of what is in use; zero, so that the files are read once more, if nobody knows whether they have changed since
}

// Reload is certs.Reloader.
func (p *policyFiles) Reload() (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	print, err := p.fingerprint()
	if err != nil || print == p.print {
		return false, err
	}
	cfg, err := p.read()
	if err != nil {
		return false, err
	}
	groups, err := cfg.readGroups()
	if err != nil {
		return false, err
	}
	exports := make([]agent.Export, len(cfg.Exports))
	for i, e := range cfg.Exports {
		exports[i] = e.export()
	}
	if err := p.set(exports, groups); err != nil {
		return false, err
	}
	if p.groups != string(cfg.GroupsFile) { // another file of groups, which is not in the print
		p.groups, print = string(cfg.GroupsFile), [sha256.Size]byte{}
	}
	p.print = print // of before they were read: what has changed meanwhile is read once more
	return true, nil
}

// fingerprint tells two states of the files apart.
func (p *policyFiles) fingerprint() (out [sha256.Size]byte, err error) {
	h := sha256.New()
	names := p.files
	if p.groups != "" {
		names = append(names[:len(names):len(names)], p.groups)
	}
	for _, name := range names {
		data, err := readBounded(name, maxGroupsSize)
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprint(h, "none ")
			continue
		}
		if err != nil {
			return out, err
		}
		fmt.Fprintf(h, "%d ", len(data))
		h.Write(data)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Run reads the files again when they change and at SIGHUP, until ctx ends. What is not good is logged, and the policy in use stays.
func (p *policyFiles) Run(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			told = ""
		case <-tick.C:
		}
		_, err := p.Reload()
		if err == nil {
			told = ""
		} else if text := err.Error(); text != told {
			told = text
			logError(p.log, "reloading local policy: the one in use stays", err)
		}
	}
}

// policySettings spells the rules in effect, one a line, for --check: those that read, create and subscribers stand for as well.
func policySettings(exports []agent.Export, values []setting) []setting {
	var out []setting
	for i, e := range exports {
		from := "default"
		prefix := fmt.Sprintf("exports.%d.", i)
		for _, v := range values {
			if strings.HasPrefix(v.Key, prefix) {
				from = v.Origin
				break
			}
		}
		for n, r := range e.Rights().Rules {
			out = append(out, setting{Key: fmt.Sprintf("policy.%s.%d", e.Container, n+1), Value: r.String(), Origin: from})
		}
	}
	return out
}
