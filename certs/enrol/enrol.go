// Package enrol gets the certificate of one identity at an ACME authority (RFC 8555), and renews it.
//
// An ACME authority checks that we control a DNS name or an IP address, and our identities are URI names: which of the
// one stands for which of the other is the authority's to say, in the template of its certificates (docs/OPERATIONS.md
// has one). Nothing of that is believed. A certificate is used only if it names exactly our identity, is for our
// key, has the usages of its role and is good now in our own trust bundle.
//
// It guarantees that the key of the certificate is made once, never sent, never replaced and kept by every renewal,
// because a new key of a known account is an event and not a routine; that the certificate's file is replaced as a whole and
// last, so that a crash leaves the old certificate or the new one, and the key of both; and that it listens only
// while a challenge is open. What it takes of the authority is bounded in bytes and in time.
//
// Its outcomes are *problem.Error: bad-config for settings, files and addresses of our own; enrolment-failed for what
// the authority refuses or does not answer; and one of certificate-* for a certificate that is not the one that was asked for.
//
// It answers http-01 and tls-alpn-01 challenges, not dns-01, and knows no external account binding. It does not
// log, and starts no goroutine that outlives a call.
package enrol

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of one attempt.
const (
	attemptTime = 5 * time.Minute
	requestTime = 30 * time.Second
	proofTime   = time.Minute // that the authority may take to look at a challenge
	maxAnswer   = 1 << 20     // bytes of one answer
	quickTries  = 2           // repetitions of one request; longer pauses are the caller's
)

// A Challenge is how the authority looks whether we control the identifier.
type Challenge string

// The challenges.
const (
	HTTP01    Challenge = "http-01"     // by HTTP on port 80 of the identifier
	TLSALPN01 Challenge = "tls-alpn-01" // by TLS on port 443 of the identifier (RFC 8737)
)

// A Config says who is certified, where, and into which files.
type Config struct {
	Identity  token.Identity // whom the certificate must name
	CertFile  string         // replaced by each certificate, mode 0644
	KeyFile   string         // PKCS #8, SEC 1 or PKCS #1 in PEM; made (P-256, mode 0600) if it is not there
	Key       crypto.Signer  // instead of KeyFile, if the key is in no file
	Directory string         // https URL of the authority's directory
	Roots     []byte         // PEM of who may have issued the authority's own web certificate; empty: the system's roots
	// AccountFile is the key of our ACME account, made (P-256, mode 0600) if it is not there.
	AccountFile string
	Contact     string // mailto: URL for the authority's operator. Optional.
	AcceptTerms bool   // of service, if the authority has any
	Identifier  string // DNS name or IP address that the authority checks
	Challenge   Challenge
	// Listen is the TCP address where challenges are answered while they are open. Empty is the port of the challenge on all
	// addresses. The authority comes to that port of the identifier, whatever we listen at.
	Listen string

	patience time.Duration // for tests; 0 is proofTime
}

// Check returns problem.BadConfig for the first setting that is not good.
func (c Config) Check() error {
	if _, err := token.ParseIdentity(string(c.Identity)); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The identity to enrol must be of the form spiffe://provider/role/name.")
	}
	u, err := url.Parse(c.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return problem.New(problem.BadConfig, "The directory of the ACME authority must be an https URL.")
	}
	switch c.Challenge {
	case HTTP01, TLSALPN01:
	default:
		return problem.New(problem.BadConfig, "The ACME challenge must be %q or %q.", HTTP01, TLSALPN01)
	}
	if !goodIdentifier(c.Identifier) {
		return problem.New(problem.BadConfig, "The ACME identifier must be a DNS name in lower case or an IP address.")
	}
	if _, _, err := net.SplitHostPort(c.listen()); err != nil {
		return problem.New(problem.BadConfig, "The address for ACME challenges must be of the form host:port.")
	}
	if c.Contact != "" && !strings.HasPrefix(c.Contact, "mailto:") {
		return problem.New(problem.BadConfig, "The ACME contact must be of the form mailto:somebody@example.org.")
	}
	if c.CertFile == "" || (c.KeyFile == "") == (c.Key == nil) || c.AccountFile == "" {
		return problem.New(problem.BadConfig, "The files of certificate, key and ACME account key must be named.")
	}
	return nil
}

// dnsName is a name without wildcards and without the dot at its end, so that it has one spelling.
var dnsName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func goodIdentifier(id string) bool {
	addr, err := netip.ParseAddr(id)
	return err == nil && addr.Zone() == "" && addr.String() == id || err != nil && len(id) <= 253 && dnsName.MatchString(id)
}

func (c Config) listen() string {
	switch {
	case c.Listen != "":
		return c.Listen
	case c.Challenge == TLSALPN01:
		return ":443"
	}
	return ":80"
}

// Obtain has the authority certify the key of conf once, and writes the certificate to conf.CertFile: the first
// one, or another in its place. trust must hold the bundle of the identity's domain. It blocks for at most
// five minutes. It may be called again after any error, and not concurrently for the same files.
func Obtain(ctx context.Context, conf Config, trust *certs.Trust) error {
	if err := conf.Check(); err != nil {
		return err
	}
	key := conf.Key
	if key == nil {
		var err error
		if key, err = keyOf(conf.KeyFile); err != nil {
			return fmt.Errorf("opening the key to certify: %w", err)
		}
	}
	account, err := keyOf(conf.AccountFile)
	if err != nil {
		return fmt.Errorf("opening the key of the ACME account: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	o, err := newOffice(conf, account)
	if err != nil {
		return err
	}
	defer o.close()
	ders, err := o.order(limited, key)
	if ctx.Err() != nil {
		return fmt.Errorf("enrolling: %w", ctx.Err())
	} else if err != nil {
		return fmt.Errorf("enrolling at %s: %w", conf.Directory, refusal(err))
	}
	chain, err := accept(ders, key, conf.Identity, trust, time.Now())
	if err != nil {
		return err
	}
	if err := certs.ReplaceFile(conf.CertFile, chain.PEM(), 0o644); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The certificate's file cannot be written.")
	}
	return nil
}

// accept believes nothing of what the authority issued.
func accept(ders [][]byte, key crypto.Signer, want token.Identity, trust *certs.Trust, now time.Time) (certs.Chain, error) {
	chain, err := certs.ParseChainDER(ders)
	if err != nil {
		return nil, fmt.Errorf("reading the new certificate: %w", err)
	}
	pair, err := certs.NewPair(chain, key)
	if err != nil {
		return nil, misissued(err, want)
	}
	if pair.Identity() != want {
		return nil, &problem.Error{
			Code: problem.CertMismatch, Remedy: remedyTemplate,
			Detail: fmt.Sprintf("The ACME authority certified %s where %s was asked for.", pair.Identity(), want),
		}
	}
	if _, err := trust.Verify(chain, now); err != nil {
		return nil, misissued(err, want)
	}
	return chain, nil
}

// An office is our end of one ACME account, for one attempt.
type office struct {
	conf   Config
	client *acme.Client
	wire   *http.Transport
}

func newOffice(conf Config, account crypto.Signer) (*office, error) {
	web, err := certs.WebClient(conf.Roots)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The roots for the ACME authority cannot be read.")
	}
	wire := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: web, ForceAttemptHTTP2: true}
	return &office{conf: conf, wire: wire, client: &acme.Client{
		Key: account, DirectoryURL: conf.Directory, UserAgent: "consign",
		HTTPClient: &http.Client{Transport: bounded{wire}, Timeout: requestTime},
		RetryBackoff: func(n int, _ *http.Request, _ *http.Response) time.Duration {
			if n > quickTries {
				return -1
			}
			return time.Duration(n) * 200 * time.Millisecond
		},
	}}, nil
}

func (o *office) close() { o.wire.CloseIdleConnections() }

// bounded ends an answer that is too large.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
	}
	return res, err
}

// order goes through RFC 8555 section 7.1 once and returns the chain that came of it.
func (o *office) order(ctx context.Context, key crypto.Signer) ([][]byte, error) {
	if err := o.register(ctx); err != nil {
		return nil, err
	}
	ids, csr := acme.DomainIDs(o.conf.Identifier), x509.CertificateRequest{DNSNames: []string{o.conf.Identifier}}
	if ip := net.ParseIP(o.conf.Identifier); ip != nil {
		ids, csr = acme.IPIDs(o.conf.Identifier), x509.CertificateRequest{IPAddresses: []net.IP{ip}}
	}
	order, err := o.client.AuthorizeOrder(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, u := range order.AuthzURLs {
		if err := o.prove(ctx, u); err != nil {
			return nil, err
		}
	}
	ready, err := o.client.WaitOrder(ctx, order.URI)
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(*rsa.PublicKey); ok && o.conf.Key != nil {
		csr.SignatureAlgorithm = x509.SHA256WithRSAPSS // the only one of RSA that a key in another process makes
	}
	// The request names the identifier and not our identity: RFC 8555 section 7.4 has them be the same set of names.
	der, err := x509.CreateCertificateRequest(rand.Reader, &csr, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	ders, _, err := o.client.CreateCertFromOrder(ctx, ready, der, true)
	return ders, err
}

// register makes the account, or finds it by its key.
func (o *office) register(ctx context.Context) error {
	dir, err := o.client.Discover(ctx)
	if err != nil {
		return err
	}
	switch {
	case dir.ExternalAccountRequired:
		return problem.New(problem.EnrolFailed, "The ACME authority wants an external account binding, which is not supported.")
	case dir.Terms != "" && !o.conf.AcceptTerms:
		return &problem.Error{
			Code: problem.EnrolFailed, Detail: "The ACME authority has terms of service that were not accepted: " + certs.Printable(dir.Terms, certs.MaxWords),
			Remedy: "Read them, and accept them with the setting accept_terms.",
		}
	}
	account := &acme.Account{}
	if o.conf.Contact != "" {
		account.Contact = []string{o.conf.Contact}
	}
	if _, err := o.client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return err
	}
	return nil
}
