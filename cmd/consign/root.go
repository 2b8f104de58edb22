package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/token/problem"
)

// streams are the surroundings of one run.
type streams struct {
	in       io.Reader
	out, err io.Writer
	environ  []string // KEY=value, as os.Environ
}

// getenv returns the value of a variable, or the empty string.
func (s streams) getenv(key string) string {
	value := ""
	for _, kv := range s.environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			value = v
		}
	}
	return value
}

// An app is one run of the program: its surroundings and the flags that every command has.
type app struct {
	streams
	format  format
	config  string // --config
	profile string // --profile
	noColor bool
	now     func() time.Time
	signers *signers
}

// run is the program as a function: it returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s, format: table, now: time.Now, signers: &signers{}}
	defer a.signers.Close()
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	return a.report(root.ExecuteContext(ctx))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "consign",
		Short: "Move data objects between storage providers under signed, write-once orders",
		Long: `Consign moves data objects from one storage provider to another. You sign an order with
your account at each provider; a broker turns it into write-once capabilities; the
providers' agents move the bytes between themselves and sign receipts.

Addresses have the form provider:/container/name. See 'consign cp --help' to begin,
'consign demo' to watch it work, and 'consign help exit-codes' for the exit status.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          needCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { // so that cobra's own words get a code
			err := cmd.ValidateRequiredFlags()
			if err == nil {
				err = cmd.ValidateFlagGroups()
			}
			if err != nil {
				return usage(cmd, "%s", err)
			}
			return nil
		},
	}
	root.PersistentFlags().StringVar(&a.config, "config", "", "read the configuration from this `file` only")
	root.PersistentFlags().StringVar(&a.profile, "profile", "", "use the accounts of this `name`: profiles/NAME.yaml beside config.yaml")
	root.PersistentFlags().VarP(&a.format, "output", "o", "print results as table, json or jsonl")
	root.PersistentFlags().BoolVar(&a.noColor, "no-color", false, "never use colours; the NO_COLOR variable does the same")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, "%s", err)
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: "objects", Title: "Objects:"},
		&cobra.Group{ID: "transfers", Title: "Transfers:"},
		&cobra.Group{ID: "services", Title: "Services:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("objects", a.cpCommand(), a.lsCommand(), a.mkdirCommand(), a.statCommand(), a.eraseCommand(), a.findCommand(), a.adoptCommand(), a.metaCommand(), a.aclCommand(), a.groupCommand())
	add("transfers", a.transferCommand(), a.orderCommand(), a.receiptCommand(), a.webhookCommand(), a.providerCommand(), a.accountCommand(), a.auditCommand())
	add("services", a.brokerCommand(), a.agentCommand(), a.caCommand(), a.signerCommand(), a.demoCommand())
	root.AddCommand(a.versionCommand(), exitCodesTopic())
	return root
}

// needCommand is the RunE of a command that only holds others.
func needCommand(cmd *cobra.Command, args []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	if len(args) == 0 {
		return usage(cmd, "%q needs one of the commands %s", cmd.CommandPath(), strings.Join(names, ", "))
	}
	if near := nearest(args[0], names); near != "" {
		return usage(cmd, "There is no command %s of %q; did you mean %q", quoted(args[0]), cmd.CommandPath(), near)
	}
	return usage(cmd, "There is no command %s of %q; there are %s", quoted(args[0]), cmd.CommandPath(), strings.Join(names, ", "))
}

// usage returns problem.Usage whose remedy names the command's help.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return &problem.Error{
		Code:   problem.Usage,
		Detail: upperFirst(fmt.Sprintf(format, args...)),
		Remedy: fmt.Sprintf("See '%s --help'.", cmd.CommandPath()),
	}
}

// exactly returns an argument check for n positional arguments of the given names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(names) == 0 {
			return usage(cmd, "%q takes no arguments, and %d were given", cmd.CommandPath(), len(args))
		}
		return usage(cmd, "%q takes %d argument(s), %s, and %d were given", cmd.CommandPath(), len(names), strings.Join(names, " "), len(args))
	}
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
