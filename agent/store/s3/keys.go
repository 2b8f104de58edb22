package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxKeyFile  = 64 << 10         // bytes of a file of credentials
	keysWithin  = 15 * time.Second // for one request to a service that gives credentials
	localWithin = 2 * time.Second  // to connect to a metadata service, which is next door or nowhere
)

// A keysError is that there are no credentials to sign with. Its text holds none.
type keysError struct {
	err  error
	pass bool // it may pass: there were some before, or a service that gives them did not answer
}

func (e *keysError) Error() string { return "getting credentials: " + e.err.Error() }
func (e *keysError) Unwrap() error { return e.err }

// keys is the credentials.Provider of a Config. Unlike the chain of minio-go it never goes on without credentials, and it says why
// there are none. credentials.Credentials calls it under a lock.
type keys struct {
	file    string
	profile string
	stamp   os.FileInfo // of file when it was read

	sources []source
	current credentials.Provider // that gave the last ones
	client  *http.Client         // for services that give credentials; not the store's, whose roots are others
}

// A source is one step of the chain.
type source struct {
	name     string
	provider credentials.Provider
	asked    bool // the environment names it, so that its failure counts
}

func newKeys(conf Config) (*keys, error) {
	k := &keys{file: conf.Credentials, profile: conf.Profile, client: keysClient()}
	if k.file != "" {
		if _, err := k.fromFile(nil); err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The file of credentials for the object store cannot be used: %v", err)
		}
		return k, nil
	}
	web := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != ""
	box := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" || os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
	k.sources = []source{
		{name: "environment", provider: &credentials.EnvAWS{}},
		{name: "shared credentials file", provider: &credentials.FileAWSCredentials{Profile: conf.Profile}},
	}
	if web || box || !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		k.sources = append(k.sources, source{name: "service", provider: &credentials.IAM{Client: k.client, Region: conf.Region}, asked: web || box})
	}
	return k, nil
}

// keysClient reaches STS through a proxy if there is one, and a metadata service never.
func keysClient() *http.Client {
	near := func(host string) bool {
		ip := net.ParseIP(host)
		return ip != nil && (ip.IsLinkLocalUnicast() || ip.IsLoopback() || ip.IsPrivate())
	}
	return &http.Client{
		Timeout: keysWithin,
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if near(r.URL.Hostname()) {
					return nil, nil
				}
				return http.ProxyFromEnvironment(r)
			},
			DialContext:         (&net.Dialer{Timeout: localWithin}).DialContext,
			TLSHandshakeTimeout: keysWithin,
			DisableKeepAlives:   true,
		},
	}
}

// Retrieve implements credentials.Provider.
func (k *keys) Retrieve() (credentials.Value, error) { return k.RetrieveWithCredContext(nil) }

// RetrieveWithCredContext implements credentials.Provider. The error is a *keysError.
func (k *keys) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	own := &credentials.CredContext{Client: k.client}
	if cc != nil {
		own.Context = cc.Context
	}
	if k.file != "" {
		v, err := k.fromFile(own)
		if err != nil {
			return v, &keysError{err: err, pass: true} // it was read at the start
		}
		return v, nil
	}
	failed := &keysError{pass: k.current != nil}
	var errs []error
	for _, s := range k.sources {
		v, err := s.provider.RetrieveWithCredContext(own)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			k.current = s.provider
			return v, nil
		}
		if err == nil {
			err = errors.New("none")
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		failed.pass = failed.pass || s.asked
	}
	failed.err = errors.Join(errs...)
	return credentials.Value{}, failed
}

// IsExpired implements credentials.Provider.
func (k *keys) IsExpired() bool {
	if k.file == "" {
		return k.current == nil || k.current.IsExpired()
	}
	if k.current != nil && k.current.IsExpired() {
		return true
	}
	now, err := os.Stat(k.file)
	return err == nil && (k.stamp == nil || !os.SameFile(now, k.stamp) || now.Size() != k.stamp.Size() || !now.ModTime().Equal(k.stamp.ModTime()))
}

// fromFile reads the file of credentials. No error repeats what it holds.
func (k *keys) fromFile(cc *credentials.CredContext) (credentials.Value, error) {
	f, err := os.Open(k.file)
	if err != nil {
		return credentials.Value{}, err
	}
	defer f.Close()
	stamp, err := f.Stat()
	if err != nil {
		return credentials.Value{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return credentials.Value{}, err
	}
	if len(text) > maxKeyFile {
		return credentials.Value{}, fmt.Errorf("it is longer than %d bytes", maxKeyFile)
	}
	lines := keyLines(text)
	if len(lines) > 0 && strings.HasPrefix(lines[0], "[") {
		p := &credentials.FileAWSCredentials{Filename: k.file, Profile: k.profile}
		v, err := p.RetrieveWithCredContext(cc)
		if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
			err = errors.New("the profile has no keys")
		}
		if err != nil {
			return credentials.Value{}, errors.New("it has no profile of that name with whole keys") // the cause may repeat a line
		}
		k.current, k.stamp = p, stamp
		return v, nil
	}
	if len(lines) < 2 || len(lines) > 3 {
		return credentials.Value{}, errors.New("it has neither the form of a shared credentials file nor two lines, access key and secret key")
	}
	v := credentials.Value{AccessKeyID: lines[0], SecretAccessKey: lines[1], SignerType: credentials.SignatureV4}
	if len(lines) == 3 {
		v.SessionToken = lines[2]
	}
	k.current, k.stamp = nil, stamp
	return v, nil
}

// keyLines are the lines that are not empty and no comment.
func keyLines(text []byte) []string {
	var lines []string
	for line := range bytes.Lines(text) {
		if s := strings.TrimSpace(string(line)); s != "" && s[0] != '#' && s[0] != ';' {
			lines = append(lines, s)
		}
	}
	return lines
}
