// Package azure is a bucket.Backend over one container of Azure Blob Storage.
//
// # What is promised
//
// An object is a block blob. It is created by Put Blob or Put Block List with
// If-None-Match: * in the same request, so the service decides who was first. Nothing here replaces a
// blob. Every read has If-Match with the ETag that was pinned. A call is one request and is never repeated here;
// the vendor's own retries are off. A part is streamed: no more of it is in memory than the transport's
// buffers. The service answers Put Block with the CRC-64 of what arrived, which is compared with that of what was sent; Put Blob sends it along.
//
// # Blocks
//
// A part is an uncommitted block. The identifier of a block says whose it is: batch, item and part (blocks.go), so transfers to one
// name never mix, what is staged is found by asking the service (Limits.Named), and nothing has to be noted. Three things follow
// from how the service keeps blocks:
//
//   - Nothing removes uncommitted blocks but a week's time, or a blob's being written under their name. Abort does
//     nothing therefore. It would be wrong to write a blob in order to remove them: that name is not ours to create.
//   - Whoever writes a blob of the name removes all uncommitted blocks of it, ours as well. Parts does not list them then, and Complete is bucket.ErrNoUpload,
//     or problem.Taken.
//   - All uncommitted blocks of a name have identifiers of one length. Blocks of another program under the same name, if theirs have
//     another length, make ours problem.Unwritable until they are gone.
//
// Uploads lists names that have uncommitted blocks and no blob, which is all that the service tells; it asks for the
// blocks of each in a request of its own. Blocks under the name of a blob are not found.
//
// # What is not kept
//
// Keys of metadata are C# identifiers, and are lower-case here because the service compares them without case; values are
// printable ASCII. Content encoding, language and disposition, tags, tiers and snapshots are neither read nor
// written. Accounts with a hierarchical namespace have not been tried: their directories are blobs that this package does not know.
//
// # What the vendor documents and what was seen
//
// The order of Put Block, the conditions, the seven days, 50,000 blocks of up to 4,000 MiB and identifiers of up to 64
// bytes are documented by the vendor. All but the seven days was seen with Azurite 3.37.0; the service itself was not at hand. Azurite lists names in the
// order of UTF-16, where the service documents "lexicographic": List takes either. It also refuses Put Blob with If-None-Match where
// there are uncommitted blocks and no blob, and its listings fail as a whole on a name that XML cannot hold, which is why none is created.
package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	partSize  = 8 << 20
	maxBlocks = 50_000             // of a blob
	maxKey    = 1024               // characters by the vendor's word; bytes here
	maxMeta   = 8 << 10            // bytes of keys and values
	keptFor   = 7 * 24 * time.Hour // uncommitted blocks
)

// A Config says which container, and where credentials are. It holds no secret.
type Config struct {
	// Account is the name of the storage account. Its blobs are at https://ACCOUNT.blob.core.windows.net unless Endpoint says otherwise. It may
	// be left out where a connection string names it.
	Account string
	// Endpoint is the URL of the account's blobs, in other clouds, behind private links and of emulators. Optional.
	Endpoint string
	// Container is the container's name. It must exist.
	Container string
	// Credentials is a file with one of: a connection string, an account's key, a SAS token. It is read once. Optional: without it these variables of the
	// environment are used, the first that is set: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY,
	// AZURE_STORAGE_SAS_TOKEN; and without those, azidentity's default chain: AZURE_CLIENT_* variables, workload identity, managed identity, the vendor's
	// command line.
	Credentials string
	// CA is a file of root certificates (PEM) of a private service. Optional: the system's.
	CA string
}

// A backend is one container. Its methods may be called concurrently.
type backend struct {
	container *container.Client
	transport *http.Transport
}

var _ bucket.Backend = (*backend)(nil)

// NewBackend makes a client of the container. It makes no request. Errors are problem.BadConfig and hold nothing of a
// secret.
func NewBackend(c Config) (bucket.Backend, error) {
	if c.Container == "" || strings.Contains(c.Container, "/") {
		return nil, problem.New(problem.BadConfig, "The store names no container of the storage account")
	}
	cred, err := c.credential()
	if err != nil {
		return nil, err
	}
	where, err := c.url(cred)
	if err != nil {
		return nil, err
	}
	transport, err := remote.Transport(c.CA)
	if err != nil {
		return nil, err
	}
	b := &backend{transport: transport}
	if b.container, err = open(where, cred, transport); err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The credentials of the store cannot be used")
	}
	return b, nil
}

// open makes the vendor's client of a container at where.
func open(where *url.URL, cred credential, transport *http.Transport) (*container.Client, error) {
	core := policy.ClientOptions{
		Transport: &http.Client{Transport: transport, CheckRedirect: noRedirect},
		Retry:     policy.RetryOptions{MaxRetries: -1}, // none: the Store has the one loop
		Telemetry: policy.TelemetryOptions{ApplicationID: "consign"},
	}
	opts := &container.ClientOptions{ClientOptions: core}
	switch {
	case cred.key != "":
		key, err := container.NewSharedKeyCredential(cred.account, cred.key)
		if err != nil {
			return nil, errors.New("the account's key is not base64") // the cause repeats it
		}
		return container.NewClientWithSharedKeyCredential(where.String(), key, opts)
	case cred.sas != "":
		signed := *where
		signed.RawQuery = cred.sas
		return container.NewClientWithNoCredential(signed.String(), opts)
	}
	chain, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: azcore.ClientOptions{
		Transport: core.Transport, Telemetry: core.Telemetry,
	}})
	if err != nil {
		return nil, fmt.Errorf("opening the chain of credentials: %w", err)
	}
	return container.NewClient(where.String(), chain, opts)
}

// noRedirect lets no service send a signed request elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close releases idle connections.
func (b *backend) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// Limits are those that the vendor documents.
func (b *backend) Limits() bucket.Limits {
	return bucket.Limits{
		Kind: "blocks", PartSize: partSize, MaxParts: maxBlocks, MaxKey: maxKey,
		Named: true, Expire: keptFor, PartDigests: "crc64", Exclusive: "If-None-Match", MetaPair: metaPair, MaxMeta: maxMeta,
	}
}

// metaPair reports why a pair of metadata cannot be kept as it is.
func metaPair(key, value string) error {
	for i, c := range []byte(key) {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("the key %q is not of lower-case letters, digits and '_'", key)
		}
	}
	for _, c := range []byte(value) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("the value of %q is not of printable ASCII", key)
		}
	}
	if key == "" || value == "" || strings.Trim(value, " ") != value {
		return fmt.Errorf("the value of %q is empty or has spaces at an end, which HTTP does not keep", key)
	}
	return nil
}

// A request of the backend: what it was for decides what a refusal means.
type call int

const (
	reads call = iota
	lists
	puts      // creates
	stages    // a block
	completes // creates from blocks
	removes
)

// failed types err, which is what call came to.
func failed(ctx context.Context, what call, err error) error {
	if err == nil {
		return nil
	}
	var answer *azcore.ResponseError
	var login *azidentity.AuthenticationFailedError
	var hopeless interface{ NonRetriable() } // as azcore marks what no login will change
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &answer):
		return refused(what, answer)
	case errors.As(err, &login) && (login.RawResponse == nil || remote.Passing(login.RawResponse.StatusCode)):
		return &bucket.Away{Err: err}
	case errors.As(err, &hopeless):
		return denied(what, err)
	}
	return remote.Lost(ctx, err)
}
