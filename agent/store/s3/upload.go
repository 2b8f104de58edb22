package s3

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
)

// Begin implements bucket.Backend.
func (b *backend) Begin(ctx context.Context, key string, h bucket.Header) (bucket.Upload, error) {
	if err := listable(key); err != nil {
		return bucket.Upload{}, err
	}
	inner, t := withTrip(ctx)
	opts := options(h)
	if b.trailers {
		opts.UserMetadata["X-Amz-Checksum-Algorithm"] = "CRC32C"
		opts.UserMetadata["X-Amz-Checksum-Type"] = "FULL_OBJECT" // of the parts together, not of their checksums
	}
	id, err := b.core.NewMultipartUpload(inner, b.bucket, key, opts)
	if err != nil {
		return bucket.Upload{}, b.fail(ctx, t, beginning, err)
	}
	if id == "" {
		return bucket.Upload{}, b.away(t, errors.New("there is no upload id in the answer"), "did not answer whole")
	}
	return bucket.Upload{Key: key, ID: id, Origin: h.Origin}, nil
}

// PutPart implements bucket.Backend.
func (b *backend) PutPart(ctx context.Context, up bucket.Upload, part int64, r io.Reader, size int64) (bucket.Part, error) {
	inner, t := withTrip(ctx)
	return b.putPart(inner, t, up, part, r, size)
}

// putPart is PutPart with the trip that ctx holds.
func (b *backend) putPart(ctx context.Context, t *trip, up bucket.Upload, part int64, r io.Reader, size int64) (bucket.Part, error) {
	body := &partBody{}
	var opts minio.PutObjectPartOptions
	if b.trailers && size > 0 {
		body.sum = crc32.New(castagnoli())
		body.trailer = http.Header{crcHeader: {crcText(0)}} // its length is what counts until the end
		opts.Trailer = body.trailer
	}
	body.Body = remote.NewBody(r, size, body.sum)
	put, err := b.core.PutObjectPart(ctx, b.bucket, up.Key, up.ID, int(part)+1, struct{ io.Reader }{body}, size, opts)
	whole, cause := body.End()
	switch {
	case cause != nil:
		return bucket.Part{}, fmt.Errorf("reading a part: %w", cause)
	case err != nil:
		return bucket.Part{}, b.fail(ctx, t, staging, err)
	case !whole:
		return bucket.Part{}, b.away(t, errors.New("it answered before it had the part"), "did not answer whole")
	case put.ETag == "":
		return bucket.Part{}, b.away(t, errNoETag, "did not answer whole")
	}
	return bucket.Part{Index: part, Size: size, Mark: mark(put.ETag, put.ChecksumCRC32C)}, nil
}

// partBody is the body of a part that sets its trailer when it ends.
type partBody struct {
	*remote.Body
	sum     hash.Hash // nil where there is no trailer
	trailer http.Header
}

// Read implements io.Reader.
func (p *partBody) Read(b []byte) (int, error) {
	n, err := p.Body.Read(b)
	if p.sum != nil && errors.Is(err, io.EOF) {
		p.trailer.Set(crcHeader, crcText(p.sum.(hash.Hash32).Sum32()))
	}
	return n, err
}

// mark is what Complete needs of a part: the ETag, and the checksum that the service has.
func mark(etag, crc string) string { return strings.TrimSuffix(etagOf(etag)+" "+crc, " ") }

// Parts implements bucket.Backend.
func (b *backend) Parts(ctx context.Context, up bucket.Upload) ([]bucket.Part, error) {
	var all []bucket.Part
	for after := 0; ; {
		inner, t := withTrip(ctx)
		page, err := b.core.ListObjectParts(inner, b.bucket, up.Key, up.ID, after, perPage)
		if err != nil {
			return nil, b.fail(ctx, t, listing, err)
		}
		for _, p := range page.ObjectParts {
			if p.PartNumber <= after || p.PartNumber > maxParts {
				return nil, b.away(t, fmt.Errorf("part %d is listed after %d", p.PartNumber, after), "lists parts out of order")
			}
			after = p.PartNumber
			all = append(all, bucket.Part{Index: int64(p.PartNumber) - 1, Size: p.Size, Mark: mark(p.ETag, p.ChecksumCRC32C)})
		}
		if !page.IsTruncated {
			return all, nil
		}
		if len(page.ObjectParts) == 0 {
			return nil, b.away(t, errors.New("a page of parts is empty and not the last"), "lists parts out of order")
		}
	}
}

// Complete implements bucket.Backend. The size of what it returns is that of the parts together.
func (b *backend) Complete(ctx context.Context, up bucket.Upload, all []bucket.Part, _ bucket.Header) (bucket.Object, error) {
	inner, t := withTrip(ctx)
	var opts minio.PutObjectOptions
	opts.SetMatchETagExcept("*")
	var size int64
	done := make([]minio.CompletePart, len(all))
	for i, p := range all {
		etag, crc, _ := strings.Cut(p.Mark, " ")
		done[i] = minio.CompletePart{PartNumber: int(p.Index) + 1, ETag: etag, ChecksumCRC32C: crc}
		size += p.Size
	}
	info, err := b.core.CompleteMultipartUpload(inner, b.bucket, up.Key, up.ID, done, opts)
	if err != nil {
		return bucket.Object{}, b.fail(ctx, t, finishing, err)
	}
	return bucket.Object{Key: up.Key, Size: size, Version: versionOf(info.ETag, info.VersionID), Native: native(info.ETag)}, nil
}

// Abort implements bucket.Backend. That the upload is not there any more is fine.
func (b *backend) Abort(ctx context.Context, up bucket.Upload) error {
	inner, t := withTrip(ctx)
	err := b.fail(ctx, t, aborting, b.core.AbortMultipartUpload(inner, b.bucket, up.Key, up.ID))
	if errors.Is(err, bucket.ErrNoUpload) {
		return nil
	}
	return err
}

// Uploads implements bucket.Backend.
func (b *backend) Uploads(ctx context.Context, prefix string, yield func(bucket.Upload) bool) error {
	var key, id string // after which the next page begins
	for {
		inner, t := withTrip(ctx)
		page, err := b.core.ListMultipartUploads(inner, b.bucket, prefix, key, id, "", perPage)
		if err != nil {
			err = b.fail(ctx, t, reading, err)
			if errors.Is(err, bucket.ErrNoUpload) { // what gofakes3 and rclone say where there is none
				return nil
			}
			return err
		}
		for _, u := range page.Uploads {
			if !strings.HasPrefix(u.Key, prefix) {
				continue
			}
			if !yield(bucket.Upload{Key: u.Key, ID: u.UploadID, Since: u.Initiated.UTC()}) {
				return nil
			}
		}
		if !page.IsTruncated {
			return nil
		}
		if page.NextKeyMarker < key || page.NextKeyMarker == key && page.NextUploadIDMarker == id {
			return b.away(t, errors.New("a page of uploads leads to itself"), "lists uploads out of order")
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
