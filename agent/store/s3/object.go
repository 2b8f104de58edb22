package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	metaPrefix = "X-Amz-Meta-" // canonical, as net/http has it
	versionID  = "X-Amz-Version-Id"
	crcHeader  = "X-Amz-Checksum-Crc32c"
	maxSegment = 255                   // bytes
	noType     = "binary/octet-stream" // what AWS says of an object of which nobody has said a type
)

// errNoETag is an answer of success that is none.
var errNoETag = errors.New("there is no ETag in the answer")

// Head implements bucket.Backend. A bucket that is not there is told as problem.Missing: an answer to HEAD has no body that says more. A marker is
// looked for in a listing as well, because rclone says that there is one of every folder.
func (b *backend) Head(ctx context.Context, key string) (bucket.Object, error) {
	o, err := b.head(ctx, key, "")
	if err != nil || !strings.HasSuffix(key, "/") {
		return o, err
	}
	listed := false
	err = b.list(ctx, key, "", 1, func(first bucket.Object) bool {
		listed = first.Key == key
		return false
	})
	if err == nil && !listed {
		err = problem.New(problem.Missing, "There is no such object.")
	}
	return o, err
}

// head describes key at a version; an empty one is any.
func (b *backend) head(ctx context.Context, key string, version token.Version) (bucket.Object, error) {
	inner, t := withTrip(ctx)
	what := looking
	if version != "" {
		what = reading
	}
	_, err := b.core.StatObject(inner, b.bucket, key, pinned(version))
	if err != nil {
		if t.status == http.StatusBadRequest && unlikely(key) {
			return bucket.Object{}, problem.Wrap(err, problem.Missing, "There is no such object.")
		}
		return bucket.Object{}, b.fail(ctx, t, what, err)
	}
	size, err := strconv.ParseInt(t.header.Get("Content-Length"), 10, 64)
	if err != nil || size < 0 {
		return bucket.Object{}, b.away(t, errors.New("there is no size in the answer"), "did not answer whole")
	}
	return b.described(key, size, version, t)
}

// pinned are the options that read one version only.
func pinned(version token.Version) minio.GetObjectOptions {
	var opts minio.GetObjectOptions
	if version != "" {
		etag, id := parts(version)
		opts.Set("If-Match", `"`+etag+`"`)
		opts.VersionID = id
	}
	return opts
}

// described is the object that the head of an answer describes, if it is the version that was asked for.
func (b *backend) described(key string, size int64, version token.Version, t *trip) (bucket.Object, error) {
	h := t.header
	etag := etagOf(h.Get("ETag"))
	if etag == "" {
		return bucket.Object{}, b.away(t, errNoETag, "did not answer whole")
	}
	o := bucket.Object{
		Key: key, Size: size, ModTime: lastModified(h), Native: native(etag),
		Version: versionOf(etag, h.Get(versionID)), ContentType: h.Get("Content-Type"), Meta: map[string]string{},
	}
	if version != "" && !same(version, o.Version) {
		return bucket.Object{}, problem.New(problem.Changed, "The object has another version.")
	}
	for name, values := range h {
		if k, ok := strings.CutPrefix(name, metaPrefix); ok && k != "" {
			o.Meta[strings.ToLower(k)] = strings.Join(values, ",")
		}
	}
	return o, nil
}

// Get implements bucket.Backend.
func (b *backend) Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, bucket.Object, error) {
	inner, t := withTrip(ctx)
	opts := pinned(version)
	if err := opts.SetRange(off, off+n-1); err != nil {
		return nil, bucket.Object{}, fmt.Errorf("reading %d bytes from %d on: %w", n, off, err)
	}
	body, _, _, err := b.core.GetObject(inner, b.bucket, key, opts)
	if t.status == http.StatusRequestedRangeNotSatisfiable {
		o, err := b.head(ctx, key, version)
		if err != nil {
			return nil, bucket.Object{}, err
		}
		return http.NoBody, o, nil
	}
	if err != nil {
		return nil, bucket.Object{}, b.fail(ctx, t, reading, err)
	}
	o, err := b.content(key, version, off, t)
	if err != nil {
		_ = body.Close()
		return nil, bucket.Object{}, err
	}
	return &content{body: body, left: min(n, max(0, o.Size-off)), ctx: ctx, b: b, t: t}, o, nil
}

// content describes the object that an answer begins with, at the place that was asked for.
func (b *backend) content(key string, version token.Version, off int64, t *trip) (bucket.Object, error) {
	text := t.header.Get("Content-Range")
	size, err := remote.Total(text)
	switch {
	case t.status == http.StatusOK && off == 0: // all of it
		size, err = strconv.ParseInt(t.header.Get("Content-Length"), 10, 64)
	case t.status == http.StatusOK:
		err = errors.New("it ignored Range")
	case !strings.HasPrefix(text, fmt.Sprintf("bytes %d-", off)):
		err = fmt.Errorf("it answered with Content-Range %q where %d was asked for", text, off)
	}
	if err != nil || size < 0 {
		return bucket.Object{}, problem.Wrap(err, problem.Unreadable, "The object store at %s does not read from the place that it is asked for.", b.host)
	}
	return b.described(key, size, version, t)
}

// content is what Get reads, with its failures typed. One goroutine reads it.
type content struct {
	body io.ReadCloser
	left int64           // bytes that are to come
	ctx  context.Context // of the caller of Get
	b    *backend
	t    *trip
}

// Read implements io.Reader. An answer that ends before its time is away, not the end.
func (c *content) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.body.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && c.left == 0:
		return n, io.EOF
	case c.ctx.Err() != nil:
		return n, c.ctx.Err()
	}
	return n, c.b.away(c.t, err, "stopped in the middle of an object")
}

// Close implements io.Closer.
func (c *content) Close() error { return c.body.Close() }

// List implements bucket.Backend. A service that does not list in the order of bytes is refused, because whoever goes on from a name would leave
// others out.
func (b *backend) List(ctx context.Context, prefix, after string, yield func(bucket.Object) bool) error {
	return b.list(ctx, prefix, after, perPage, yield)
}

func (b *backend) list(ctx context.Context, prefix, after string, page int, yield func(bucket.Object) bool) error {
	inner, t := withTrip(ctx)
	no := false
	opts := minio.ListObjectsOptions{Prefix: prefix, StartAfter: after, Recursive: true, MaxKeys: page, FetchOwner: &no}
	last := after
	for o := range b.core.ListObjectsIter(inner, b.bucket, opts) {
		if o.Err != nil {
			return b.fail(ctx, t, looking, o.Err)
		}
		if o.Key <= last && last != "" || !strings.HasPrefix(o.Key, prefix) {
			return problem.New(problem.Unreadable, "The object store at %s lists names out of order.", b.host)
		}
		last = o.Key
		etag := etagOf(o.ETag)
		if !yield(bucket.Object{Key: o.Key, Size: o.Size, Version: versionOf(etag, ""), ModTime: o.LastModified.UTC(), Native: native(etag)}) {
			return nil
		}
	}
	return ctx.Err()
}

// Put implements bucket.Backend.
func (b *backend) Put(ctx context.Context, key string, body []byte, h bucket.Header) (bucket.Object, error) {
	if err := listable(key); err != nil {
		return bucket.Object{}, err
	}
	inner, t := withTrip(ctx)
	opts := options(h)
	opts.DisableContentSha256 = true // or it would be signed in pieces
	opts.UserMetadata[crcHeader] = crcText(crc32.Checksum(body, castagnoli()))
	opts.SetMatchETagExcept("*")
	sum := sha256.Sum256(body)
	info, err := b.core.PutObject(inner, b.bucket, key, bytes.NewReader(body), int64(len(body)), "", hex.EncodeToString(sum[:]), opts)
	if err != nil {
		return bucket.Object{}, b.fail(ctx, t, creating, err)
	}
	if info.ETag == "" {
		return bucket.Object{}, b.away(t, errNoETag, "did not answer whole")
	}
	return bucket.Object{Key: key, Size: int64(len(body)), Version: versionOf(info.ETag, info.VersionID), Native: native(info.ETag)}, nil
}

// Delete implements bucket.Backend. The condition is sent as well as looked at before. In a bucket with versioning the version stays, under a delete marker:
// the name is gone.
func (b *backend) Delete(ctx context.Context, key string, version token.Version) error {
	inner, t := withTrip(ctx)
	if version != "" {
		o, err := b.Head(ctx, key)
		if err != nil {
			return err
		}
		if !same(version, o.Version) {
			return problem.New(problem.Changed, "The object has another version.")
		}
		etag, _ := parts(version)
		t.ifMatch = `"` + etag + `"`
	}
	return b.fail(ctx, t, deleting, b.core.RemoveObject(inner, b.bucket, key, minio.RemoveObjectOptions{}))
}

// unlikely reports whether a key is none that a service over a file system can have.
func unlikely(key string) bool {
	return slices.ContainsFunc(strings.Split(strings.TrimSuffix(key, "/"), "/"), func(s string) bool { return s == "" || s == "." || s == ".." })
}

// listable refuses keys with characters that XML cannot hold: versitygw and others list them as another key.
func listable(key string) error {
	if strings.ContainsAny(key, "\ufffe\uffff") {
		return problem.New(problem.BadName, "The name has a character that a listing of an object store cannot hold.")
	}
	return nil
}

// options are the headers of what is created. A key of user metadata has its prefix, so that it is never another header of the protocol.
func options(h bucket.Header) minio.PutObjectOptions {
	opts := minio.PutObjectOptions{UserMetadata: map[string]string{}, ContentType: cmp.Or(h.ContentType, noType)}
	for k, v := range h.Meta {
		opts.UserMetadata[metaPrefix+k] = v
	}
	return opts
}

// metaPair implements bucket.Limits: metadata are headers.
func metaPair(key, value string) error {
	const tokens = "!#$%&'*+-.^_`|~" // RFC 9110, section 5.6.2; letters in lower case only, because case is not kept
	if key == "" {
		return errors.New("a key of metadata is empty")
	}
	for _, c := range []byte(key) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(tokens, c) < 0 {
			return fmt.Errorf("a key of metadata has the character %q", c)
		}
	}
	if !graphic(value) {
		return errors.New("a value of metadata is not of ASCII characters that can be printed")
	}
	if strings.TrimSpace(value) != value {
		return errors.New("a value of metadata begins or ends with a space")
	}
	if strings.Contains(value, "=?") {
		return errors.New("a value of metadata looks like an encoded word (RFC 2047), which services decode")
	}
	return nil
}

// graphic reports whether s is of printable ASCII characters.
func graphic(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// castagnoli is the table of CRC-32C.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// crcText is a CRC-32 as the protocol spells it.
func crcText(sum uint32) string {
	return base64.StdEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}
