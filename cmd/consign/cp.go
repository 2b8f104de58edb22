package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// cpOptions are the flags of 'consign cp'.
type cpOptions struct {
	recursive bool
	filters   []token.Filter
	included  bool // --include was given
	dryRun    bool
	wait      bool
	timeout   time.Duration
	ifExists  string
	digest    string
	expires   string
	every     string
	limit     string // --rate
}

const cpHelp = `Copy one object, or with -r everything below a name, from one provider to another. The order
is signed with your account at each provider; nothing else is authority. Nothing that exists is
ever replaced.

An address is provider:/container/name. A destination that ends in '/' means "into":

  consign cp north:/data/a/x south:/copy/y         copies the object to y
  consign cp north:/data/a/x south:/copy/          ... to x
  consign cp north:/data/a/x south:/copy/old/      ... to old/x
  consign cp -r north:/data/a south:/copy/         copies a/... to a/...
  consign cp -r north:/data/a south:/copy/b        copies a/... to b/...
  consign cp -r north:/data/ south:/copy/          copies everything in the container
  consign cp -r north:/data/ south:/copy/b         ... to b/...

Filters are looked at in the order in which they stand on the command line; the first whose pattern
matches decides, and what none matches is included. If any --include is given, an
'--exclude **' is added at the end, so that only what is included is copied. A pattern is matched
against the name below the source: '*' stands for anything within a segment, '**' also across segments,
'?' for one character; a leading '/' ties it to the source, and a pattern without any other '/'
matches the last segment at any depth.

  consign cp -r --exclude '*.tmp' --include '*.csv' north:/data/ south:/copy/

With --every the order is a standing one: what is below SOURCE is copied again and again, each time as a
transfer of its own, until the end that --expires gives it or until it is withdrawn. What an
earlier run has copied is skipped. A run is left out while the one before it has not ended.

  consign cp -r --every 1h --expires 90d north:/data/ south:/copy/

Without --wait the command prints the transfer's id and returns: the broker and the agents do the
rest. Ctrl-C during --wait leaves the transfer running.`

func (a *app) cpCommand() *cobra.Command {
	var opt cpOptions
	cmd := &cobra.Command{
		Use:   "cp [flags] SOURCE DESTINATION",
		Short: "Copy objects from one provider to another",
		Long:  cpHelp,
		Args:  exactly("SOURCE", "DESTINATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opt.every != "" && !cmd.Flags().Changed("if-exists") {
				opt.ifExists = string(token.Skip)
			}
			return a.cp(cmd, args[0], args[1], opt)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&opt.recursive, "recursive", "r", false, "copy everything below SOURCE")
	f.Var(&filterFlag{do: token.Include, opt: &opt}, "include", "include names that match this `pattern`; ordered with --exclude")
	f.Var(&filterFlag{do: token.Exclude, opt: &opt}, "exclude", "exclude names that match this `pattern`; ordered with --include")
	f.BoolVarP(&opt.dryRun, "dry-run", "n", false, "print what would be copied and move nothing")
	f.BoolVarP(&opt.wait, "wait", "w", false, "wait until the transfer has ended, with progress")
	f.DurationVar(&opt.timeout, "timeout", 0, "with --wait: give up waiting after this `time` (exit 75)")
	f.StringVar(&opt.ifExists, "if-exists", string(token.Fail), "what becomes of an object whose name exists: fail, skip (with --every the default) or verify (equal digests count as success)")
	f.StringVar(&opt.digest, "digest", "", "the one object must have this `digest`, as blake3:HEX or sha256:HEX")
	f.StringVar(&opt.expires, "expires", "7d", "the order is good for this `time`, as 6h, 7d or 4w")
	f.StringVar(&opt.every, "every", "", "with -r: copy anew each time that this `time` has passed, as 15m, 1h or 7d; at least 1m")
	f.StringVar(&opt.limit, "rate", "", "at most this many `bytes` a second, as 100MiB")
	addClientFlags(cmd)
	return cmd
}

// A filterFlag collects --include and --exclude in the order of the command line.
type filterFlag struct {
	do  string
	opt *cpOptions
}

var _ pflag.Value = (*filterFlag)(nil)

func (f *filterFlag) String() string { return "" }

// Type is the placeholder in help texts.
func (f *filterFlag) Type() string { return "pattern" }

// Set adds one filter.
func (f *filterFlag) Set(pattern string) error {
	filter := token.Filter{Do: f.do, Match: pattern}
	if err := filter.Check(); err != nil {
		return err
	}
	f.opt.filters = append(f.opt.filters, filter)
	f.opt.included = f.opt.included || f.do == token.Include
	return nil
}

// ordered returns the filters of the order.
func (o cpOptions) ordered() []token.Filter {
	if o.included {
		return append(o.filters, token.Filter{Do: token.Exclude, Match: "**"})
	}
	return o.filters
}

// copyOrder is the order of cp but for its id, times and accounts.
func (o cpOptions) copyOrder(source, destination string) (token.Order, error) {
	from, err := parseAddress(source)
	if err != nil {
		return token.Order{}, err
	}
	to, err := parseAddress(destination)
	if err != nil {
		return token.Order{}, err
	}
	scope, src, dst, err := roots(from, to, o.recursive)
	if err != nil {
		return token.Order{}, err
	}
	digest, err := o.wantedDigest()
	if err != nil {
		return token.Order{}, err
	}
	order := token.Order{Do: token.Copy, Scope: scope, From: src, To: dst, Filters: o.ordered(), Digest: digest}
	switch e := token.IfExists(o.ifExists); e {
	case token.Fail, token.Skip, token.Compare:
		order.IfExists = e
	default:
		return token.Order{}, problem.New(problem.Usage, "--if-exists is %s and must be fail, skip or verify", quoted(o.ifExists))
	}
	if o.limit != "" {
		if order.Limits.Rate, err = parseSize(o.limit); err != nil {
			return token.Order{}, err
		}
	}
	if order.Period, err = o.period(order.IfExists); err != nil {
		return token.Order{}, err
	}
	if !o.recursive && len(o.filters) > 0 {
		return token.Order{}, problem.New(problem.Usage, "--include and --exclude are for -r; one object is named outright")
	}
	return order, nil
}

// period is what --every says, in seconds; 0 without it.
func (o cpOptions) period(exists token.IfExists) (int64, error) {
	if o.every == "" {
		return 0, nil
	}
	every, err := parseSpan(o.every)
	if err != nil {
		return 0, err
	}
	life, err := parseSpan(o.expires)
	if err != nil {
		return 0, err
	}
	switch {
	case !o.recursive:
		return 0, problem.New(problem.Usage, "--every is for -r; one object, which is never replaced, is copied once")
	case exists == token.Fail:
		return 0, problem.New(problem.Usage, "--if-exists fail does not go with --every: from the second run on, every object that an earlier run has copied would count as failed; use skip or verify")
	case every < token.MinPeriod || every%time.Second != 0:
		return 0, problem.New(problem.Usage, "--every is %s and must be whole seconds, %s at least", every, spanText(token.MinPeriod))
	case every >= life:
		return 0, problem.New(problem.Usage, "--every is %s and the order ends after %s, before its second run; see --expires", spanText(every), spanText(life))
	}
	return int64(every / time.Second), nil
}

func (o cpOptions) wantedDigest() (token.Digest, error) {
	if o.digest == "" {
		return "", nil
	}
	if o.recursive {
		return "", problem.New(problem.Usage, "--digest is for one object and cannot be used with -r")
	}
	d, err := token.ParseDigest(o.digest)
	if err != nil {
		return "", problem.New(problem.Usage, "--digest is not good: %s", problem.As(err).Sentence())
	}
	return d, nil
}

func (a *app) cp(cmd *cobra.Command, source, destination string, opt cpOptions) error {
	order, err := opt.copyOrder(source, destination)
	if err != nil {
		return err
	}
	life, err := parseSpan(opt.expires)
	if err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if opt.dryRun {
		return s.dryRun(cmd.Context(), order, life)
	}
	order, signed, err := s.sign(cmd.Context(), order, life)
	if err != nil {
		return err
	}
	client := s.client(order.From.Provider)
	got, err := submit(cmd.Context(), client, signed)
	if err != nil {
		return err
	}
	if !opt.wait {
		return a.printSubmitted(got, order.Standing())
	}
	a.note("transfer %s", got.ID)
	return a.waitFor(cmd.Context(), client, got, opt.timeout)
}

// submit hands the order in. A broker that was not heard may have it already: the
// same order again is the same transfer, so it is tried once more.
func submit(ctx context.Context, c *api.Client, o api.SignedOrder) (api.Transfer, error) {
	got, err := c.Submit(ctx, o)
	if problem.Of(err) == problem.Unavailable && ctx.Err() == nil {
		got, err = c.Submit(ctx, o)
	}
	return got, err
}

func (a *app) printSubmitted(t api.Transfer, standing bool) error {
	if a.format != table {
		return a.printJSON(t)
	}
	p := newPrinter(a, nil, func(t api.Transfer) []string { return []string{string(t.ID)} })
	if err := p.Print(t); err != nil {
		return err
	}
	if standing {
		a.note("this is the first run of a standing order\nhint: consign order show %s", t.Order)
	}
	if t.Waiting != "" {
		a.note("waiting: %s", printable(t.Waiting))
	}
	a.note("hint: consign transfer wait %s", t.ID)
	return p.Close()
}
