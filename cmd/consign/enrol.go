package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/enrol"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// renewal returns what renews the certificate once, or nil if somebody else replaces the files.
func (c identityConfig) renewal(pair *certs.Pair, trust *certs.Trust) (func(context.Context) error, error) {
	switch {
	case c.RenewURL != "":
		return func(ctx context.Context) error { return issue.Renew(ctx, pair, c.RenewURL, trust) }, nil
	case c.ACME == nil:
		return nil, nil //nolint:nilnil // no renewal is no error
	}
	var held crypto.Signer
	if len(c.Signer) > 0 {
		held = pair.Signer() // the same process for every certificate
	}
	if _, err := c.enrolment(held); err != nil {
		return nil, err
	}
	if pair.Identity() != c.ACME.ID {
		return nil, problem.New(problem.BadConfig, "The setting identity.acme.id names %s and the certificate %s", c.ACME.ID, pair.Identity())
	}
	return func(ctx context.Context) error {
		if err := c.obtain(ctx, held, trust); err != nil {
			return err
		}
		_, err := pair.Reload()
		return err
	}, nil
}

func (c identityConfig) keys() keyPair { return keyPair{Cert: c.Cert, Key: c.Key, Signer: c.Signer} }

// enrolment turns the settings into those of package enrol; held is the key, if it is in no file. The roots are read anew
// each time.
func (c identityConfig) enrolment(held crypto.Signer) (enrol.Config, error) {
	a := c.ACME
	conf := enrol.Config{
		Identity: a.ID, CertFile: string(c.Cert), KeyFile: string(c.Key), Key: held, Directory: a.Directory,
		AccountFile: cmp.Or(string(a.Account), filepath.Join(filepath.Dir(string(c.Cert)), "account.pem")),
		Contact:     a.Contact, AcceptTerms: a.AcceptTerms, Identifier: a.Identifier,
		Challenge: enrol.Challenge(cmp.Or(a.Challenge, string(enrol.HTTP01))), Listen: a.Listen,
	}
	if a.Root != "" {
		var err error
		if conf.Roots, err = os.ReadFile(string(a.Root)); err != nil {
			return conf, problem.Wrap(err, problem.BadConfig, "The roots of the ACME authority cannot be read from %s", quoted(string(a.Root)))
		}
	}
	return conf, conf.Check()
}

func (c identityConfig) obtain(ctx context.Context, held crypto.Signer, trust *certs.Trust) error {
	conf, err := c.enrolment(held)
	if err != nil {
		return err
	}
	return enrol.Obtain(ctx, conf, trust)
}

// enrolled reports whether there is a certificate, good or not.
func (c identityConfig) enrolled() bool {
	_, err := os.Stat(string(c.Cert))
	return !errors.Is(err, fs.ErrNotExist)
}

// notYet explains why there is no certificate where one will be got.
func (c identityConfig) notYet(err error) error {
	if c.ACME == nil || c.enrolled() {
		return err
	}
	return &problem.Error{
		Code: problem.EnrolFailed, Cause: err, Detail: "There is no certificate yet",
		Remedy: "Start the daemon: it gets one from the ACME authority before anything else.",
	}
}

// enrolFirst gets the first certificate of a daemon that has an ACME authority and none yet. It tries until it has one
// or ctx ends; what only a change of the configuration mends is an error at once.
func (a *app) enrolFirst(ctx context.Context, conf identityConfig, trust trustConfig, level string) error {
	if conf.ACME == nil || conf.Cert == "" || conf.enrolled() {
		return nil
	}
	if err := conf.keys().check(); err != nil {
		return err
	}
	log, err := a.logger(level)
	if err != nil {
		return err
	}
	t, err := trust.open()
	if err != nil {
		return err
	}
	var held crypto.Signer
	if len(conf.Signer) > 0 {
		s, err := a.openLoggedSigner(ctx, conf.Signer, log)
		if err != nil {
			return err
		}
		defer s.Close()
		held = s
	}
	log.Info("there is no certificate yet: enrolling", zap.String("identity", string(conf.ACME.ID)), zap.String("directory", conf.ACME.Directory))
	var wrong error
	err = certs.Insist(ctx, func(ctx context.Context) error {
		err := conf.obtain(ctx, held, t)
		if problem.Of(err) == problem.BadConfig {
			wrong, err = err, nil
		}
		return err
	}, func(err error) { logError(log, "enrolling", err) })
	return cmp.Or(err, wrong)
}

func (a *app) caEnrolCommand() *cobra.Command {
	var conf acmeConfig
	var bundle, out string
	cmd := &cobra.Command{
		Use: "enrol", Short: "Get or renew a certificate at an ACME authority, such as step-ca", Args: exactly(),
		Long: `Get a certificate at an ACME authority (RFC 8555), or renew the one that is in the folder, once. Agents and brokers do
it themselves, with the setting identity.acme; this is for a subscriber and for timers. The key is made
here if there is none, is kept by every renewal, and leaves this machine never. Put another kind of key into key.pem before to have that certified.

The authority looks at the identifier (a DNS name or an IP address) and its template says which identity that is; what it
issues is used only if it names --id and is good in --bundle.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := token.ParseIdentity(string(conf.ID)); err != nil {
				return usage(cmd, "--id %s is not of the form spiffe://provider/role/name", quoted(string(conf.ID)))
			}
			if err := os.MkdirAll(out, 0o700); err != nil {
				return problem.Wrap(err, problem.Usage, "The folder %s cannot be made", quoted(out))
			}
			trust, err := certs.OpenTrust(map[token.Provider]string{conf.ID.Provider(): bundle})
			if err != nil {
				return err
			}
			id := identityConfig{Cert: filePath(filepath.Join(out, issue.CertFile)), Key: filePath(filepath.Join(out, issue.KeyFile)), ACME: &conf}
			if err := id.obtain(cmd.Context(), nil, trust); err != nil {
				return err
			}
			return a.printCertified(out)
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&conf.ID), "id", "", "the `identity` to certify, spiffe://provider/role/name")
	f.StringVar(&conf.Directory, "directory", "", "the `URL` of the authority's directory")
	f.StringVar(&conf.Identifier, "identifier", "", "the DNS `name` or IP address that the authority looks at")
	f.StringVar(&bundle, "bundle", issue.BundleFile, "the `file` of the domain's trust bundle, with which the certificate is checked")
	f.StringVar(&out, "out", "", "write cert.pem, key.pem and account.pem into this `folder`")
	f.StringVar((*string)(&conf.Root), "root", "", "the `file` that the authority's own web certificate is checked with (default: the system's roots)")
	f.StringVar(&conf.Challenge, "challenge", string(enrol.HTTP01), "how the authority looks: http-01 or tls-alpn-01")
	f.StringVar(&conf.Listen, "listen", "", "answer the challenge at this `address` (default: port 80 or 443)")
	f.StringVar((*string)(&conf.Account), "account", "", "the `file` of the account's key (default: account.pem in --out)")
	f.StringVar(&conf.Contact, "contact", "", "for the authority's operator, mailto:`address`")
	f.BoolVar(&conf.AcceptTerms, "accept-terms", false, "accept the authority's terms of service")
	for _, needed := range []string{"id", "directory", "identifier", "out"} {
		must(cmd.MarkFlagRequired(needed))
	}
	return cmd
}
