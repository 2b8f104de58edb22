package gcs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/googleapi"
	storage "google.golang.org/api/storage/v1"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	defaultType = "application/octet-stream"
	objectParts = "name,generation,size,updated,contentType,md5Hash,crc32c"
	listed      = "nextPageToken,items(" + objectParts + ")"
	described   = objectParts + ",metadata"
)

// Head describes key: objects.get.
func (b *backend) Head(ctx context.Context, key string) (bucket.Object, error) {
	o, err := b.objects.Get(b.bucket, key).Fields(described).Context(ctx).Do()
	if err != nil {
		return bucket.Object{}, failed(ctx, reads, err)
	}
	return describe(o), nil
}

// Get reads n bytes from off: objects.get with alt=media and a range. It tells no metadata.
func (b *backend) Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, bucket.Object, error) {
	get := b.objects.Get(b.bucket, key).Context(ctx)
	if err := pin(version, func(g int64) { get.Generation(g) }); err != nil {
		return nil, bucket.Object{}, err
	}
	get.Header().Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	res, err := get.Download()
	var answer *googleapi.Error
	if errors.As(err, &answer) && ctx.Err() == nil {
		switch answer.Code {
		case http.StatusRequestedRangeNotSatisfiable:
			// There is nothing at off. The answer says little more, so this case costs a second request.
			o, err := b.pinned(ctx, key, version)
			return io.NopCloser(strings.NewReader("")), o, err
		case http.StatusNotFound:
			// No such generation, key or bucket: one request more, or two, tell.
			return nil, bucket.Object{}, b.why(ctx, key, version)
		}
	}
	if err != nil {
		return nil, bucket.Object{}, failed(ctx, reads, err)
	}
	o := bucket.Object{Key: key, Version: version, ContentType: res.Header.Get("Content-Type"), Native: nativeOf(res.Header.Values("X-Goog-Hash"))}
	if g := res.Header.Get("X-Goog-Generation"); g != "" {
		o.Version = token.Version(g)
	}
	o.ModTime, _ = http.ParseTime(res.Header.Get("Last-Modified")) // zero is unknown
	if res.StatusCode != http.StatusPartialContent {
		err = fmt.Errorf("a range was asked for and the answer has status %d", res.StatusCode)
	} else {
		o.Size, err = remote.Total(res.Header.Get("Content-Range"))
	}
	if err != nil {
		res.Body.Close()
		return nil, bucket.Object{}, remote.Lost(ctx, err)
	}
	return &stream{ctx: ctx, body: res.Body}, o, nil
}

// pinned is Head, and problem.Changed if key has another version.
func (b *backend) pinned(ctx context.Context, key string, version token.Version) (bucket.Object, error) {
	o, err := b.Head(ctx, key)
	if err == nil && version != "" && o.Version != version {
		return bucket.Object{}, problem.New(problem.Changed, "The object has another version")
	}
	return o, err
}

// why says why there is no content of key at version.
func (b *backend) why(ctx context.Context, key string, version token.Version) error {
	_, err := b.pinned(ctx, key, version)
	switch problem.Of(err) {
	case "": // it was put there just now
		return problem.New(problem.Changed, "The object has been written anew")
	case problem.Missing:
		list := b.objects.List(b.bucket).Prefix(key).MaxResults(1).Fields("items(name)").Context(ctx)
		if _, none := list.Do(); none != nil {
			return failed(ctx, lists, none)
		}
	}
	return err
}

// pin gives the generation that version is to set; an empty version is none.
func pin(version token.Version, set func(int64)) error {
	if version == "" {
		return nil
	}
	g, err := strconv.ParseInt(string(version), 10, 64)
	if err != nil || g <= 0 {
		return problem.New(problem.Changed, "The object has another version than %q", version)
	}
	set(g)
	return nil
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

// List lists keys: objects.list from after on, 1,000 at a time.
func (b *backend) List(ctx context.Context, prefix, after string, yield func(bucket.Object) bool) error {
	list := b.objects.List(b.bucket).Prefix(prefix).Fields(listed)
	if after != "" {
		list.StartOffset(after)
	}
	return pages(ctx, list, func(o *storage.Object) bool {
		return o.Name <= after && after != "" || yield(describe(o))
	})
}

// pages calls yield for every item of a listing.
func pages(ctx context.Context, list *storage.ObjectsListCall, yield func(*storage.Object) bool) error {
	for {
		page, err := list.Context(ctx).Do()
		if err != nil {
			return failed(ctx, lists, err)
		}
		for _, o := range page.Items {
			if o != nil && !yield(o) {
				return nil
			}
		}
		if page.NextPageToken == "" {
			return nil
		}
		list.PageToken(page.NextPageToken)
	}
}

// Put creates key: objects.insert with ifGenerationMatch=0, and with the CRC-32C of the content, which the service compares.
func (b *backend) Put(ctx context.Context, key string, content []byte, h bucket.Header) (bucket.Object, error) {
	o := &storage.Object{Name: key, ContentType: typeOf(h), Metadata: h.Meta, Crc32c: encodeCRC(crc32.Checksum(content, castagnoli()))}
	body := remote.NewBody(bytes.NewReader(content), int64(len(content)), nil)
	made, err := b.insert(o, body).IfGenerationMatch(0).Context(ctx).Do()
	if _, _ = body.End(); err != nil {
		return bucket.Object{}, failed(ctx, puts, err)
	}
	return describe(made), nil
}

// insert prepares one request with an object and its content.
func (b *backend) insert(o *storage.Object, body *remote.Body) *storage.ObjectsInsertCall {
	return b.objects.Insert(b.bucket, o).Fields(described).Media(body, googleapi.ChunkSize(0), googleapi.ContentType(o.ContentType))
}

// Delete removes key: objects.delete with ifGenerationMatch. A bucket with versions keeps the generation.
func (b *backend) Delete(ctx context.Context, key string, version token.Version) error {
	del := b.objects.Delete(b.bucket, key).Context(ctx)
	if err := pin(version, func(g int64) { del.IfGenerationMatch(g) }); err != nil {
		return err
	}
	err := failed(ctx, removes, del.Do())
	if version != "" && problem.Of(err) == problem.Changed {
		// The condition fails as well where there is nothing.
		if _, err := b.pinned(ctx, key, version); problem.Of(err) == problem.Missing {
			return err
		}
	}
	return err
}

func typeOf(h bucket.Header) string {
	if h.ContentType == "" {
		return defaultType
	}
	return h.ContentType
}

// describe says what the service says of an object.
func describe(o *storage.Object) bucket.Object {
	d := bucket.Object{
		Key: o.Name, Size: int64(o.Size), Version: token.Version(strconv.FormatInt(o.Generation, 10)),
		ContentType: o.ContentType, Meta: o.Metadata, Native: native(o.Md5Hash, o.Crc32c),
	}
	d.ModTime, _ = time.Parse(time.RFC3339, o.Updated) // zero is unknown
	if d.Meta == nil {
		d.Meta = map[string]string{}
	}
	return d
}

// native spells the service's digest: MD5, which composed objects do not have, else CRC-32C.
func native(md5, crc string) string {
	kind, text := "md5:", md5
	if md5 == "" {
		kind, text = "crc32c:", crc
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return ""
	}
	return kind + hex.EncodeToString(raw)
}

// nativeOf is native of the header X-Goog-Hash.
func nativeOf(lines []string) string {
	digests := map[string]string{}
	for pair := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		kind, text, _ := strings.Cut(strings.TrimSpace(pair), "=")
		digests[kind] = text
	}
	return native(digests["md5"], digests["crc32c"])
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// encodeCRC spells a CRC-32C as the API does: base64 of its four bytes, the highest first.
func encodeCRC(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}
