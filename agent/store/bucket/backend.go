package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// A Backend is one bucket of one provider, spoken to in the provider's own protocol. It is a thin layer: it makes one request a call
// (or one a page), retries nothing, remembers nothing and decides nothing. Its methods may be called concurrently.
//
// Keys are whole keys of the bucket. Failures are one of these, so that the Store can decide:
//
//   - problem.Missing: there is no such key (or version of it)
//   - problem.Changed: the key has another version than the one asked for
//   - problem.Taken: the key exists and the call creates only
//   - ErrConflict: another call on the same key was under way, and the service says that this one must be made again
//   - ErrNoUpload: the upload does not exist (any more)
//   - problem.BadName: the service does not take the key
//   - problem.Unreadable, problem.Unwritable: the credentials do not allow it, or the bucket is not there
//   - problem.DiskFull: the service has no space or quota left
//   - *Away: no answer, an answer that was cut off, 5xx, 408, 429: it may have happened and may not
//   - the context's error
//   - anything else is permanent
type Backend interface {
	io.Closer
	// Limits are the same for every call.
	Limits() Limits
	// Head describes key.
	Head(ctx context.Context, key string) (Object, error)
	// Get returns n bytes of key from off on, at the pinned version, in one request, with what the answer's head says of the object; n is positive. An
	// object that is shorter yields what there is, and an off at or behind the end, or an empty object, io.EOF at once. Where the answer
	// does not tell the metadata, Meta is nil and Store asks Head; it is empty and not nil where it tells that there is none.
	Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, Object, error)
	// List calls yield for each key that begins with prefix and is greater than after (empty: all), in ascending order of bytes, with
	// at least key, size and version. It makes one request a page, when it is needed.
	List(ctx context.Context, prefix, after string, yield func(Object) bool) error
	// Put creates key with this content if it does not exist, in one request that the service makes exclusive.
	Put(ctx context.Context, key string, content []byte, h Header) (Object, error)
	// Delete removes key at a version, by a condition of the service where it has one, else by looking first. An empty version is any.
	Delete(ctx context.Context, key string, version token.Version) error

	// Begin starts an upload to key. Where the service gives no identifier it makes no request and returns an ID that is a function of
	// key and h.Origin.
	Begin(ctx context.Context, key string, h Header) (Upload, error)
	// PutPart writes one part, exactly size bytes from r, streaming. It returns what Complete needs to know of it, and returns only after it has
	// ended reading r. Parts count from 0.
	PutPart(ctx context.Context, up Upload, part int64, r io.Reader, size int64) (Part, error)
	// Parts lists the parts that there are, in order. ErrNoUpload if the service knows that the upload is not there.
	Parts(ctx context.Context, up Upload) ([]Part, error)
	// Complete makes the object out of all parts if key does not exist, in one request that the service makes exclusive. h is that of Begin, with
	// Digest; a service that took the header at Begin ignores it.
	Complete(ctx context.Context, up Upload, parts []Part, h Header) (Object, error)
	// Abort removes the upload with its parts, also those left over of a completed one; ErrNoUpload is not reported. It is called again
	// until it is nil.
	Abort(ctx context.Context, up Upload) error
	// Uploads calls yield for every unfinished upload to a key that begins with prefix (staged parts included), as far as the service lists them.
	Uploads(ctx context.Context, prefix string, yield func(Upload) bool) error
}

// A Checker is a Backend that can find out what the service compares.
type Checker interface {
	// CheckParts returns which digest of a part the service compares: that of Limits, or none if it was seen to take a part that was
	// changed on its way. It begins an upload to key and aborts it.
	CheckParts(ctx context.Context, key string) (string, error)
}

// Limits are what a service takes.
type Limits struct {
	Kind     string // of leftovers: "upload", "part object", "blocks"
	PartSize int64  // the part size that suits the service; a power of two
	MaxParts int64
	MaxKey   int // bytes
	// Named reports that an upload's ID says whose it is: Uploads fills Origin, and nothing has to be noted.
	Named bool
	// Expire is how long the service keeps what Abort cannot remove; 0: Abort removes everything.
	Expire time.Duration
	// PartDigests is the digest by which each part is compared on both sides of the wire: "crc64", "crc32c"; empty if there is none.
	PartDigests string
	// Exclusive is how the service creates exclusively, for people: "If-None-Match".
	Exclusive string
	// MetaPair returns nil if a pair of user metadata can be kept as it is.
	MetaPair func(key, value string) error
	// MaxMeta bounds keys and values of all user metadata of an object, together, in bytes; 0 is no bound.
	MaxMeta int
	// MetaPad is what each pair counts towards MaxMeta besides its key and value.
	MetaPad int
	// Same reports that two versions are of one state, where it can be spelled in several ways: a listing may know the ETag alone. Each of
	// them is a pin that Get and Delete take. Nil is equality.
	Same func(a, b token.Version) bool
}

// A Header is what is stored beside the content of an object.
type Header struct {
	ContentType string            // empty is the service's default
	Meta        map[string]string // user metadata and, under keys that Store chooses, ours; fits MetaPair
	Origin      store.Origin      // empty for what is no stage; not written by the backend, Store has put it into Meta
}

// An Object is what a service says of a key.
type Object struct {
	Key         string
	Size        int64
	Version     token.Version // identifies this state; made of the service's version id, generation or ETag
	ModTime     time.Time     // of the service's clock
	ContentType string
	Meta        map[string]string // keys in lower case where the service does not keep case; nil in listings
	Native      string            // the service's own digest with its kind in front, as in "etag:9b2cf5"; or empty
}

// An Upload is an unfinished object.
type Upload struct {
	Key    string
	ID     string
	Origin store.Origin // where Limits.Named
	Part   int64        // bytes of each part but the last; not known in Uploads
	Since  time.Time    // zero is unknown
}

// A Part is one part that the service holds.
type Part struct {
	Index int64
	Size  int64
	Mark  string // what Complete needs of it: ETag, generation; opaque
}

// Matchable failures of a Backend.
var (
	ErrConflict = errors.New("a conflicting request was under way")
	ErrNoUpload = errors.New("there is no such upload")
)

// Away says that a service did not answer, or not in time, or that it asks for patience.
type Away struct {
	After time.Duration // what it asked to wait (Retry-After, RFC 9110 section 10.2.3); 0 is nothing
	Err   error
}

// Error says what happened.
func (a *Away) Error() string { return fmt.Sprintf("the service is not available: %v", a.Err) }

// Unwrap is the cause.
func (a *Away) Unwrap() error { return a.Err }
