package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/hook"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/broker/web"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) brokerCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "broker", Short: "Run a broker",
		Long: `Run a broker in the foreground, with a log of JSON lines on standard error. Its state is made once, by 'consign
broker init'; a broker never makes anew what it expected to find. SIGTERM stops it in order, SIGHUP reads its
certificates again. The configuration is broker.yaml; docs/OPERATIONS.md shows one.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runBroker(cmd, check) },
	}
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration, print it with the origin of each value, and end")
	daemonFlags(cmd)
	cmd.AddCommand(a.brokerInitCommand(), a.brokerRotateCommand())
	return cmd
}

func (a *app) brokerInitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init", Short: "Make the state folder, the capability key and the database of a new broker", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := a.brokerSettings(cmd)
			if err != nil {
				return err
			}
			if cfg.State == "" {
				return problem.New(problem.BadConfig, "The configuration names no state folder: state is needed")
			}
			err = broker.Init(cmd.Context(), string(cfg.State))
			if errors.Is(err, fs.ErrExist) {
				return &problem.Error{
					Code: problem.Conflict, Cause: err, Detail: "There is already a broker in " + quoted(string(cfg.State)),
					Remedy: "Its state is never replaced. To begin anew, name another folder.",
				}
			}
			if err != nil {
				return err
			}
			a.note("made a broker in %s", printable(string(cfg.State)))
			return nil
		},
	}
	cmd.Flags().String("state", "", "keep state in this `folder`")
	return cmd
}

func (a *app) brokerRotateCommand() *cobra.Command {
	var revoke bool
	cmd := &cobra.Command{
		Use: "rotate-key", Short: "Have the broker sign capabilities with a new key", Args: exactly(),
		Long: `Have the broker sign capabilities with a new key. The broker may run; it sees the new key within seconds, publishes it,
signs with it once every agent has had time to fetch it (key_ahead), and publishes the one before for as long as anything that it has signed may
live. With --revoke-old the new key counts at once and the one before not at all any more: for a key that was stolen. Running
batches get new capabilities and go on.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.rotateKey(cmd, revoke) },
	}
	cmd.Flags().BoolVar(&revoke, "revoke-old", false, "let the key in use count no more, at once")
	cmd.Flags().String("state", "", "the broker's state `folder`")
	return cmd
}

func (a *app) rotateKey(cmd *cobra.Command, revoke bool) error {
	cfg, _, err := a.brokerSettings(cmd)
	if err != nil {
		return err
	}
	if cfg.State == "" {
		return problem.New(problem.BadConfig, "The configuration names no state folder: state is needed")
	}
	made, says := broker.CreateNextKey, fmt.Sprintf("made the next capability key; it is published now and signs in %s", cfg.KeyAhead)
	if revoke {
		made, says = broker.ReplaceKey, "made a new capability key; the one before counts no more as soon as the broker runs"
	}
	err = made(string(cfg.State))
	if errors.Is(err, fs.ErrExist) {
		return &problem.Error{
			Code: problem.Conflict, Cause: err, Detail: "A new key is waiting already",
			Remedy: "Wait until the broker signs with it, or give --revoke-old to use it at once.",
		}
	}
	if err != nil {
		return err
	}
	a.note("%s", says)
	return nil
}

func (a *app) brokerSettings(cmd *cobra.Command) (brokerConfig, []setting, error) {
	cfg := brokerConfig{
		trustConfig: trustConfig{CRLStale: "refuse"},
		Listen:      "127.0.0.1:7443", Admin: "127.0.0.1:7444", CapabilityLife: 15 * time.Minute, KeyAhead: 20 * time.Minute, LeaseGrace: 10 * time.Minute, LogLevel: "info",
		MetadataMaxItems: 256, MetadataMaxItemSize: 8 << 10, MetadataMaxTotalSize: 64 << 10,
	}
	values, err := a.daemonSettings(cmd, &cfg, "broker.yaml", "docs/OPERATIONS.md shows one.")
	return cfg, values, err
}

func (a *app) runBroker(cmd *cobra.Command, check bool) error {
	cfg, values, err := a.brokerSettings(cmd)
	if err != nil {
		return err
	}
	log, err := a.logger(cfg.LogLevel)
	if err != nil {
		return err
	}
	if !check {
		if err := a.enrolFirst(cmd.Context(), cfg.Identity, cfg.trustConfig, cfg.LogLevel); err != nil {
			return err
		}
	}
	id, err := a.openIdentity(cmd.Context(), cfg.Identity, believing{cfg.trustConfig, cfg.Federation}, log)
	if err != nil {
		return err
	}
	conf := broker.Config{
		Identity: id.pair, Trust: id.trust, Providers: cfg.Providers, State: string(cfg.State),
		CapabilityLife: cfg.CapabilityLife, KeyAhead: cfg.KeyAhead, LeaseGrace: cfg.LeaseGrace, AuditKeep: cfg.AuditKeep, Version: version, Log: log,
	}
	if conf.Places, err = cfg.places(); err != nil {
		return err
	}
	if conf.Space, err = cfg.space(); err != nil {
		return err
	}
	courier, err := cfg.courier()
	if err != nil {
		return err
	}
	defer courier.Close()
	conf.Courier = courier
	if err := conf.Check(); err != nil {
		return err
	}
	if check {
		return a.check(values)
	}
	if err := id.pair.Preflight(a.now()); err != nil && id.renewer == nil {
		return err
	}
	return a.serveBroker(cmd.Context(), cfg, conf, id)
}

// places reads the keys of the setting places: a provider, or a container of one.
func (c brokerConfig) places() (map[token.Location]space.Region, error) {
	out := make(map[token.Location]space.Region, len(c.Places))
	for key, r := range c.Places {
		at := token.Location{Provider: token.Provider(key)}
		if strings.Contains(key, ":") {
			var err error
			if at, err = token.ParseLocation(key); err != nil {
				return nil, problem.Wrap(err, problem.BadConfig, "The setting places names %s, which is not a provider, as in north, or a container, as in north:/archive", quoted(key))
			}
		}
		if _, twice := out[at]; twice {
			return nil, problem.New(problem.BadConfig, "The setting places names %s twice", quoted(key))
		}
		out[at] = r
	}
	return out, nil
}

// space returns what the operator decides of the namespace.
func (c brokerConfig) space() (tree.Config, error) {
	if c.EnterpriseNumber < 0 || c.EnterpriseNumber > space.MaxEnterprise {
		return tree.Config{}, problem.New(problem.BadConfig, "The setting enterprise_number is %d, and IANA's numbers that fit are 0 to %d", c.EnterpriseNumber, space.MaxEnterprise)
	}
	limits := space.UserLimits{Items: c.MetadataMaxItems, ItemSize: int(c.MetadataMaxItemSize), TotalSize: int(c.MetadataMaxTotalSize)}
	return tree.Config{Administrators: c.Administrators, Limits: limits, Enterprise: uint32(c.EnterpriseNumber)}, nil
}

// courier returns what calls webhooks.
func (c brokerConfig) courier() (*hook.Sender, error) {
	allow, err := networks("webhooks.allow", c.Webhooks.Allow)
	if err != nil {
		return nil, err
	}
	conf := hook.Config{Allow: allow, Version: version}
	if c.Webhooks.Roots == "" {
		return hook.New(conf), nil
	}
	data, err := os.ReadFile(string(c.Webhooks.Roots))
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The bundle of the setting webhooks.roots cannot be read")
	}
	roots, err := certs.ParseRoots(data)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The bundle of the setting webhooks.roots is not good: %s", problem.As(err).Sentence())
	}
	conf.Roots = x509.NewCertPool()
	for _, r := range roots {
		conf.Roots.AddCert(r)
	}
	return hook.New(conf), nil
}

func (a *app) serveBroker(ctx context.Context, cfg brokerConfig, conf broker.Config, id *identity) (err error) {
	listener, err := listenTCP(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	var admin net.Listener
	if cfg.Admin != "" {
		if admin, err = listenTCP(ctx, cfg.Admin); err != nil {
			return err
		}
		defer admin.Close()
	}
	b, err := broker.Open(ctx, conf, a.now())
	if err != nil {
		return fmt.Errorf("opening the broker: %w", err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	id.measure(b.Metrics())
	server, err := web.New(web.Config{Broker: b, Identity: id.pair, Trust: id.trust, Log: conf.Log})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.Run(ctx) })
	group.Go(func() error { return id.Run(ctx) })
	group.Go(func() error { return server.Run(ctx, listener, admin) })
	conf.Log.Info("ready", zap.String("identity", string(b.Self())), zap.String("version", version),
		zap.Stringer("listen", listener.Addr()), zap.String("admin", cfg.Admin))
	err = group.Wait()
	conf.Log.Info("stopped", zap.Error(err))
	return err
}
