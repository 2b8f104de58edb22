package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) agentCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "agent", Short: "Run a provider's agent",
		Long: `Run a provider's agent in the foreground, with a log of JSON lines on standard error. SIGTERM stops it in
order: what is under way finishes, journals stay and it goes on at the next start. SIGHUP reads its policy and
certificates again. The configuration is agent.yaml; 'consign agent init' prints one, for each kind of store.
'consign agent probe' measures the stores without starting, and 'consign agent gc' tells what was left in them.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runAgent(cmd, check) },
	}
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration, print it with the origin of each value, and end")
	daemonFlags(cmd)
	cmd.AddCommand(a.agentInitCommand(), a.agentProbeCommand(), a.agentGCCommand())
	return cmd
}

// daemonFlags adds the flags that stand for settings which both daemons have.
func daemonFlags(cmd *cobra.Command) {
	cmd.Flags().String("listen", "", "listen at this `address`")
	cmd.Flags().String("admin", "", "answer /livez, /readyz and /metrics at this `address`")
	cmd.Flags().String("state", "", "keep state in this `folder`")
	cmd.Flags().String("log-level", "", "log from this `level` on: debug, info, warn or error")
}

var daemonKeys = map[string]string{"listen": "listen", "admin": "admin", "state": "state", "log-level": "log_level"}

func (a *app) agentSettings(cmd *cobra.Command) (agentConfig, []setting, error) {
	cfg := agentConfig{trustConfig: trustConfig{CRLStale: "refuse"}, Lanes: agent.DefaultLanes, Slots: agent.DefaultSlots, LogLevel: "info"}
	values, err := a.daemonSettings(cmd, &cfg, "agent.yaml", "'consign agent init' prints one to begin with.")
	return cfg, values, err
}

// daemonSettings fills cfg, a pointer to a daemon's configuration, which must be in a file.
func (a *app) daemonSettings(cmd *cobra.Command, cfg any, name, remedy string) ([]setting, error) {
	files, err := a.files(name)
	if err != nil {
		return nil, err
	}
	got, err := a.load(cfg, loading{files: files, flags: cmd.Flags(), flagKey: daemonKeys})
	if err != nil {
		return nil, err
	}
	if len(got.files) == 0 {
		return nil, noConfig(files, remedy)
	}
	return got.settings(cfg), nil
}

func noConfig(files []string, remedy string) error {
	return &problem.Error{
		Code: problem.BadConfig, Detail: "There is no configuration; looked for " + files[len(files)-1] + " and " + files[0],
		Remedy: "Name one with --config or " + envConfig + "; " + remedy,
	}
}

func (a *app) runAgent(cmd *cobra.Command, check bool) error {
	cfg, values, err := a.agentSettings(cmd)
	if err != nil {
		return err
	}
	if !check {
		if err := a.enrolFirst(cmd.Context(), cfg.Identity, cfg.trustConfig, cfg.LogLevel); err != nil {
			return err
		}
	}
	conf, id, err := a.openAgent(cmd.Context(), cfg, values)
	if err != nil {
		return err
	}
	defer closeStores(conf)
	if check {
		return a.check(append(values, policySettings(conf.Exports, values)...))
	}
	if err := id.pair.Preflight(a.now()); err != nil && id.renewer == nil {
		return err
	}
	files, err := a.files("agent.yaml")
	if err != nil {
		return err
	}
	reread := func() (agentConfig, error) { c, _, err := a.agentSettings(cmd); return c, err }
	return a.serveAgent(cmd.Context(), cfg, conf, id, &policyFiles{files: files, read: reread, log: conf.Logger})
}

// openAgent turns settings into the configuration of an agent that could start. Its stores are the caller's to close.
func (a *app) openAgent(ctx context.Context, cfg agentConfig, values []setting) (agent.Config, *identity, error) {
	log, err := a.logger(cfg.LogLevel)
	if err != nil {
		return agent.Config{}, nil, err
	}
	id, err := a.openIdentity(ctx, cfg.Identity, believing{cfg.trustConfig, cfg.Federation}, log)
	if err != nil {
		return agent.Config{}, nil, err
	}
	conf, err := cfg.agent(id, log)
	if err != nil {
		return conf, nil, err
	}
	if err := cfg.believesEnough(id.pair.Identity().Provider()); err != nil {
		return conf, nil, err
	}
	if conf.Groups, err = cfg.readGroups(); err != nil {
		return conf, nil, err
	}
	if conf.Exports, err = a.openExports(cfg.Exports, values, log); err != nil {
		return conf, nil, err
	}
	if err := conf.Check(); err != nil {
		closeStores(conf)
		return conf, nil, err
	}
	return conf, id, nil
}

// agent returns the configuration for package agent but its exports.
func (c agentConfig) agent(id *identity, log *zap.Logger) (agent.Config, error) {
	conf := agent.Config{
		Pair: id.pair, Trust: id.trust, State: string(c.State), Listen: c.Listen, Advertise: c.Advertise,
		Lanes: c.Lanes, Slots: c.Slots, Rate: int64(c.Rate), Version: version, Logger: log,
	}
	var err error
	if conf.Dial.Allow, err = networks("dial.allow", c.Dial.Allow); err != nil {
		return conf, err
	}
	for _, b := range c.Brokers {
		conf.Brokers = append(conf.Brokers, agent.Broker{ID: b.ID, URL: b.URL})
	}
	return conf, nil
}

// believesEnough reports whether there are authorities for those whom every agent has to believe: the accounts of its own provider and
// its brokers. Without them it would start, and refuse everything.
func (c agentConfig) believesEnough(own token.Provider) error {
	if _, ok := c.Trust[own]; !ok {
		return problem.New(problem.BadConfig, "The setting trust names no bundle of %q, whose accounts sign the orders that this agent carries out", own)
	}
	for _, b := range c.Brokers {
		if p := b.ID.Provider(); p != "" && c.Trust[p] == "" {
			return problem.New(problem.BadConfig, "The setting trust names no bundle of %q, the domain of the broker %s", p, b.ID)
		}
	}
	return nil
}

// networks reads the networks of a setting.
func networks(setting string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, n := range texts {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, problem.New(problem.BadConfig, "The setting %s holds %s, which is not a network as in 10.0.0.0/8", setting, quoted(n))
		}
		out = append(out, prefix)
	}
	return out, nil
}

func closeStores(conf agent.Config) {
	for _, e := range conf.Exports {
		if err := e.Store.Close(); err != nil && conf.Logger != nil {
			logError(conf.Logger, "closing a store", err)
		}
	}
}

func (a *app) serveAgent(ctx context.Context, cfg agentConfig, conf agent.Config, id *identity, local *policyFiles) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	id.measure(registry)
	conf.Metrics = registry
	var admin net.Listener
	if cfg.Admin != "" {
		var err error
		if admin, err = listenTCP(ctx, cfg.Admin); err != nil {
			return err
		}
		defer admin.Close()
	}
	g, err := agent.Open(ctx, conf)
	if err != nil {
		return fmt.Errorf("opening the agent: %w", err)
	}
	local.set = g.SetPolicy
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Run(ctx) })
	group.Go(func() error { return local.Run(ctx) })
	group.Go(func() error { return id.Run(ctx) })
	if admin != nil {
		srv := adminServer(registry, func() error { return nil })
		group.Go(func() error { return serveHTTP(ctx, srv, func() error { return srv.Serve(admin) }) })
	}
	conf.Logger.Info("ready", zap.String("identity", string(id.pair.Identity())), zap.String("version", version),
		zap.Stringer("listen", g.Addr()), zap.String("admin", cfg.Admin), zap.Int("exports", len(conf.Exports)))
	err = group.Wait()
	conf.Logger.Info("stopped", zap.Error(err))
	return err
}
