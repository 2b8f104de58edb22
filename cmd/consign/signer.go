package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/signer"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const signerHelp = `Keys that are not in files: a token, an HSM or a key service signs in a process of its own, which Consign starts,
asks and ends. docs/spec/signer.md is the protocol, one line of JSON a question and an answer. In the configuration a signer stands in
the place of a key:

  signer: [my-hsm-signer, --slot, 9a]

  consign signer check -- my-hsm-signer --slot 9a
                          start it, ask for its key and one signature, and say what came
  consign signer serve --key key.pem
                          be a signer for the key in a file: the reference, to test with and to copy`

func (a *app) signerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "signer", Short: "Keys in tokens, HSMs and key services", Long: signerHelp, Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.signerCheckCommand(), a.signerServeCommand())
	return cmd
}

func (a *app) signerServeCommand() *cobra.Command {
	var key, label string
	cmd := &cobra.Command{
		Use: "serve", Short: "Sign for another program over standard input and output", Args: exactly(),
		Long: `Answer requests for signatures on standard input until it ends. The key is read once. SIGINT and SIGTERM are not for it: it
ends with its standard input, so that whoever started it can still finish in order.`,
		RunE: func(_ *cobra.Command, _ []string) error {
			own, err := certs.ReadKey(key)
			if errors.Is(err, fs.ErrNotExist) {
				err = problem.Wrap(err, problem.BadConfig, "The key file cannot be read")
			}
			if err != nil {
				return err
			}
			if err := signer.Serve(a.in, a.out, own, label); err != nil {
				return problem.Wrap(err, problem.Malformed, "What asks does not speak the protocol of signers")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "sign with the private key in this PEM `file`")
	cmd.Flags().StringVar(&label, "label", "", "what to say of where the key is, a `text`")
	must(cmd.MarkFlagRequired("key"))
	return cmd
}

// A signerReport is the result of 'consign signer check'.
type signerReport struct {
	Kind        string `json:"kind"`
	Fingerprint string `json:"fingerprint"`
	Label       string `json:"label,omitempty"`
	Answered    string `json:"answered"` // how long one signature took
}

func (a *app) signerCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check [--] PROGRAM [ARGUMENT...]", Short: "Try a signer: its key, and one signature", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openSigner(cmd.Context(), args)
			if err != nil {
				return err
			}
			began := a.now()
			if err := trySigner(s); err != nil {
				return err
			}
			r := signerReport{Kind: signer.Describe(s.Public()), Fingerprint: string(fingerprint(s.Public())), Label: s.Label(), Answered: a.now().Sub(began).Round(time.Millisecond).String()}
			if a.format != table {
				return a.printJSON(r)
			}
			return a.printPairs([][2]string{{"key", r.Kind}, {"fingerprint", r.Fingerprint}, {"label", r.Label}, {"signature", "good, after " + r.Answered}})
		},
	}
}

// trySigner has a signer sign a text that means nothing. Sign verifies.
func trySigner(s *signer.Signer) error {
	text := []byte("consign: a trial signature, which promises nothing")
	sum := sha256.Sum256(text)
	var opts crypto.SignerOpts = crypto.SHA256
	input := sum[:]
	switch k := s.Public().(type) {
	case ed25519.PublicKey:
		input, opts = text, crypto.Hash(0)
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			long := sha512.Sum384(text)
			input, opts = long[:], crypto.SHA384
		}
	case *rsa.PublicKey:
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	_, err := s.Sign(rand.Reader, input, opts)
	return err
}

// fingerprint is SHA-256 of the SubjectPublicKeyInfo of a key.
func fingerprint(pub crypto.PublicKey) token.Hash {
	der, err := x509.MarshalPKIXPublicKey(pub)
	must(err) // it was read from one
	return token.HashOf(der)
}

// signers are the processes that hold keys in one run of the program. The zero value has none.
type signers struct {
	mu   sync.Mutex // guards what follows
	all  []*signer.Signer
	last error // the newest failure to sign
}

// add keeps s, so that it is ended with the program.
func (s *signers) add(one *signer.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
}

func (s *signers) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

// explain returns the failure of a signer in place of a connection that broke because of it: TLS does not tell why a handshake
// was not signed.
func (s *signers) explain(err error) error {
	if s == nil || err == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := problem.Of(err); s.last != nil && (code == problem.Unavailable || code == problem.Internal) {
		return s.last
	}
	return err
}

// Close ends all of them and waits.
func (s *signers) Close() {
	s.mu.Lock()
	all := s.all
	s.all = nil
	s.mu.Unlock()
	var group sync.WaitGroup
	for _, one := range all {
		group.Go(one.Close)
	}
	group.Wait()
}

// openSigner starts a signer whose standard error is ours.
func (a *app) openSigner(ctx context.Context, command []string) (*signer.Signer, error) {
	s, err := signer.Open(ctx, signer.Config{Command: command, Env: a.environ, Stderr: a.err, OnFailure: a.signers.failed})
	if err != nil {
		return nil, err
	}
	a.signers.add(s)
	return s, nil
}

// check refuses a pair that names both a key and a signer, or neither.
func (k keyPair) check() error {
	switch {
	case k.Cert == "":
		return problem.New(problem.BadConfig, "A certificate file is needed beside each key: cert")
	case k.Key != "" && len(k.Signer) > 0:
		return problem.New(problem.BadConfig, "The certificate %s has both a key and a signer, and needs one of them", quoted(string(k.Cert)))
	case len(k.Signer) > 0:
		return signer.CheckCommand(k.Signer)
	}
	return nil
}

// openPair opens a certificate and its key, wherever it is.
func (a *app) openPair(ctx context.Context, k keyPair) (*certs.Pair, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if len(k.Signer) == 0 {
		p, err := certs.PairFiles{Cert: string(k.Cert), Key: string(k.Key), Account: k.ID}.Open()
		return p, ofCert(k, err)
	}
	s, err := a.openSigner(ctx, k.Signer)
	if err != nil {
		return nil, ofCert(k, err)
	}
	p, err := certs.PairFiles{Cert: string(k.Cert), Held: s, Account: k.ID}.Open()
	return p, ofCert(k, err)
}

// openLoggedPair is openPair for a daemon, whose log takes what its signer says.
func (a *app) openLoggedPair(ctx context.Context, k keyPair, log *zap.Logger) (*certs.Pair, error) {
	if err := k.check(); err != nil || len(k.Signer) == 0 {
		if err != nil {
			return nil, err
		}
		return certs.OpenPair(string(k.Cert), string(k.Key))
	}
	s, err := a.openLoggedSigner(ctx, k.Signer, log)
	if err != nil {
		return nil, err
	}
	return certs.OpenHeldPair(string(k.Cert), s)
}

func (a *app) openLoggedSigner(ctx context.Context, command []string, log *zap.Logger) (*signer.Signer, error) {
	s, err := signer.Open(ctx, signer.Config{
		Command: command, Env: a.environ, Stderr: &lineLogger{log: log},
		OnFailure: func(err error) { logError(log, "signing", err) },
	})
	if err == nil {
		a.signers.add(s)
	}
	return s, err
}

// ofCert says of which certificate a failure is: there are several accounts.
func ofCert(k keyPair, err error) error {
	return failedFor("the certificate "+quoted(string(k.Cert)), err)
}

// ofAccount says of which account a signer's failure is.
func ofAccount(p *certs.Pair, err error) error {
	return failedFor("the account "+string(p.Identity()), err)
}

func failedFor(whose string, err error) error {
	if code := problem.Of(err); code != problem.SignerFailed && code != problem.BadConfig {
		return err
	}
	p := *problem.As(err)
	p.Detail = "Of " + whose + ": " + p.Sentence()
	return &p
}

// A lineLogger logs each line that is written to it. It is called by one goroutine.
type lineLogger struct {
	log  *zap.Logger
	line []byte
}

// maxLogLine bounds what is kept of a line, in bytes; the rest of it is dropped.
const maxLogLine = 1 << 10

func (l *lineLogger) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		l.line = append(l.line, part[:min(len(part), maxLogLine-len(l.line))]...)
		if ended {
			l.log.Info("the signer says", zap.ByteString("line", l.line))
			l.line = l.line[:0]
		}
		p = rest
	}
	return n, nil
}
