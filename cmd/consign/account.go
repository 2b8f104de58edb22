package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/certs/signer"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// addAccount is what to do about an account that is missing.
const addAccount = "Add it with 'consign account add'; 'consign ca join' makes key and certificate with a token of the provider."

const accountHelp = `Your accounts: one certificate at each provider, with its key in a file or in a signer process. A provider's
operator gives you a certificate, or a token with which 'consign ca join' makes one.

  consign account add alice-north                         the folder that 'consign ca join' wrote
  consign account add --cert c.pem --key k.pem            files of any authority
  consign account add --cert c.pem -- my-signer --slot 9a a key in a token: see 'consign signer --help'
  consign account list                                    whose, until when, with which key
  consign account remove north                            out of the configuration; the files stay
  consign account link                                    tell the broker that all of them are yours

Several sets of accounts are profiles: --profile work stands for profiles/work.yaml beside config.yaml.`

func (a *app) accountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "account", Aliases: []string{"accounts"}, Short: "Your accounts at the providers", Long: accountHelp, Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.accountAddCommand(), a.accountListCommand(), a.accountRemoveCommand(),
		a.accountLinkCommand(), a.accountUnlinkCommand(), a.accountAcknowledgeCommand(), a.accountDisownCommand())
	return cmd
}

// accountOptions are the flags of 'consign account add'.
type accountOptions struct {
	cert, key, id    string
	replace, offline bool
}

func (a *app) accountAddCommand() *cobra.Command {
	var opt accountOptions
	cmd := &cobra.Command{
		Use: "add [FOLDER] [flags] [-- SIGNER [ARGUMENT...]]", Short: "Check an account and write it into the configuration",
		Long: `Check a certificate and its key, ask the broker whether it takes them, and write the account into the configuration: nothing else
in the file is changed. FOLDER is one with cert.pem and key.pem, as 'consign ca join' and 'consign ca issue' write it. The files are
named and not copied, so that they can be renewed where they are.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			pair, err := opt.pair(cmd, args)
			if err != nil {
				return err
			}
			return a.accountAdd(cmd, pair, opt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.cert, "cert", "", "the `file` of the certificate chain, leaf first")
	f.StringVar(&opt.key, "key", "", "the `file` of its private key")
	f.StringVar(&opt.id, "id", "", "whose it is, an `identity`, if the certificate has no SPIFFE name and the provider maps it")
	f.BoolVar(&opt.replace, "replace", false, "put it into the place of the account at the same provider")
	f.BoolVar(&opt.offline, "offline", false, "do not ask the broker")
	addClientFlags(cmd)
	return cmd
}

// pair reads which certificate and key are meant, as absolute paths.
func (o accountOptions) pair(cmd *cobra.Command, args []string) (keyPair, error) {
	folders, command := args, []string(nil)
	if n := cmd.ArgsLenAtDash(); n >= 0 {
		folders, command = args[:n], args[n:]
	}
	switch {
	case len(folders) > 1:
		return keyPair{}, usage(cmd, "Only one folder can be added at once, and %d were named", len(folders))
	case len(folders) == 1 && (o.cert != "" || o.key != ""):
		return keyPair{}, usage(cmd, "Name either a folder, or the files with --cert and --key")
	case len(folders) == 1:
		o.cert = filepath.Join(folders[0], issue.CertFile)
		if len(command) == 0 {
			o.key = filepath.Join(folders[0], issue.KeyFile)
		}
	}
	if o.cert == "" || (o.key == "") == (len(command) == 0) {
		return keyPair{}, usage(cmd, "Name a folder, or --cert with either --key or a signer after --")
	}
	k := keyPair{Signer: command, ID: token.Identity(o.id)}
	for file, into := range map[string]*filePath{o.cert: &k.Cert, o.key: &k.Key} {
		if file == "" {
			continue
		}
		abs, err := filepath.Abs(file)
		if err != nil {
			return keyPair{}, fmt.Errorf("locating %s: %w", file, err)
		}
		*into = filePath(abs)
	}
	return k, nil
}

func (a *app) accountAdd(cmd *cobra.Command, k keyPair, opt accountOptions) error {
	file, err := a.ownConfig()
	if err != nil {
		return err
	}
	pair, err := a.openAccount(cmd.Context(), k)
	if err != nil {
		return err
	}
	id := pair.Identity()
	if err := pair.Preflight(a.now()); err != nil {
		return err
	}
	if !opt.offline {
		if err := a.askBroker(cmd, pair); err != nil {
			return err
		}
	}
	edit := edition{add: &k}
	was, err := a.ownAccounts(file)
	if err != nil {
		return err
	}
	for i, other := range was {
		at, err := providerOf(other)
		if err != nil || at != id.Provider() {
			continue // one that cannot be read is told of by every command
		}
		if !opt.replace {
			return &problem.Error{
				Code: problem.Conflict, Detail: "There is already an account at " + quoted(string(at)) + " in the configuration",
				Remedy: "Add --replace to put this one into its place, or use another --profile.",
			}
		}
		edit.remove = append(edit.remove, i)
	}
	if err := a.editAccounts(file, edit); err != nil {
		return err
	}
	a.note("added %s to %s; its certificate ends %s", id, printable(file), expiry(pair.NotAfter(), a.now()))
	if a.format != table {
		return a.printJSON(a.describe(k, pair))
	}
	return a.printPairs([][2]string{{"identity", string(id)}, {"key", keyPlace(k, pair)}, {"until", timeText(pair.NotAfter())}})
}

// openAccount opens a pair that must be an account's, and warns of a key that others can read.
func (a *app) openAccount(ctx context.Context, k keyPair) (*certs.Pair, error) {
	p, err := a.openPair(ctx, k)
	if err != nil {
		return nil, err
	}
	if readByOthers(string(k.Key)) {
		a.note("warning: the private key %s can be read by others; give it the mode 0600", printable(string(k.Key)))
	}
	if id := p.Identity(); id.Role() != token.Subscriber {
		return nil, problem.New(problem.BadConfig, "The account %s is of the role %q; an account's certificate is of the role subscriber", id, id.Role())
	}
	return p, nil
}

// askBroker has the broker judge a new account. One that cannot be reached, or that the configuration does not name yet, judges nothing.
func (a *app) askBroker(cmd *cobra.Command, pair *certs.Pair) error {
	cfg, err := a.knownConfig(cmd.Flags())
	if err != nil {
		return err
	}
	if cfg.Broker.URL == "" || cfg.Broker.ID == "" {
		a.note("the configuration names no broker yet, so that none was asked; broker.url, broker.id and its bundle under trust are needed")
		return nil
	}
	trust, err := cfg.openBroker()
	if err != nil {
		return err
	}
	c := api.NewClient(cfg.Broker.URL, certs.BrokerClient(pair, trust, cfg.Broker.ID))
	defer c.Close()
	known, err := c.Account(cmd.Context())
	if problem.Of(a.signers.explain(err)) == problem.Unavailable {
		a.note("the broker could not be reached, so that it was not asked: %s", printable(problem.As(err).Sentence()))
		return nil
	}
	if err != nil {
		return err
	}
	a.printChanges(known.Changes)
	return nil
}

// An accountReport is one account in the result of 'consign account list'.
type accountReport struct {
	Identity    token.Identity `json:"identity,omitempty"`
	Provider    token.Provider `json:"provider,omitempty"`
	Cert        string         `json:"cert"`
	Key         string         `json:"key,omitempty"`    // file
	Signer      []string       `json:"signer,omitempty"` // command
	Label       string         `json:"label,omitempty"`  // where the signer says that the key is
	Kind        string         `json:"kind,omitempty"`
	Fingerprint token.Hash     `json:"fingerprint,omitempty"` // SHA-256 of the SubjectPublicKeyInfo
	Serial      string         `json:"serial,omitempty"`
	NotBefore   *time.Time     `json:"not_before,omitempty"`
	NotAfter    *time.Time     `json:"not_after,omitempty"`
	ExpiresIn   string         `json:"expires_in,omitempty"`
	Broker      *api.Account   `json:"broker,omitempty"`  // what the broker knows of it
	Problem     *problemReport `json:"problem,omitempty"` // why it cannot be used now
}

func (a *app) describe(k keyPair, p *certs.Pair) accountReport {
	r := accountReport{Cert: string(k.Cert), Key: string(k.Key), Signer: k.Signer}
	if p == nil {
		return r
	}
	_, chain, id := p.Current()
	leaf := chain.Leaf()
	from, to := leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
	r.Identity, r.Provider, r.Kind, r.Fingerprint = id, id.Provider(), signer.Describe(leaf.PublicKey), chain.KeyHash()
	r.Serial, r.NotBefore, r.NotAfter, r.ExpiresIn = leaf.SerialNumber.Text(16), &from, &to, expiry(to, a.now())
	if s, ok := p.Signer().(*signer.Signer); ok {
		r.Label = s.Label()
	}
	if err := p.Preflight(a.now()); err != nil {
		r.Problem = reportOf(err)
	}
	return r
}

// keyPlace says what kind of key it is and where.
func keyPlace(k keyPair, p *certs.Pair) string {
	_, chain, _ := p.Current()
	kind := signer.Describe(chain.Leaf().PublicKey)
	if len(k.Signer) == 0 {
		return kind + " in " + printable(string(k.Key))
	}
	if s, ok := p.Signer().(*signer.Signer); ok && s.Label() != "" {
		return kind + " in " + printable(s.Label())
	}
	return kind + " behind " + printable(k.Signer[0])
}

// expiry says how far away the end of a certificate is.
func expiry(end, now time.Time) string {
	left := end.Sub(now)
	switch {
	case left < 0:
		return "ended"
	case left >= 48*time.Hour:
		return fmt.Sprintf("in %d days", int(left/(24*time.Hour)))
	case left >= 2*time.Hour:
		return fmt.Sprintf("in %d hours", int(left/time.Hour))
	}
	return fmt.Sprintf("in %d minutes", int(left/time.Minute))
}

func (a *app) accountListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your accounts, their certificates and keys", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.accountList(cmd) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) accountList(cmd *cobra.Command) error {
	cfg, err := a.clientConfig(cmd.Flags())
	if err != nil {
		return err
	}
	ask := a.asker(cmd, cfg)
	out := newPrinter(a, []string{"ACCOUNT", "KEY", "FINGERPRINT", "ENDS", "SEEN", "LINKED WITH", "NOTE"}, func(r accountReport) []string {
		note, key, seen, linked := "-", "-", "-", []string(nil)
		if r.Broker != nil {
			seen = timeText(r.Broker.Seen)
			for _, l := range r.Broker.Linked {
				linked = append(linked, string(l.ID))
			}
			if n := len(r.Broker.Changes); n > 0 {
				note = counted(int64(n), "change") + " of a key to acknowledge"
			}
		}
		if r.Kind != "" {
			key = r.Kind
			if len(r.Signer) > 0 {
				key += " (signer)"
			}
		}
		if r.Problem != nil {
			note = printable(r.Problem.Detail) + " (" + string(r.Problem.Code) + ")"
		}
		return []string{orCert(r), key, orText(string(r.Fingerprint)), orText(r.ExpiresIn), seen, orDash(linked), note}
	})
	for _, k := range cfg.Accounts {
		p, err := a.openAccount(cmd.Context(), k)
		r := a.describe(k, p)
		if err != nil {
			r.Problem = reportOf(err)
		} else if r.Problem == nil {
			r.Broker, r.Problem = ask(p)
		}
		if err := out.Print(r); err != nil {
			return err
		}
	}
	return out.Close()
}

// asker returns what asks the broker of an account. A broker that cannot be asked is told of once.
func (a *app) asker(cmd *cobra.Command, cfg cliConfig) func(*certs.Pair) (*api.Account, *problemReport) {
	trust, err := cfg.openBroker()
	if err != nil {
		a.note("the broker is not asked: %s", printable(problem.As(err).Sentence()))
	}
	away := err != nil
	return func(p *certs.Pair) (*api.Account, *problemReport) {
		if away {
			return nil, nil
		}
		c := api.NewClient(cfg.Broker.URL, certs.BrokerClient(p, trust, cfg.Broker.ID))
		defer c.Close()
		known, err := c.Account(cmd.Context())
		if err = a.signers.explain(err); problem.Of(err) == problem.Unavailable {
			away = true
			a.note("the broker could not be asked: %s", printable(problem.As(err).Sentence()))
			return nil, nil
		}
		if err != nil {
			return nil, reportOf(err)
		}
		return &known, nil
	}
}

// orCert names an account that cannot be read by its file.
func orCert(r accountReport) string {
	if r.Identity != "" {
		return string(r.Identity)
	}
	return printable(r.Cert)
}

func orText(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) accountRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove ACCOUNT", Aliases: []string{"rm"}, Short: "Take an account out of the configuration; its files stay", Args: exactly("ACCOUNT"),
		Long: "Take the account of that identity, provider or certificate file out of the configuration. Certificate and key stay where they are.",
		RunE: func(_ *cobra.Command, args []string) error { return a.accountRemove(args[0]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) accountRemove(which string) error {
	file, err := a.ownConfig()
	if err != nil {
		return err
	}
	was, err := a.ownAccounts(file)
	if err != nil {
		return err
	}
	var found []int
	for i, k := range was {
		id, err := identityIn(k)
		if err == nil && (string(id) == which || string(id.Provider()) == which) || sameFile(which, string(k.Cert)) {
			found = append(found, i)
		}
	}
	if len(found) != 1 {
		return &problem.Error{
			Code: problem.NotFound, Detail: fmt.Sprintf("There are %d accounts %s in %s", len(found), quoted(which), printable(file)),
			Remedy: "See 'consign account list', and name the identity, the provider or the file of the certificate.",
		}
	}
	if err := a.editAccounts(file, edition{remove: found}); err != nil {
		return err
	}
	a.note("removed the account %s from %s; %s and its key stay", printable(which), printable(file), printable(string(was[found[0]].Cert)))
	return nil
}

func sameFile(a, b string) bool {
	abs, err := filepath.Abs(a)
	return err == nil && abs == b
}

// identityIn returns whose a certificate is, without its key.
func identityIn(k keyPair) (token.Identity, error) {
	if k.ID != "" {
		return k.ID, nil
	}
	data, err := os.ReadFile(string(k.Cert))
	if err != nil {
		return "", err
	}
	chain, err := certs.ParseChain(data)
	if err != nil {
		return "", err
	}
	return certs.IdentityOf(chain.Leaf())
}

func providerOf(k keyPair) (token.Provider, error) {
	id, err := identityIn(k)
	return id.Provider(), err
}
