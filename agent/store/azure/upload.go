package azure

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
)

// crcPolynomial is of the CRC-64 that the service calculates (CRC-64/NVME).
const crcPolynomial = 0x9A6C9329AC4BC9B5

// Begin names the upload. It makes no request.
func (b *backend) Begin(_ context.Context, key string, h bucket.Header) (bucket.Upload, error) {
	if err := checkKey(key); err != nil {
		return bucket.Upload{}, err
	}
	return bucket.Upload{Key: key, ID: uploadID(h.Origin), Origin: h.Origin}, nil
}

// PutPart stages a block: Put Block. A block that is staged again replaces the first.
func (b *backend) PutPart(ctx context.Context, up bucket.Upload, part int64, r io.Reader, size int64) (bucket.Part, error) {
	if part < 0 || part >= maxBlocks {
		return bucket.Part{}, fmt.Errorf("part %d is beyond the %d that a blob has", part, maxBlocks)
	}
	sum := crc64.New(crc64.MakeTable(crcPolynomial))
	body := remote.NewBody(r, size, sum)
	id := blockID(up.ID, part)
	res, err := b.container.NewBlockBlobClient(up.Key).StageBlock(ctx, id, body, nil)
	whole, broken := body.End()
	switch {
	case broken != nil && ctx.Err() == nil:
		return bucket.Part{}, fmt.Errorf("reading part %d: %w", part, broken)
	case err != nil:
		return bucket.Part{}, failed(ctx, stages, err)
	case !whole:
		return bucket.Part{}, &bucket.Away{Err: errors.New("the service confirmed a block that it was not sent whole")}
	case len(res.ContentCRC64) == 8 && binary.LittleEndian.Uint64(res.ContentCRC64) != sum.Sum64():
		return bucket.Part{}, &bucket.Away{Err: errors.New("a block arrived with another CRC-64 than it was sent with")}
	}
	return bucket.Part{Index: part, Size: size, Mark: id}, nil
}

// Parts lists our blocks: Get Block List. A service that knows no such name has none.
func (b *backend) Parts(ctx context.Context, up bucket.Upload) ([]bucket.Part, error) {
	blocks, err := b.blocks(ctx, up.Key)
	if err != nil {
		return nil, err
	}
	var parts []bucket.Part
	for _, bl := range blocks {
		if upload, part, ok := parseBlock(value(bl.Name)); ok && upload == up.ID {
			parts = append(parts, bucket.Part{Index: part, Size: value(bl.Size), Mark: value(bl.Name)})
		}
	}
	slices.SortFunc(parts, func(a, b bucket.Part) int { return cmp.Compare(a.Index, b.Index) })
	return parts, nil
}

// blocks lists the uncommitted blocks of a name, whoever staged them.
func (b *backend) blocks(ctx context.Context, key string) ([]*blockblob.Block, error) {
	res, err := b.container.NewBlockBlobClient(key).GetBlockList(ctx, blockblob.BlockListTypeUncommitted, nil)
	var answer *azcore.ResponseError
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.ErrorCode != "ContainerNotFound":
		return nil, nil
	case errors.As(err, &answer) && answer.ErrorCode == "InvalidBlobType":
		return nil, nil // a blob that has no blocks
	case err != nil:
		return nil, failed(ctx, lists, err)
	}
	return res.UncommittedBlocks, nil
}

// Complete makes the blob: Put Block List with If-None-Match.
func (b *backend) Complete(ctx context.Context, up bucket.Upload, parts []bucket.Part, h bucket.Header) (bucket.Object, error) {
	ids := make([]string, len(parts))
	var size int64
	for i, p := range parts {
		ids[i] = blockID(up.ID, p.Index)
		size += p.Size
	}
	res, err := b.container.NewBlockBlobClient(up.Key).CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{
		Metadata: meta(h), HTTPHeaders: headers(h), AccessConditions: ifNone(),
	})
	if err != nil {
		return bucket.Object{}, failed(ctx, completes, err)
	}
	return created(up.Key, size, h, res.ETag, res.LastModified), nil
}

// Abort does nothing: only time removes blocks, or a blob of the name, which is not ours to write. See Limits.Expire.
func (b *backend) Abort(context.Context, bucket.Upload) error { return nil }

// Uploads finds our blocks under names that have no blob: List Blobs with uncommitted ones, and Get Block List of each. An uncommitted
// one is known by having no bytes and no MD5; the service gives one to everything that Put Blob made.
func (b *backend) Uploads(ctx context.Context, prefix string, yield func(bucket.Upload) bool) error {
	opts := &container.ListBlobsFlatOptions{Prefix: &prefix, Include: container.ListBlobsInclude{UncommittedBlobs: true}}
	var broken error
	err := b.pages(ctx, opts, func(item *container.BlobItem) bool {
		if value(item.Properties.ContentLength) != 0 || len(item.Properties.ContentMD5) != 0 {
			return true
		}
		key := value(item.Name)
		blocks, err := b.blocks(ctx, key)
		if broken = err; err != nil {
			return false
		}
		seen := map[string]bool{}
		for _, bl := range blocks {
			id, _, ok := parseBlock(value(bl.Name))
			if !ok || seen[id] {
				continue
			}
			seen[id] = true
			if !yield(bucket.Upload{Key: key, ID: id, Origin: originOf(id), Since: value(item.Properties.LastModified)}) {
				return false
			}
		}
		return true
	})
	return errors.Join(err, broken)
}
