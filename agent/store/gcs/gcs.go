// Package gcs is a bucket.Backend over one bucket of Google Cloud Storage, in its JSON API.
//
// # What is promised
//
// An object is created by an insert, or by a compose, with ifGenerationMatch=0 in the same request, so the service decides
// who was first. Nothing here replaces an object but a part, or a piece of one's own. A Version is a generation; every read
// names the one that was pinned. No call is repeated here, and the vendor's client repeats none of those that are used. A part is streamed: no more
// of it is in memory than the transport's buffers. The service says the CRC-32C of what arrived, which is compared with that of what was
// sent; a Put sends it along.
//
// # Parts
//
// A part is an object of its own. The parts of one stage are below
//
//	PREFIX.consign/BATCH/ITEM/HASH/     HASH: of the key, so that two keys are never mixed
//	  p-00000000                        a part, with the key it is for in its metadata
//	  c-0-00000000                      32 parts, composed
//
// so what is staged is found by listing (Limits.Named), and nothing has to be noted. Complete composes 32 at a time until 32 or fewer are left, and
// these into the key. Each source is named with its generation: a part that was replaced meanwhile is not there, which is bucket.ErrNoUpload. It is one request
// for up to 32 parts and about one more for every 31 beyond, up to 8 at once; only the last creates. Abort lists what is below a stage, all generations of
// it, and removes each: a bucket with versions keeps none of our parts. A bucket with a retention policy or default holds keeps
// parts for as long as that says, and Abort fails: give such a bucket no export.
//
// # What is not kept
//
// Keys of metadata are tokens of HTTP (RFC 9110, section 5.6.2); values are any text without control characters. Content encoding, language and
// disposition, cache control, storage class, custom time, contexts and access lists are neither read nor written. What is stored
// compressed is read as it is stored.
//
// # What the vendor documents and what was seen
//
// The preconditions, 32 sources of a compose, keys of up to 1,024 bytes and 8 KiB of metadata are documented by the vendor. The answer
// to a read of content does not tell the metadata, by the vendor's word of the JSON API: Get leaves Object.Meta nil, and who wants it asks Head. The calls were seen with
// fake-gcs-server 1.56.1 behind a proxy that honours preconditions; bare, it is a store that is not exclusive. The service itself was not at hand.
package gcs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"
	storage "google.golang.org/api/storage/v1"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	partSize    = 16 << 20
	maxSources  = 32                                   // of one compose
	maxParts    = maxSources * maxSources * maxSources // three rounds of composing
	maxKey      = 1024                                 // bytes
	maxMeta     = 8 << 10                              // bytes of keys and values
	workers     = 8                                    // requests of one Complete or Abort at once
	tokenWithin = 30 * time.Second                     // for one request of the login
	apiPath     = "/storage/v1/"
	apiHost     = "https://storage.googleapis.com"
)

// Anonymous as Config.Credentials asks for no credentials: for emulators.
const Anonymous = "none"

// A Config says which bucket, and where credentials are. It holds no secret.
type Config struct {
	// Endpoint is the URL of a private endpoint or of an emulator, scheme and host. Optional: Google's; or, if the environment has
	// STORAGE_EMULATOR_HOST, that emulator, without credentials. One of http:// gets no credentials.
	Endpoint string
	// Bucket is the bucket's name. It must exist.
	Bucket string
	// Prefix is of the container inside the bucket, as in bucket.Options. Part objects are kept below it.
	Prefix string
	// Credentials is a file as the vendor gives it: of a service account, of workload identity federation, or of a user. It is read once. Optional: without
	// it, Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud's, the service account of the instance. Anonymous is none.
	Credentials string
	// CA is a file of root certificates (PEM) of a private endpoint. Optional: the system's.
	CA string
}

// A backend is one bucket. Its methods may be called concurrently.
type backend struct {
	objects   *storage.ObjectsService
	transport *http.Transport
	bucket    string
	hidden    string // what the names of all part objects begin with
}

var _ bucket.Backend = (*backend)(nil)

// NewBackend makes a client of the bucket. It makes no request, unless it has to find out whether there is a metadata server with credentials. Errors are
// problem.BadConfig and hold nothing of a secret.
func NewBackend(c Config) (bucket.Backend, error) {
	if c.Bucket == "" || strings.Contains(c.Bucket, "/") {
		return nil, problem.New(problem.BadConfig, "The store names no bucket")
	}
	at, anonymous, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	transport, err := remote.Transport(c.CA)
	if err != nil {
		return nil, err
	}
	var client http.RoundTripper = asStored{transport}
	if !anonymous {
		source, err := c.tokens()
		if err != nil {
			return nil, err
		}
		client = &oauth2.Transport{Base: client, Source: source}
	}
	service, err := storage.NewService(context.Background(), option.WithHTTPClient(&http.Client{Transport: client, CheckRedirect: noRedirect}),
		option.WithEndpoint(at+apiPath))
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The store's client cannot be made")
	}
	service.UserAgent = "consign"
	hidden := ".consign/"
	if p := strings.Trim(c.Prefix, "/"); p != "" {
		hidden = p + "/" + hidden
	}
	return &backend{objects: service.Objects, transport: transport, bucket: c.Bucket, hidden: hidden}, nil
}

// endpoint is where the service is, and whether it is asked without credentials.
func (c Config) endpoint() (at string, anonymous bool, err error) {
	at, anonymous = c.Endpoint, c.Credentials == Anonymous
	if emulator := os.Getenv("STORAGE_EMULATOR_HOST"); at == "" && emulator != "" {
		anonymous = true
		if at = emulator; !strings.Contains(at, "://") {
			at = "http://" + at
		}
	}
	if at == "" {
		return apiHost, anonymous, nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		// The cause is not wrapped: a URL may hold a secret.
		return "", false, problem.New(problem.BadConfig, "The endpoint of the store is not of the form https://HOST")
	}
	if u.Scheme == "http" && c.Credentials != "" && !anonymous {
		return "", false, problem.New(problem.BadConfig, "The endpoint of the store is not encrypted: credentials are not sent there")
	}
	return u.Scheme + "://" + u.Host, anonymous || u.Scheme == "http", nil
}

// tokens finds the credentials. Logins go to where the credentials say, with the system's root certificates.
func (c Config) tokens() (oauth2.TokenSource, error) {
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenWithin})
	if c.Credentials == "" {
		found, err := google.FindDefaultCredentials(ctx, storage.DevstorageReadWriteScope)
		if err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The store has no credentials: neither a file nor Application Default Credentials")
		}
		return found.TokenSource, nil
	}
	text, err := os.ReadFile(c.Credentials)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The credentials of the store cannot be read")
	}
	for _, kind := range []google.CredentialsType{
		google.ServiceAccount, google.ExternalAccount, google.ImpersonatedServiceAccount, google.AuthorizedUser,
	} {
		if found, err := google.CredentialsFromJSONWithType(ctx, text, kind, storage.DevstorageReadWriteScope); err == nil {
			return found.TokenSource, nil
		}
	}
	// The cause is not wrapped: it may repeat what is in the file.
	return nil, problem.New(problem.BadConfig, "The credentials of the store are no file of a service account, of workload identity federation or of a user")
}

// noRedirect lets no service send a request with a token elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// asStored asks for content as it is stored: the service would decompress what is stored compressed, and ignore ranges then.
type asStored struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a asStored) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("alt") == "media" {
		r = r.Clone(r.Context())
		r.Header.Set("Accept-Encoding", "gzip")
	}
	return a.base.RoundTrip(r)
}

// Close releases idle connections.
func (b *backend) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// Limits are those that the vendor documents; of parts, those that keep composing short.
func (b *backend) Limits() bucket.Limits {
	return bucket.Limits{
		Kind: "part object", PartSize: partSize, MaxParts: maxParts, MaxKey: maxKey, Named: true, PartDigests: "crc32c",
		Exclusive: "ifGenerationMatch=0", MetaPair: metaPair, MaxMeta: maxMeta,
	}
}

// metaPair reports why a pair of metadata cannot be kept as it is.
func metaPair(key, value string) error {
	switch {
	case key == "" || strings.ContainsFunc(key, func(r rune) bool { return !strings.ContainsRune(tokenChars, r) }):
		return fmt.Errorf("the key %q is no token of HTTP", key)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("the value of %q is not of text", key)
	case value == "":
		return errors.New("an empty value is not kept")
	}
	return nil
}

// tokenChars are those of RFC 9110, section 5.6.2.
const tokenChars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
