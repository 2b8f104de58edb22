package signer

import (
	"bufio"
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
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// roleVariable makes this test binary a signer: how it behaves, and its key.
const roleVariable, keyVariable = "SIGNER_TEST_ROLE", "SIGNER_TEST_KEY"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play is a signer that behaves as its role says from its second answer on.
func play(role string) error {
	der, err := base64.StdEncoding.DecodeString(os.Getenv(keyVariable))
	if err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return err
	}
	key := parsed.(crypto.Signer)
	fmt.Fprintln(os.Stderr, "the signer has started")
	if role == "honest" {
		return Serve(os.Stdin, os.Stdout, key, "a test\x1b[31m")
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil //nolint:nilerr // the end
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			return err
		}
		if q.Do == doKey && role != "weak key" {
			var out bytes.Buffer
			if err := Serve(bytes.NewReader(line), &out, key, ""); err != nil {
				return err
			}
			if _, err := out.WriteTo(os.Stdout); err != nil {
				return err
			}
			continue
		}
		done, err := misbehave(role, q, line, key)
		if done || err != nil {
			return err
		}
	}
}

// misbehave answers a request to sign in a way of its own, and reports whether the process ends.
func misbehave(role string, q request, line []byte, key crypto.Signer) (bool, error) {
	write := func(a answer) error {
		data, err := json.Marshal(a)
		if err == nil {
			_, err = os.Stdout.Write(append(data, '\n'))
		}
		return err
	}
	switch role {
	case "dies":
		return true, nil
	case "dies after one": // which is the honest one
		return true, Serve(bytes.NewReader(line), os.Stdout, key, "")
	case "hangs":
		_, err := io.Copy(io.Discard, os.Stdin) // until it is killed, or its input ends
		return true, err
	case "refuses":
		return false, write(answer{V: 1, ID: q.ID, Error: "The token is locked.\x07"})
	case "another message":
		other := sha256.Sum256([]byte("pay somebody else"))
		q.Digest = other[:]
		sig, _ := q.sign(key)
		return false, write(answer{V: 1, ID: q.ID, Signature: sig})
	case "answers out of order":
		sig, _ := q.sign(key)
		return false, write(answer{V: 1, ID: q.ID - 1, Signature: sig})
	case "no signature":
		return false, write(answer{V: 1, ID: q.ID, Label: "nothing"})
	case "another version":
		return false, write(answer{V: 2, ID: q.ID, Signature: []byte{1}})
	case "floods a line":
		for {
			if _, err := os.Stdout.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return true, nil //nolint:nilerr // the reader has had enough
			}
		}
	case "floods answers":
		for {
			if err := write(answer{V: 1, ID: q.ID + 7, Signature: []byte{1}}); err != nil {
				return true, nil //nolint:nilerr // as above
			}
		}
	case "prints":
		_, err := fmt.Fprintln(os.Stdout, "Please touch the token")
		return false, err
	case "weak key":
		weak, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			return true, err
		}
		spki, err := x509.MarshalPKIXPublicKey(weak.Public())
		return false, errors.Join(err, write(answer{V: 1, ID: q.ID, Key: spki}))
	}
	return true, errors.New("no such role")
}

// config is a signer of this binary in a role.
func config(t *testing.T, role string, key crypto.Signer) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Command: []string{self}, Env: []string{roleVariable + "=" + role, keyVariable + "=" + base64.StdEncoding.EncodeToString(der)}}
}

func open(t *testing.T, conf Config) *Signer {
	t.Helper()
	s, err := Open(t.Context(), conf)
	if err != nil {
		t.Fatalf("opening a signer: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

func ecdsaKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsaKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keys(t *testing.T) []crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.Signer{ed, p256(t), p384, r}
}

// TestEveryKindOfKeySigns has each kind of key sign an order in another process, from many goroutines at once.
func TestEveryKindOfKeySigns(t *testing.T) {
	t.Parallel()
	for _, key := range keys(t) {
		t.Run(Describe(key.Public()), func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			conf := config(t, "honest", key)
			conf.Stderr = &stderr
			s := open(t, conf)
			if !equalKeys(s.Public(), key.Public()) || s.Label() != "a test[31m" {
				t.Errorf("got another key, or the label %q", s.Label())
			}
			signer, err := token.NewSigner(s)
			if err != nil {
				t.Fatal(err)
			}
			o := token.Order{
				Accounts: []token.Identity{"spiffe://north/subscriber/alice"}, Do: token.Stat, Scope: token.One, Iat: 1, Exp: 2,
				ID: "01938c5e-7a00-7abc-8def-0123456789ab", From: token.Location{Provider: "north", Container: "src", Name: "a"},
			}
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					jws, err := signer.Order(o)
					if err == nil {
						_, err = token.VerifyOrder(jws, key.Public())
					}
					if err != nil {
						t.Errorf("an order: %v", err)
					}
				})
			}
			group.Wait()
			s.Close()
			if got := stderr.String(); strings.Count(got, "the signer has started") != 1 {
				t.Errorf("standard error: got %q, want one start", got)
			}
			if _, err := s.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); problem.Of(err) != problem.SignerFailed {
				t.Errorf("signing after the end: got %v", err)
			}
		})
	}
}

// TestHostileSigner has a process break each rule in turn: nothing that it returns is used, everybody is told
// why in a sentence with a remedy, and nobody waits for ever.
func TestHostileSigner(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("what was asked for"))
	for role, want := range map[string]string{
		"dies":                 "ended instead of answering",
		"hangs":                "did not answer within 1s",
		"refuses":              "refused to sign: The token is locked",
		"another message":      "not its key's over what was to be signed",
		"answers out of order": "not to the request",
		"no signature":         "not an answer of version 1",
		"another version":      "not an answer of version 1",
		"floods a line":        "longer than its limit",
		"floods answers":       "not to the request",
		"prints":               "not an answer of version 1",
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			conf := config(t, role, p256(t))
			var told error
			conf.OnFailure = func(err error) { told = err }
			s := open(t, conf)
			if role == "hangs" {
				s.conf.signTime = time.Second
			}
			sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA256)
			p := problem.As(err)
			if sig != nil || err == nil || p.Code != problem.SignerFailed || !strings.Contains(p.Sentence(), want) || p.Advice() == "" {
				t.Fatalf("got %x, %v, want signer-failed with %q", sig, err, want)
			}
			if strings.ContainsAny(p.Sentence(), "\x07\x1b") || !errors.Is(told, err) {
				t.Errorf("the sentence %q, or what was told, %v", p.Sentence(), told)
			}
		})
	}
}

func TestSignerThatKeepsDyingIsNotStartedWithoutEnd(t *testing.T) {
	t.Parallel()
	var stderr bytes.Buffer
	conf := config(t, "dies", p256(t))
	conf.Stderr = &stderr
	s := open(t, conf)
	sum := sha256.Sum256([]byte("x"))
	var err error
	for range 50 {
		_, err = s.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	if problem.Of(err) != problem.SignerFailed || !strings.Contains(err.Error(), "is not started again before") {
		t.Errorf("got %v, want a pause", err)
	}
	s.Close()
	if n := strings.Count(stderr.String(), "has started"); n < 2 || n > 10 {
		t.Errorf("got %d starts for 50 calls, want a few", n)
	}
}

// TestSignerThatEndedIsStartedAgain: a process that ends between two signatures costs nobody anything.
func TestSignerThatEndedIsStartedAgain(t *testing.T) {
	t.Parallel()
	key := p256(t)
	s := open(t, config(t, "dies after one", key))
	for i := range 5 {
		sum := sha256.Sum256([]byte{byte(i)})
		sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig) {
			t.Fatalf("signature %d: %v", i, err)
		}
	}
}

func TestSignerWithAnotherKeyAfterItsRestart(t *testing.T) {
	t.Parallel()
	conf := config(t, "dies after one", p256(t))
	s := open(t, conf)
	sum := sha256.Sum256([]byte("x"))
	if _, err := s.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	s.conf.Env = config(t, "dies after one", p256(t)).Env
	if _, err := s.Sign(rand.Reader, sum[:], crypto.SHA256); problem.Of(err) != problem.SignerFailed || !strings.Contains(err.Error(), "another key than before") {
		t.Errorf("got %v, want a refusal of the other key", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		conf Config
		want problem.Code
	}{
		"no command":      {Config{}, problem.BadConfig},
		"relative path":   {Config{Command: []string{"./signer"}}, problem.BadConfig},
		"no such program": {Config{Command: []string{"/no/such/program"}}, problem.SignerFailed},
		"a shell's line":  {Config{Command: []string{"true; echo"}}, problem.SignerFailed},
		"ends at once":    {Config{Command: []string{"true"}}, problem.SignerFailed},
		"weak key":        {config(t, "weak key", p256(t)), problem.SignerFailed},
	} {
		s, err := Open(t.Context(), tt.conf)
		if problem.Of(err) != tt.want || s != nil || problem.As(err).Advice() == "" {
			t.Errorf("%s: got %v, %v, want %s", name, s, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{Command: []string{"sleep", "60"}}); err == nil {
		t.Error("opening past the end of ctx: got a signer")
	}
}

func TestWhatNoKeySigns(t *testing.T) {
	t.Parallel()
	ks := keys(t)
	for name, tt := range map[string]struct {
		key    crypto.Signer
		digest []byte
		opts   crypto.SignerOpts
	}{
		"PKCS #1 v1.5":     {ks[3], make([]byte, 32), crypto.SHA256},
		"a short salt":     {ks[3], make([]byte, 32), &rsa.PSSOptions{SaltLength: 8, Hash: crypto.SHA256}},
		"PSS without hash": {ks[3], make([]byte, 32), &rsa.PSSOptions{SaltLength: 8}},
		"SHA-1":            {ks[1], make([]byte, 20), crypto.SHA1},
		"a short digest":   {ks[1], make([]byte, 16), crypto.SHA256},
		"the wrong hash":   {ks[2], make([]byte, 32), crypto.SHA256},
		"hashed for Ed":    {ks[0], make([]byte, 64), crypto.SHA512},
		"a huge message":   {ks[0], make([]byte, MaxMessageSize+1), crypto.Hash(0)},
	} {
		if _, err := jobOf(tt.key.Public(), tt.digest, tt.opts); problem.Of(err) != problem.SignerFailed {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	sum := sha512.Sum384([]byte("x"))
	j, err := jobOf(ks[3].Public(), sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA384})
	if err != nil || j.Alg != algRSAPSS384 {
		t.Errorf("PSS with SHA-384: got %+v, %v", j, err)
	}
}

// TestServeRefuses: the reference refuses what the protocol does not allow, and ends at what is no request.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	key := p256(t)
	d := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for line, want := range map[string]string{
		`{"v":1,"id":1,"do":"sign","alg":"ecdsa-sha256","digest":"` + d + `"}`:                  `"signature"`,
		`{"v":1,"id":1,"do":"sign","alg":"ecdsa-sha256","message":"` + d + `"}`:                 "There must be a digest",
		`{"v":1,"id":1,"do":"sign","alg":"ecdsa-sha256","digest":"` + d + `","message":"eA=="}`: "There must be a digest",
		`{"v":1,"id":1,"do":"sign","alg":"ed25519","message":"eA=="}`:                           "does not sign with that",
		`{"v":1,"id":1,"do":"sign","alg":"rsa-pkcs1-sha256","digest":"` + d + `"}`:              "does not sign with that",
		`{"v":2,"id":1,"do":"key"}`:    "Only version 1",
		`{"v":1,"id":1,"do":"export"}`: "no such request",
		`{"v":1,"id":9,"do":"key"}`:    `"id":9,"key":"`,
	} {
		var out bytes.Buffer
		if err := Serve(strings.NewReader(line+"\n"), &out, key, ""); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: got %s, %v, want %s", line, out.String(), err, want)
		}
	}
	for _, bad := range []string{"x\n", "{}{}\n", `{"v":1,"id":1,"do":"key","pin":"1"}` + "\n", `{"v":1}`, strings.Repeat(" ", MaxRequestSize+1)} {
		if err := Serve(strings.NewReader(bad), io.Discard, key, ""); err == nil {
			t.Errorf("%.40q: got nil, want an end with an error", bad)
		}
	}
}
