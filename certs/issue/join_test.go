package issue

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dir := filepath.Join(t.TempDir(), "agent")
	tok := o.token("eu-1")
	id, err := Join(t.Context(), tok, "eu-1", dir)
	want := token.NewIdentity(domain, token.Agent, "eu-1")
	if id != want || err != nil {
		t.Fatalf("got %q, %v, want %q", id, err, want)
	}
	pair, trust := open(t, dir)
	_, chain, _ := pair.Current()
	if got, err := trust.Verify(chain, time.Now()); got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if n := o.logged(t, want); n != 1 {
		t.Errorf("got %d lines in the log, want 1", n)
	}
	secret := strings.Split(tok, ".")[1]
	jt, err := ParseToken(tok)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, root := range []string{o.dir, dir} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(secret)) || bytes.Contains(data, jt.secret[:]) || strings.Contains(path, secret) {
				t.Errorf("%s holds the secret", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 8 {
		t.Errorf("looked at %d files, want all of both folders", files)
	}
	if _, errs := o.told(); len(errs) != 0 {
		t.Errorf("got internal errors %v", errs)
	}
}

// TestJoinWithoutAName takes the name that the token is for.
func TestJoinWithoutAName(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok, err := o.NewToken(Request{Role: token.Subscriber, Name: "alice", Life: time.Hour}, o.address, time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id, err := Join(t.Context(), tok, "", dir)
	if want := token.NewIdentity(domain, token.Subscriber, "alice"); id != want || err != nil {
		t.Fatalf("got %q, %v, want %q", id, err, want)
	}
	if pair, _ := open(t, dir); time.Until(pair.NotAfter()) > time.Hour {
		t.Errorf("got an end at %s, want it within the hour that was asked for", pair.NotAfter())
	}
}

func TestTokenReuse(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok, dir := o.token("eu-1"), t.TempDir()
	if _, err := Join(t.Context(), tok, "eu-1", dir); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"eu-1", "", "other"} {
		thief := t.TempDir()
		_, err := Join(t.Context(), tok, name, thief)
		wantCode(t, err, problem.JoinSpent)
		if _, err := os.Stat(filepath.Join(thief, CertFile)); err == nil {
			t.Error("the second user has a certificate")
		}
		alarms, _ := o.told()
		if len(alarms) != i+1 || alarms[i].Identity != "spiffe://a.example/agent/eu-1" || alarms[i].Remote == "" || alarms[i].At.IsZero() {
			t.Errorf("got alarms %+v, want %d that name the agent", alarms, i+1)
		}
	}
	noted, err := os.ReadFile(filepath.Join(o.dir, alarmFile))
	if err != nil || strings.Count(string(noted), `"identity":"spiffe://a.example/agent/eu-1"`) != 3 || strings.Count(string(noted), "\n") != 3 {
		t.Errorf("the file of alarms: got %q, %v, want one line each", noted, err)
	}
	if s, err := ParseToken(tok); err != nil || strings.Contains(string(noted), s.secret.text()) {
		t.Errorf("the file of alarms holds the token (%v)", err)
	}
	if n := o.logged(t, "spiffe://a.example/agent/eu-1"); n != 1 {
		t.Errorf("got %d certificates for one token, want 1", n)
	}
}

// TestAlarmsDoNotFillTheDisk uses a spent token when the file of alarms is full: it is refused and told, and not written.
func TestAlarmsDoNotFillTheDisk(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok := o.token("eu-1")
	if _, err := Join(t.Context(), tok, "eu-1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(o.dir, alarmFile)
	if err := os.WriteFile(file, make([]byte, maxAlarms+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Join(t.Context(), tok, "eu-1", t.TempDir())
	wantCode(t, err, problem.JoinSpent)
	if alarms, errs := o.told(); len(alarms) != 1 || len(errs) != 0 {
		t.Errorf("got %d alarms and %v, want 1 and no error", len(alarms), errs)
	}
	if st, err := os.Stat(file); err != nil || st.Size() != maxAlarms+1 {
		t.Errorf("the file grew: %v, %v", st.Size(), err)
	}
}

func TestTokenRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	past, err := o.NewToken(Request{Role: token.Agent, Name: "late"}, o.address, 0, time.Now().Add(-TokenLife))
	if err != nil {
		t.Fatal(err)
	}
	fresh := o.token("eu-1")
	unknown := strings.Split(fresh, ".")
	unknown[1] = secret{1}.text()
	for name, tt := range map[string]struct{ tok, name string }{
		"expired":       {past, "late"},
		"another name":  {fresh, "eu-2"},
		"unknown":       {strings.Join(unknown, "."), "eu-1"},
		"not a token":   {"hello", "eu-1"},
		"nothing":       {"", "eu-1"},
		"a bare secret": {strings.Split(fresh, ".")[1], "eu-1"},
	} {
		dir := t.TempDir()
		_, err := Join(t.Context(), tt.tok, tt.name, dir)
		if got := problem.Of(err); got != problem.JoinRefused {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, problem.JoinRefused)
		}
		if s := problem.As(err).Error(); tt.tok != "" && strings.Contains(s, tt.tok) {
			t.Errorf("%s: the error repeats the token", name)
		}
	}
	if _, err := Join(t.Context(), fresh, "eu-1", t.TempDir()); err != nil {
		t.Errorf("after refusals: got %v, want the token unspent", err)
	}
	if alarms, _ := o.told(); len(alarms) != 0 {
		t.Errorf("got alarms %v, want none", alarms)
	}
}

// TestSpentOutlivesExpiry uses a spent token after its end: that is still the news that somebody has it.
func TestSpentOutlivesExpiry(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	now := time.Now()
	tok, err := ca.NewToken(Request{Role: token.Agent, Name: "x"}, "localhost:1", time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	jt, err := ParseToken(tok)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.redeem(jt.secret, "x", now.Add(time.Minute-time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = ca.redeem(jt.secret, "x", now.Add(time.Hour))
	wantCode(t, err, problem.JoinSpent)
	// A new token a month later prunes it; then it is unknown.
	if _, err := ca.NewToken(Request{Role: token.Agent, Name: "y"}, "localhost:1", time.Minute, now.Add(keepTokens+2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err = ca.redeem(jt.secret, "x", now.Add(time.Hour))
	wantCode(t, err, problem.JoinRefused)
	if left, err := os.ReadDir(filepath.Join(ca.dir, tokenDir)); err != nil || len(left) != 1 {
		t.Errorf("got %d files, %v, want the new token alone", len(left), err)
	}
}

// TestHundredUses presents one token a hundred times at once.
func TestHundredUses(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok := o.token("eu-1")
	const users = 100
	results := make([]error, users)
	var wg sync.WaitGroup
	for i := range users {
		dir := t.TempDir()
		wg.Go(func() { _, results[i] = Join(t.Context(), tok, "eu-1", dir) })
	}
	wg.Wait()
	count := map[problem.Code]int{}
	for _, err := range results {
		count[problem.Of(err)]++
	}
	if count[""] != 1 || count[problem.JoinSpent] != users-1 {
		t.Errorf("got %v, want 1 winner and %d spent", count, users-1)
	}
	if alarms, errs := o.told(); len(alarms) != users-1 || len(errs) != 0 {
		t.Errorf("got %d alarms, errors %v, want %d and none", len(alarms), errs, users-1)
	}
	if n := o.logged(t, "spiffe://a.example/agent/eu-1"); n != 1 {
		t.Errorf("got %d certificates, want 1", n)
	}
}

// TestTwoServers redeems one token through several handles on one directory, as several
// processes would.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	for range 20 {
		tok, err := ca.NewToken(Request{Role: token.Agent, Name: "x"}, "localhost:1", 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		jt, err := ParseToken(tok)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			other, err := Open(ca.dir)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _, errs[i] = other.redeem(jt.secret, "x", time.Now()) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if problem.Of(err) != problem.JoinSpent {
				t.Errorf("got %v, want %q", err, problem.JoinSpent)
			}
		}
		if won != 1 {
			t.Fatalf("got %d winners, want 1", won)
		}
	}
}

// TestCrashAfterTheMark ends the authority between the durable mark and the answer, then
// starts it again: the token is spent, and no certificate was made.
func TestCrashAfterTheMark(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok := o.token("eu-1")
	jt, err := ParseToken(tok)
	if err != nil {
		t.Fatal(err)
	}
	dying, err := Open(o.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dying.redeem(jt.secret, "eu-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err = Join(t.Context(), tok, "eu-1", t.TempDir())
	wantCode(t, err, problem.JoinSpent)
	if n := o.logged(t, "spiffe://a.example/agent/eu-1"); n != 0 {
		t.Errorf("got %d certificates, want none", n)
	}
}

// TestNothingUnlogged takes the log away: no certificate is given, and the token stays spent.
func TestNothingUnlogged(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	tok := o.token("eu-1")
	if _, err := o.servingCert(time.Now()); err != nil { // before the log is gone
		t.Fatal(err)
	}
	log := filepath.Join(o.dir, issuedFile)
	if err := os.Rename(log, log+".away"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := Join(t.Context(), tok, "eu-1", dir)
	wantCode(t, err, problem.Internal)
	if s := problem.As(err).Sentence(); strings.Contains(s, o.dir) || strings.Contains(s, "no such file") {
		t.Errorf("the sentence tells what is inside: %q", s)
	}
	if _, errs := o.told(); len(errs) != 1 || !strings.Contains(errs[0].Error(), issuedFile) {
		t.Errorf("got %v, want the cause told to the operator", errs)
	}
	if err := os.Rename(log+".away", log); err != nil {
		t.Fatal(err)
	}
	_, err = Join(t.Context(), tok, "eu-1", t.TempDir())
	wantCode(t, err, problem.JoinSpent)
	if _, err := Join(t.Context(), o.token("eu-1"), "eu-1", dir); err != nil {
		t.Errorf("the key of a joining that failed is in the way: %v", err)
	}
}

func TestJoinOverACertificate(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dir := t.TempDir()
	pair, _ := o.join("eu-1", dir)
	tok := o.token("eu-1")
	_, err := Join(t.Context(), tok, "eu-1", dir)
	wantCode(t, err, problem.Conflict)
	if again, _ := open(t, dir); again.LeafHash() != pair.LeafHash() {
		t.Error("a refused joining changed the files")
	}
	if _, err := Join(t.Context(), tok, "eu-1", t.TempDir()); err != nil {
		t.Errorf("got %v, want the token unspent", err)
	}
}

// TestImpostor puts another server at the authority's address. Not one byte of the token may reach it.
func TestImpostor(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	agent, trust := o.join("eu-1", t.TempDir())
	tok := o.token("eu-2")
	sibling := func(role token.Role) tls.Certificate {
		key := newTestKey(t)
		chain, err := o.Issue(key.Public(), Request{Role: role, Name: "evil"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{chain[0].Raw, o.root.Raw}, PrivateKey: key}
	}
	evil := certstest.New(t, domain)
	other := evil.Issue(token.Broker, "ca", certstest.As(certs.IssuerName(domain)))
	withOwn := other.TLS()
	withOwn.Certificate = append(withOwn.Certificate, evil.Root().Raw)
	withRoot := other.TLS()
	withRoot.Certificate = append(withRoot.Certificate, o.root.Raw)
	for name, cert := range map[string]tls.Certificate{
		"a broker of the authority":               sibling(token.Broker),
		"an agent of the authority":               sibling(token.Agent),
		"another authority":                       other.TLS(),
		"another authority with its own root":     withOwn,
		"another authority that shows our root":   withRoot,
		"the listener of an authority of nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan []byte, 2)
			address := impostor(t, cert, got)
			parts := strings.Split(tok, ".")
			moved := fmt.Sprintf("%s.%s.%s.%s", parts[0], parts[1], parts[2], base64.RawURLEncoding.EncodeToString([]byte(address)))
			_, err := Join(t.Context(), moved, "eu-2", t.TempDir())
			switch problem.Of(err) {
			case problem.CertUnknown, problem.CertMismatch, problem.Unavailable:
			default:
				t.Errorf("joining: got %v, want a refusal of the server", err)
			}
			if data := <-got; len(data) != 0 {
				t.Errorf("the impostor got %d bytes", len(data))
			}
			if err := Renew(t.Context(), agent, address, trust); err == nil {
				t.Error("renewing: got no error, want a refusal of the server")
			}
			if data := <-got; len(data) != 0 {
				t.Errorf("the impostor got %d bytes", len(data))
			}
		})
	}
	if _, err := Join(t.Context(), tok, "eu-2", t.TempDir()); err != nil {
		t.Errorf("got %v, want the token unspent", err)
	}
}

// impostor serves two connections with that certificate, and sends what each client said inside of TLS.
func impostor(t *testing.T, cert tls.Certificate, got chan<- []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2 {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
			var data []byte
			if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err == nil {
				data, _ = io.ReadAll(c) // an error is what we hope for
			}
			c.Close()
			got <- data
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	pair, trust := o.join("eu-1", t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	tok, err := o.NewToken(Request{Role: token.Agent, Name: "x"}, address, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Join(t.Context(), tok, "x", t.TempDir())
	wantCode(t, err, problem.Unavailable)
	wantCode(t, Renew(t.Context(), pair, address, trust), problem.Unavailable)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantCode(t, Renew(gone, pair, o.address, trust), problem.Cancelled)
	wantCode(t, Renew(t.Context(), pair, "https://evil@"+o.address, trust), problem.Malformed)
	if err := Renew(t.Context(), pair, "https://"+o.address+"/", trust); err != nil {
		t.Errorf("an https URL: got %v", err)
	}
}

// TestRequestsThatAreRefused sends what no client of ours sends.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	csr := testCSR(t, newTestKey(t))
	quoted := strings.ReplaceAll(csr, "\n", `\n`)
	secretText := strings.Split(o.token("eu-1"), ".")[1]
	block, _ := pem.Decode([]byte(csr))
	block.Bytes[len(block.Bytes)-1] ^= 1 // in the signature
	broken := strings.ReplaceAll(string(pem.EncodeToMemory(block)), "\n", `\n`)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: stranger(), DisableKeepAlives: true}}
	for name, tt := range map[string]struct {
		method, path, body string
		want               problem.Code
	}{
		"no JSON":         {"POST", "/v1/join", "hello", problem.Malformed},
		"nothing":         {"POST", "/v1/join", "", problem.Malformed},
		"two values":      {"POST", "/v1/join", "{} {}", problem.Malformed},
		"unknown field":   {"POST", "/v1/join", `{"role":"broker"}`, problem.Malformed},
		"another type":    {"POST", "/v1/join", `{"token":7}`, problem.Malformed},
		"empty object":    {"POST", "/v1/join", `{}`, problem.JoinRefused},
		"large":           {"POST", "/v1/join", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, problem.TooLarge},
		"large request":   {"POST", "/v1/join", `{"token":"` + secretText + `","csr":"` + strings.Repeat("x", maxCSR+1) + `"}`, problem.TooLarge},
		"no request":      {"POST", "/v1/join", `{"token":"` + secretText + `"}`, problem.Malformed},
		"broken request":  {"POST", "/v1/join", `{"token":"` + secretText + `","csr":"` + broken + `"}`, problem.BadSignature},
		"no certificate":  {"POST", "/v1/renew", `{"csr":"` + quoted + `"}`, problem.CertMissing},
		"another path":    {"POST", "/v1/root-key", `{}`, problem.NotFound},
		"another method":  {"GET", "/v1/join", ``, problem.NotFound},
		"path with steps": {"POST", "/v1/../v1/issue", `{}`, problem.NotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+o.address+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		res.Body.Close()
		_, err = parseAnswer(res.StatusCode, data)
		got := problem.Of(err)
		if got != tt.want || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %q as %q, want %q as a problem", name, got, res.Header.Get("Content-Type"), tt.want)
		}
		if k := problem.Lookup(problem.Of(err)); res.StatusCode != k.HTTP {
			t.Errorf("%s: got status %d, want %d", name, res.StatusCode, k.HTTP)
		}
	}
	s, err := parseSecret(secretText)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.redeem(s, "eu-1", time.Now()); err != nil {
		t.Errorf("after refusals: got %v, want the token unspent", err)
	}
	if _, errs := o.told(); len(errs) != 0 {
		t.Errorf("got internal errors %v, want none by a stranger's will", errs)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: stranger(), DisableKeepAlives: true}}
	res, err := client.Get("https://" + o.address + "/v1/bundle")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(data, o.Bundle()) {
		t.Errorf("got %q, %v, want the bundle", data, err)
	}
	roots, err := certs.ParseRoots(data)
	if err != nil || token.HashOf(roots[0].Raw) != o.Fingerprint() {
		t.Errorf("got %v, want the root", err)
	}
}
