package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const caHelp = `The small built-in certificate authority of one provider. The broker never runs it. Certificates from
step-ca, cert-manager, Vault or SPIRE do as well, if they name spiffe://DOMAIN/ROLE/NAME; those of an ACME authority can be
got and renewed with 'consign ca enrol' and the setting identity.acme.

  consign ca init north --dir ca              make the authority of the domain north
  consign ca issue agent one --dir ca --out agent-one     certify somebody here and now
  consign ca token agent one --dir ca --address ca.north.example:9443
                                              ... or let them join with a token that works once
  consign ca serve --dir ca --listen :9443    answer joins and renewals
  consign ca join token.txt --out agent-one   on their machine: use the token`

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Run a provider's small certificate authority", Long: caHelp,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.caInitCommand(), a.caIssueCommand(), a.caTokenCommand(), a.caJoinCommand(), a.caRenewCommand(),
		a.caServeCommand(), a.caDenyCommand(), a.caMapCommand(), a.caCRLCommand(), a.caEnrolCommand())
	return cmd
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "ca", "the authority's `folder`")
}

func (a *app) caInitCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "init DOMAIN", Short: "Make an authority for a trust domain", Args: exactly("DOMAIN"),
		RunE: func(_ *cobra.Command, args []string) error {
			ca, err := issue.Create(dir, token.Provider(args[0]), a.now())
			if problem.Of(err) == problem.Conflict {
				return &problem.Error{
					Code: problem.Conflict, Detail: "There is already something in " + quoted(dir),
					Remedy: "An authority is never replaced; name another folder with --dir.",
				}
			}
			if err != nil {
				return err
			}
			bundle := filepath.Join(dir, "ca.pem")
			if a.format != table {
				return a.printJSON(map[string]any{"domain": ca.Domain(), "dir": dir, "bundle": bundle, "fingerprint": ca.Fingerprint()})
			}
			a.note("made the authority of %q in %s; its key never leaves that folder", ca.Domain(), printable(dir))
			return a.printPairs([][2]string{{"bundle", printable(bundle)}, {"fingerprint", string(ca.Fingerprint())}})
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}

// request reads ROLE and NAME.
func request(cmd *cobra.Command, args []string, life time.Duration) (issue.Request, error) {
	role := token.Role(args[0])
	if _, ok := issue.ProfileOf(role); !ok {
		return issue.Request{}, usage(cmd, "There is no role %s; there are agent, broker and subscriber", quoted(args[0]))
	}
	return issue.Request{Role: role, Name: args[1], Life: life}, nil
}

func (a *app) caIssueCommand() *cobra.Command {
	var dir, out string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "issue ROLE NAME", Short: "Make a key and certificate for an agent, broker or subscriber", Args: exactly("ROLE", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := request(cmd, args, life)
			if err != nil {
				return err
			}
			ca, err := issue.Open(dir)
			if err != nil {
				return err
			}
			if _, err := ca.IssueFiles(out, req, a.now()); err != nil {
				return err
			}
			return a.printCertified(out)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&out, "out", "", "write cert.pem, key.pem and bundle.pem into this `folder`")
	cmd.Flags().DurationVar(&life, "life", 0, "the certificate's life (default: 24h for agents, 720h for brokers, 2160h for subscribers)")
	must(cmd.MarkFlagRequired("out"))
	return cmd
}

// must is for errors that only a mistake in this program can cause.
func must(err error) {
	if err != nil {
		panic("consign: internal error: " + err.Error())
	}
}

func (a *app) printCertified(dir string) error {
	cert, key := filepath.Join(dir, issue.CertFile), filepath.Join(dir, issue.KeyFile)
	pair, err := certs.OpenPair(cert, key)
	if err != nil {
		return err
	}
	return a.printPair(pair, cert, key)
}

// printPair says whose a certificate is and until when; key is empty if it is in no file.
func (a *app) printPair(pair *certs.Pair, cert, key string) error {
	id := pair.Identity()
	if a.format == table {
		return a.printPairs([][2]string{{"identity", string(id)}, {"certificate", printable(cert)}, {"until", timeText(pair.NotAfter())}})
	}
	out := map[string]any{"identity": id, "cert": cert, "not_after": pair.NotAfter().UTC()}
	if key != "" {
		out["key"] = key
	}
	return a.printJSON(out)
}

func (a *app) caTokenCommand() *cobra.Command {
	var dir, address string
	var life, ttl time.Duration
	cmd := &cobra.Command{
		Use: "token ROLE NAME", Short: "Make a token with which somebody can join once", Args: exactly("ROLE", "NAME"),
		Long: `Make a token with which ROLE NAME can join once at 'consign ca serve'. It is printed to standard output and kept
nowhere: give it to them over a channel that you trust. It pins the authority, so that their first
connection cannot be intercepted.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := request(cmd, args, life)
			if err != nil {
				return err
			}
			ca, err := issue.Open(dir)
			if err != nil {
				return err
			}
			text, err := ca.NewToken(req, address, ttl, a.now())
			if err != nil {
				return err
			}
			if a.format != table {
				return a.printJSON(map[string]any{"token": text})
			}
			_, err = fmt.Fprintln(a.out, text)
			return err
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&address, "address", "", "where 'consign ca serve' can be reached, `host:port`")
	cmd.Flags().DurationVar(&ttl, "ttl", issue.TokenLife, "how long the token can be used")
	cmd.Flags().DurationVar(&life, "life", 0, "the certificate's life")
	must(cmd.MarkFlagRequired("address"))
	return cmd
}

func (a *app) caJoinCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "join FILE", Short: "Use a join token: make a key here and have it certified", Args: exactly("FILE"),
		Long: `Use the join token that is in FILE, or on standard input if FILE is -. The key is made here and
leaves this machine never.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readSecret(args[0])
			if err != nil {
				return err
			}
			if _, err := issue.Join(cmd.Context(), text, "", out); err != nil {
				return err
			}
			return a.printCertified(out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "write cert.pem, key.pem and bundle.pem into this `folder`")
	must(cmd.MarkFlagRequired("out"))
	return cmd
}

// readSecret reads the one line of a file, or of standard input for "-".
func (a *app) readSecret(name string) (string, error) {
	from := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", problem.Wrap(err, problem.Usage, "The file of the token cannot be read")
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, issue.MaxTokenSize+2))
	if err != nil {
		return "", problem.Wrap(err, problem.Usage, "The token cannot be read")
	}
	return strings.TrimSpace(string(data)), nil
}

func (a *app) caRenewCommand() *cobra.Command {
	var cert, key, bundle, url string
	cmd := &cobra.Command{
		Use: "renew [flags] [-- SIGNER [ARGUMENT...]]", Short: "Renew a certificate that is still valid",
		Long: "Renew a certificate that is still valid. Its key stays: it is in a file, or a signer process has it.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return usage(cmd, "A signer and its arguments stand after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			held := keyPair{Cert: filePath(cert), Signer: args}
			if len(args) == 0 {
				held.Key = filePath(key)
			}
			pair, err := a.openPair(cmd.Context(), held)
			if err != nil {
				return err
			}
			trust, err := certs.OpenTrust(map[token.Provider]string{pair.Identity().Provider(): bundle})
			if err != nil {
				return err
			}
			if err := issue.Renew(cmd.Context(), pair, url, trust); err != nil {
				return err
			}
			return a.printPair(pair, cert, string(held.Key))
		},
	}
	f := cmd.Flags()
	f.StringVar(&cert, "cert", issue.CertFile, "the `file` of the certificate, which is replaced")
	f.StringVar(&key, "key", issue.KeyFile, "the `file` of its private key")
	f.StringVar(&bundle, "bundle", issue.BundleFile, "the `file` of its domain's trust bundle")
	f.StringVar(&url, "url", "", "where 'consign ca serve' can be reached, https://`host:port`")
	must(cmd.MarkFlagRequired("url"))
	return cmd
}

func (a *app) caDenyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "deny ROLE NAME", Short: "End the renewal of every key that was certified for somebody", Args: exactly("ROLE", "NAME"),
		Long: `End the renewal of every key that was certified for ROLE NAME so far, at once, also in a 'consign ca serve' that runs.
Certificates that are out are on the authority's next revocation list ('consign ca crl'), and stay good for who has none: deny the
identity at broker and agents where that is too late. Its owner comes back with a new join token, which makes a new key.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := request(cmd, args, 0)
			if err != nil {
				return err
			}
			ca, err := issue.Open(dir)
			if err != nil {
				return err
			}
			id := token.NewIdentity(ca.Domain(), req.Role, req.Name)
			keys, err := ca.Deny(id)
			if err != nil {
				return err
			}
			if a.format != table {
				return a.printJSON(map[string]any{"identity": id, "keys": keys})
			}
			return a.printPairs([][2]string{{"identity", string(id)}, {"keys denied", strconv.Itoa(keys)}})
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}

func (a *app) caServeCommand() *cobra.Command {
	var s caServing
	cmd := &cobra.Command{
		Use: "serve", Short: "Answer joins and renewals", Args: exactly(),
		Long: `Answer joins and renewals. A join token that is used a second time is refused, is a line of level error in the
log, a line of alarms.jsonl in the authority's folder, and counts in consign_ca_alarms_total at --admin: one of its two users is
not who it was given to.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caServe(cmd.Context(), s) },
	}
	dirFlag(cmd, &s.dir)
	cmd.Flags().StringVar(&s.listen, "listen", "127.0.0.1:9443", "the `address` to listen at")
	cmd.Flags().StringVar(&s.admin, "admin", "", "answer /livez, /readyz and /metrics in plain HTTP at this `address`")
	cmd.Flags().StringVar(&s.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// A caServing is what the flags of 'ca serve' say.
type caServing struct{ dir, listen, admin, level string }

func (a *app) caServe(ctx context.Context, s caServing) error {
	ca, err := issue.Open(s.dir)
	if err != nil {
		return err
	}
	log, err := a.logger(s.level)
	if err != nil {
		return err
	}
	ln, err := listenTCP(ctx, s.listen)
	if err != nil {
		return err
	}
	defer ln.Close()
	reg := prometheus.NewRegistry()
	alarms := prometheus.NewCounter(prometheus.CounterOpts{Name: "consign_ca_alarms_total", Help: "Join tokens that were used a second time."})
	reg.MustRegister(alarms)
	srv := issue.NewServer(ca, func(al issue.Alarm) { logAlarm(log, al); alarms.Inc() }, func(err error) { logError(log, "answering", err) })
	group, ctx := errgroup.WithContext(ctx)
	if s.admin != "" {
		admin, err := listenTCP(ctx, s.admin)
		if err != nil {
			return err
		}
		srv := adminServer(reg, func() error { return nil })
		group.Go(func() error { return serveHTTP(ctx, srv, func() error { return srv.Serve(admin) }) })
	}
	group.Go(func() error { return serveHTTP(ctx, srv, func() error { return srv.ServeTLS(ln, "", "") }) })
	log.Info("ready", domainField(ca.Domain()), addressField(ln.Addr()))
	return group.Wait()
}
