package s3

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Config says where a bucket is and how to get in. Only Bucket is required. It holds no secret.
type Config struct {
	// Endpoint is the URL of the service, scheme and host, with a port if it has to be: "https://s3.example.org:9000". Empty is AWS, in Region.
	Endpoint string
	// Region is what requests are signed for. Empty is AWS_REGION or AWS_DEFAULT_REGION of the environment, else what the
	// endpoint's name says, else us-east-1. A service that is not AWS often takes any.
	Region string
	// Bucket is the name of the bucket, which exists.
	Bucket string
	// Style is where the bucket is named; empty is StyleAuto.
	Style Style
	// Checksums is how parts are guarded over TLS; empty is ChecksumsTrailer.
	Checksums Checksums
	// CA is a file of root certificates (PEM) for the endpoint; empty is the system's.
	CA string
	// Credentials is a file: either two lines, the access key and the secret key (a third is a session token), or one in the form of AWS's
	// shared credentials file. It is read again when it changes. Empty is the usual chain, in this order: AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY of the environment; AWS's shared credentials and configuration file; a web
	// identity (AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN); a container's credentials (AWS_CONTAINER_CREDENTIALS_*); the metadata service of EC2.
	Credentials string
	// Profile is the section of a shared credentials file; empty is AWS_PROFILE of the environment, else "default".
	Profile string
}

// A Style is where in a request's URL the bucket is named.
type Style string

const (
	StyleAuto    Style = "auto"    // StyleVirtual at AWS, else StylePath
	StylePath    Style = "path"    // https://host/bucket/key
	StyleVirtual Style = "virtual" // https://bucket.host/key
)

// Checksums says what is sent with a part over TLS, besides its bytes.
type Checksums string

const (
	ChecksumsTrailer Checksums = "trailer" // CRC-32C, in a trailer
	ChecksumsNone    Checksums = "none"    // nothing, for a service that takes no trailers
)

const (
	partSize = 8 << 20
	maxParts = 10_000
	maxKey   = 1024 // bytes
	maxMeta  = 1690 // bytes: of 2,000 that rclone counts, with what it counts of its own and a content type
	perPage  = 1000 // names or parts of one listing's answer
)

// backend is a bucket.Backend. It is safe for concurrent use.
type backend struct {
	core      *minio.Core
	transport *transport
	host      string // of the endpoint, for sentences
	bucket    string
	trailers  bool // parts have their checksum in a trailer
	secure    bool
}

var _ bucket.Backend = (*backend)(nil)

// NewBackend returns the backend of a bucket. It makes no request: whether the bucket is there and lets us in turns out at the first call. A Config
// that cannot be is problem.BadConfig.
func NewBackend(conf Config) (bucket.Backend, error) { return newBackend(conf) }

func newBackend(conf Config) (*backend, error) {
	if conf.Region == "" {
		conf.Region = firstOf(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	}
	at, err := endpoint(conf)
	if err != nil {
		return nil, err
	}
	if err := s3utils.CheckValidBucketName(conf.Bucket); err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "%q is no name of a bucket", conf.Bucket)
	}
	style, ok := map[Style]minio.BucketLookupType{
		"": minio.BucketLookupAuto, StyleAuto: minio.BucketLookupAuto, StylePath: minio.BucketLookupPath, StyleVirtual: minio.BucketLookupDNS,
	}[conf.Style]
	if !ok {
		return nil, problem.New(problem.BadConfig, "%q is no style of naming a bucket: it is %q, %q or %q", conf.Style, StyleAuto, StylePath, StyleVirtual)
	}
	switch conf.Checksums {
	case "", ChecksumsTrailer, ChecksumsNone:
	default:
		return nil, problem.New(problem.BadConfig, "%q is no way to send checksums: it is %q or %q", conf.Checksums, ChecksumsTrailer, ChecksumsNone)
	}
	keys, err := newKeys(conf)
	if err != nil {
		return nil, err
	}
	base, err := remote.Transport(conf.CA)
	if err != nil {
		return nil, err
	}
	b := &backend{transport: newTransport(base), host: at.Host, bucket: conf.Bucket, secure: at.Scheme == "https"}
	b.trailers = b.secure && conf.Checksums != ChecksumsNone
	region := firstOf(conf.Region, s3utils.GetRegionFromURL(*at), "us-east-1") // never empty, or the client would ask for it
	b.core, err = minio.NewCore(at.Host, &minio.Options{
		Creds:        credentials.New(keys),
		Secure:       b.secure,
		Region:       region,
		BucketLookup: style,
		Transport:    b.transport,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "%q is no endpoint of an object store", conf.Endpoint)
	}
	b.core.SetS3EnableDualstack(strings.Contains(at.Host, ".dualstack."))
	b.core.SetAppInfo("consign", "agent")
	return b, nil
}

// endpoint reads and checks the URL of the service.
func endpoint(conf Config) (*url.URL, error) {
	text := conf.Endpoint
	switch {
	case text != "":
	case conf.Region == "" || conf.Region == "us-east-1":
		text = "https://s3.amazonaws.com"
	case strings.HasPrefix(conf.Region, "cn-"):
		text = "https://s3." + conf.Region + ".amazonaws.com.cn"
	default:
		text = "https://s3." + conf.Region + ".amazonaws.com"
	}
	at, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, problem.New(problem.BadConfig, "The endpoint of the object store is no URL") // the error repeats it, with what may be a secret in it
	case at.User != nil:
		return nil, problem.New(problem.BadConfig, "The endpoint of the object store holds a user name or a password: credentials come from a file or the environment")
	case at.Scheme != "http" && at.Scheme != "https", at.Host == "", at.Path != "" && at.Path != "/", at.RawQuery != "", at.Fragment != "":
		return nil, problem.New(problem.BadConfig, "The endpoint %q of the object store is not http:// or https:// with a host and nothing behind it", text)
	}
	return at, nil
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// Limits implements bucket.Backend. PartDigests is what is sent; CheckParts measures whether the service looks.
func (b *backend) Limits() bucket.Limits {
	l := bucket.Limits{
		Kind: "upload", PartSize: partSize, MaxParts: maxParts, MaxKey: maxKey,
		Exclusive: "If-None-Match", MetaPair: metaPair, MaxMeta: maxMeta, MetaPad: len(metaPrefix), Same: same,
	}
	switch {
	case b.trailers:
		l.PartDigests = "crc32c"
	case !b.secure:
		l.PartDigests = "sha256"
	}
	return l
}

// Close implements bucket.Backend. Calls that are under way are not ended.
func (b *backend) Close() error {
	b.transport.close()
	return nil
}

// versionOf spells the version of an object.
func versionOf(etag, id string) token.Version {
	if id == "" || id == "null" { // null is the id of what was stored without versioning
		return token.Version(etag)
	}
	return token.Version(etag + "#" + id)
}

// parts takes a version apart.
func parts(v token.Version) (etag, id string) {
	etag, id, _ = strings.Cut(string(v), "#")
	return etag, id
}

// same reports that two versions are of one state: a version without an id is of every state with its ETag.
func same(a, b token.Version) bool {
	tagA, idA := parts(a)
	tagB, idB := parts(b)
	return tagA == tagB && (idA == idB || idA == "" || idB == "")
}

// etagOf takes the quotes off an ETag.
func etagOf(s string) string { return strings.Trim(s, `"`) }

// native is the service's digest of an object, as far as an ETag is one.
func native(etag string) string {
	if etag == "" {
		return ""
	}
	return "etag:" + etag
}

// lastModified is when the service says that an object was made; zero if it does not.
func lastModified(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// where names the bucket in a sentence.
func (b *backend) where() string { return fmt.Sprintf("The bucket %q at %s", b.bucket, b.host) }
