package azure

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Head describes key: Get Blob Properties.
func (b *backend) Head(ctx context.Context, key string) (bucket.Object, error) {
	return b.head(ctx, key, "")
}

func (b *backend) head(ctx context.Context, key string, version token.Version) (bucket.Object, error) {
	res, err := b.container.NewBlobClient(key).GetProperties(ctx, &blob.GetPropertiesOptions{AccessConditions: ifMatch(version)})
	if err != nil {
		return bucket.Object{}, failed(ctx, reads, err)
	}
	return bucket.Object{
		Key: key, Size: value(res.ContentLength), Version: versionOf(res.ETag), ModTime: value(res.LastModified),
		ContentType: value(res.ContentType), Meta: metaOf(res.Metadata), Native: native(res.ContentMD5),
	}, nil
}

// Get reads n bytes from off: Get Blob with a range.
func (b *backend) Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, bucket.Object, error) {
	res, err := b.container.NewBlobClient(key).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: off, Count: n}, AccessConditions: ifMatch(version),
	})
	var answer *azcore.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		// There is nothing at off. The answer says no more, so this case, and no other, costs a second request.
		o, err := b.head(ctx, key, version)
		return io.NopCloser(strings.NewReader("")), o, err
	}
	if err != nil {
		return nil, bucket.Object{}, b.gone(ctx, key, failed(ctx, reads, err))
	}
	o := bucket.Object{
		Key: key, Version: versionOf(res.ETag), ModTime: value(res.LastModified),
		ContentType: value(res.ContentType), Meta: metaOf(res.Metadata), Native: native(res.BlobContentMD5),
	}
	if o.Size, err = remote.Total(value(res.ContentRange)); err != nil {
		res.Body.Close()
		return nil, bucket.Object{}, remote.Lost(ctx, err)
	}
	return &stream{ctx: ctx, body: res.Body}, o, nil
}

// A stream is the body of an answer. Where it breaks off the error is typed.
type stream struct {
	ctx  context.Context // of the request, as its body is
	body io.ReadCloser
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = remote.Lost(s.ctx, err)
	}
	return n, err
}

func (s *stream) Close() error { return s.body.Close() }

// List lists keys: List Blobs. The service is asked to begin at after, which it takes since 2026; where it does not heed that, the
// names before it are passed over, at a request for 5,000 of them.
func (b *backend) List(ctx context.Context, prefix, after string, yield func(bucket.Object) bool) error {
	opts := &container.ListBlobsFlatOptions{Prefix: &prefix}
	if after != "" {
		opts.StartFrom = &after
	}
	return b.pages(ctx, opts, func(item *container.BlobItem) bool {
		key := value(item.Name)
		if after != "" && !behind(key, after) {
			return true
		}
		p := item.Properties
		return yield(bucket.Object{
			Key: key, Size: value(p.ContentLength), Version: versionOf(p.ETag), ModTime: value(p.LastModified),
			ContentType: value(p.ContentType), Native: native(p.ContentMD5),
		})
	})
}

// pages calls yield for every item of a listing.
func (b *backend) pages(ctx context.Context, opts *container.ListBlobsFlatOptions, yield func(*container.BlobItem) bool) error {
	for pager := b.container.NewListBlobsFlatPager(opts); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return failed(ctx, lists, err)
		}
		if page.Segment == nil {
			return nil
		}
		for _, item := range page.Segment.BlobItems {
			if item == nil || item.Properties == nil {
				continue
			}
			if !yield(item) {
				return nil
			}
		}
	}
	return nil
}

// behind reports whether key is not after and not before it in the order that the service has. That is the order of bytes or that of
// UTF-16, so what is behind in either is taken. An after that ends with the last character of all is no key: it stands behind
// everything that begins as it does.
func behind(key, after string) bool {
	if start, ok := strings.CutSuffix(after, "\U0010FFFF"); key == after || ok && strings.HasPrefix(key, start) {
		return false
	}
	return key > after || slices.Compare(utf16.Encode([]rune(key)), utf16.Encode([]rune(after))) > 0
}

// Put creates key: Put Blob with If-None-Match, and with the CRC-64 of the content, which the service compares.
func (b *backend) Put(ctx context.Context, key string, content []byte, h bucket.Header) (bucket.Object, error) {
	if err := checkKey(key); err != nil {
		return bucket.Object{}, err
	}
	res, err := b.container.NewBlockBlobClient(key).Upload(ctx, streaming.NopCloser(bytes.NewReader(content)), &blockblob.UploadOptions{
		Metadata: meta(h), HTTPHeaders: headers(h), AccessConditions: ifNone(),
		TransactionalValidation: blob.TransferValidationTypeComputeCRC64(),
	})
	if err != nil {
		return bucket.Object{}, failed(ctx, puts, err)
	}
	o := created(key, int64(len(content)), h, res.ETag, res.LastModified)
	o.Native = native(res.ContentMD5)
	return o, nil
}

// Delete removes key: Delete Blob with If-Match.
func (b *backend) Delete(ctx context.Context, key string, version token.Version) error {
	_, err := b.container.NewBlobClient(key).Delete(ctx, &blob.DeleteOptions{AccessConditions: ifMatch(version)})
	return b.gone(ctx, key, failed(ctx, removes, err))
}

// gone is err, or problem.Missing if that is why a condition did not hold, which costs a second request.
func (b *backend) gone(ctx context.Context, key string, err error) error {
	if problem.Of(err) != problem.Changed {
		return err
	}
	if _, none := b.head(ctx, key, ""); problem.Of(none) == problem.Missing {
		return none
	}
	return err
}

// checkKey refuses what XML cannot hold, in which names are listed (XML 1.0, section 2.2): not every service gets around that. Control
// characters are in no token.ObjectName.
func checkKey(key string) error {
	if strings.ContainsAny(key, "\ufffe\uffff") {
		return problem.New(problem.BadName, "The store cannot list names with the characters U+FFFE and U+FFFF")
	}
	return nil
}

// created is what there is to say of what this call has created.
func created(key string, size int64, h bucket.Header, tag *azcore.ETag, at *time.Time) bucket.Object {
	o := bucket.Object{Key: key, Size: size, Version: versionOf(tag), ModTime: value(at), ContentType: h.ContentType, Meta: h.Meta}
	if o.ContentType == "" {
		o.ContentType = "application/octet-stream" // the service's default
	}
	return o
}

// ifMatch is the condition that a blob has a version; any where that is empty.
func ifMatch(version token.Version) *blob.AccessConditions {
	if version == "" {
		return nil
	}
	tag := azcore.ETag(`"` + string(version) + `"`)
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &tag}}
}

// ifNone is the condition that there is no blob.
func ifNone() *blob.AccessConditions {
	tag := azcore.ETagAny
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &tag}}
}

func headers(h bucket.Header) *blob.HTTPHeaders {
	if h.ContentType == "" {
		return nil
	}
	return &blob.HTTPHeaders{BlobContentType: &h.ContentType}
}

func meta(h bucket.Header) map[string]*string {
	m := make(map[string]*string, len(h.Meta))
	for k, v := range h.Meta {
		m[k] = &v
	}
	return m
}

// metaOf undoes what HTTP does to the case of keys.
func metaOf(m map[string]*string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = value(v)
	}
	return out
}

// versionOf is an ETag without quotes: a header has them and a listing has not.
func versionOf(tag *azcore.ETag) token.Version {
	return token.Version(strings.Trim(string(value(tag)), `"`))
}

// native is the digest that the service has of a blob that was not made of blocks.
func native(md5 []byte) string {
	if len(md5) == 0 {
		return ""
	}
	return "md5:" + hex.EncodeToString(md5)
}

// value is what p points to, or zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
