package gcs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	storage "google.golang.org/api/storage/v1"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

// metaKey is the key of a part object's metadata that names what it is a part of.
const metaKey = "consign-key"

// hashOf is the segment of a stage's folder that tells keys apart.
func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:8])
}

func partName(folder string, part int64) string { return fmt.Sprintf("%sp-%08d", folder, part) }

// Begin names the upload, whose ID is its folder. It makes no request.
func (b *backend) Begin(_ context.Context, key string, h bucket.Header) (bucket.Upload, error) {
	batch, item, ok := strings.Cut(string(h.Origin), "/")
	if _, err := strconv.ParseUint(item, 10, 31); !ok || err != nil || !plain(batch) {
		return bucket.Upload{}, fmt.Errorf("%q is no stage", h.Origin)
	}
	return bucket.Upload{Key: key, ID: b.hidden + string(h.Origin) + "/" + hashOf(key) + "/", Origin: h.Origin}, nil
}

// PutPart writes a part object: objects.insert. A part that is written again replaces the first.
func (b *backend) PutPart(ctx context.Context, up bucket.Upload, part int64, r io.Reader, size int64) (bucket.Part, error) {
	if part < 0 || part >= maxParts {
		return bucket.Part{}, fmt.Errorf("part %d is beyond the %d that are composed", part, maxParts)
	}
	sum := crc32.New(castagnoli())
	body := remote.NewBody(r, size, sum)
	o := &storage.Object{Name: partName(up.ID, part), ContentType: defaultType, Metadata: map[string]string{metaKey: up.Key}}
	made, err := b.insert(o, body).Context(ctx).Do()
	whole, broken := body.End()
	switch {
	case broken != nil && ctx.Err() == nil:
		return bucket.Part{}, fmt.Errorf("reading part %d: %w", part, broken)
	case err != nil:
		return bucket.Part{}, failed(ctx, stages, err)
	case !whole || int64(made.Size) != size:
		return bucket.Part{}, &bucket.Away{Err: errors.New("the service confirmed a part that it was not sent whole")}
	case made.Crc32c != encodeCRC(sum.Sum32()):
		return bucket.Part{}, &bucket.Away{Err: errors.New("a part arrived with another CRC-32C than it was sent with")}
	}
	return bucket.Part{Index: part, Size: size, Mark: strconv.FormatInt(made.Generation, 10)}, nil
}

// Parts lists the part objects of a stage.
func (b *backend) Parts(ctx context.Context, up bucket.Upload) ([]bucket.Part, error) {
	var parts []bucket.Part
	prefix := up.ID + "p-"
	err := pages(ctx, b.objects.List(b.bucket).Prefix(prefix).Fields(listed), func(o *storage.Object) bool {
		n, err := strconv.ParseUint(o.Name[len(prefix):], 10, 31)
		if err == nil && partName(up.ID, int64(n)) == o.Name {
			parts = append(parts, bucket.Part{Index: int64(n), Size: int64(o.Size), Mark: strconv.FormatInt(o.Generation, 10)})
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return parts, nil
}

// A source is an object that is composed into another.
type source struct {
	name       string
	generation int64
}

// Complete makes the object: objects.compose with ifGenerationMatch=0, after as many composes of 32 as it takes.
func (b *backend) Complete(ctx context.Context, up bucket.Upload, parts []bucket.Part, h bucket.Header) (bucket.Object, error) {
	if len(parts) == 0 {
		return b.Put(ctx, up.Key, nil, h)
	}
	sources := make([]source, len(parts))
	for i, p := range parts {
		g, err := strconv.ParseInt(p.Mark, 10, 64)
		if err != nil {
			return bucket.Object{}, fmt.Errorf("part %d has the mark %q: %w", p.Index, p.Mark, bucket.ErrNoUpload)
		}
		sources[i] = source{partName(up.ID, p.Index), g}
	}
	for round := 0; len(sources) > maxSources; round++ {
		var err error
		if sources, err = b.fold(ctx, up, round, sources); err != nil {
			return bucket.Object{}, err
		}
	}
	to := &storage.Object{ContentType: typeOf(h), Metadata: h.Meta}
	made, err := b.compose(up.Key, to, sources).IfGenerationMatch(0).Context(ctx).Do()
	if err != nil {
		return bucket.Object{}, failed(ctx, completes, err)
	}
	return describe(made), nil
}

// fold composes 32 sources into one, and those after them into the next. One that is left over stays.
func (b *backend) fold(ctx context.Context, up bucket.Upload, round int, sources []source) ([]source, error) {
	folded := make([]source, (len(sources)+maxSources-1)/maxSources)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range folded {
		some := sources[i*maxSources : min((i+1)*maxSources, len(sources))]
		if len(some) == 1 {
			folded[i] = some[0]
			continue
		}
		group.Go(func() error {
			name := fmt.Sprintf("%sc-%d-%08d", up.ID, round, i)
			to := &storage.Object{ContentType: defaultType, Metadata: map[string]string{metaKey: up.Key}}
			made, err := b.compose(name, to, some).Context(ctx).Do()
			if err != nil {
				return failed(ctx, composes, err)
			}
			folded[i] = source{name, made.Generation}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return folded, nil
}

func (b *backend) compose(name string, to *storage.Object, sources []source) *storage.ObjectsComposeCall {
	request := &storage.ComposeRequest{Destination: to}
	for _, s := range sources {
		request.SourceObjects = append(request.SourceObjects, &storage.ComposeRequestSourceObjects{Name: s.name, Generation: s.generation})
	}
	return b.objects.Compose(b.bucket, name, request).Fields(described)
}

// Abort removes everything in the stage's folder, each generation by itself.
func (b *backend) Abort(ctx context.Context, up bucket.Upload) error {
	if own, ok := b.uploadOf(up.ID+"p", up.Key); !ok || own.ID != up.ID {
		return fmt.Errorf("%q is no folder of a stage of %q", up.ID, up.Key)
	}
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	list := b.objects.List(b.bucket).Prefix(up.ID).Versions(true).Fields("nextPageToken", "items(name,generation)")
	err := pages(within, list, func(o *storage.Object) bool {
		group.Go(func() error {
			err := failed(within, removes, b.objects.Delete(b.bucket, o.Name).Generation(o.Generation).Context(within).Do())
			if problem.Of(err) == problem.Missing {
				return nil
			}
			return err
		})
		return within.Err() == nil
	})
	if broken := group.Wait(); broken != nil {
		return broken
	}
	return err
}

// Uploads finds the folders of stages. One is ours if its parts name the key that the folder's hash is of.
func (b *backend) Uploads(ctx context.Context, prefix string, yield func(bucket.Upload) bool) error {
	last := ""
	list := b.objects.List(b.bucket).Prefix(b.hidden).Fields("nextPageToken", "items(name,timeCreated,metadata)")
	return pages(ctx, list, func(o *storage.Object) bool {
		key := o.Metadata[metaKey]
		up, ok := b.uploadOf(o.Name, key)
		if !ok || up.ID == last || !strings.HasPrefix(key, prefix) {
			return true
		}
		last = up.ID
		up.Since, _ = time.Parse(time.RFC3339, o.TimeCreated) // zero is unknown
		return yield(up)
	})
}

// uploadOf takes apart the name of a part object, or of a piece.
func (b *backend) uploadOf(name, key string) (bucket.Upload, bool) {
	below, ok := strings.CutPrefix(name, b.hidden)
	segments := strings.Split(below, "/")
	if !ok || len(segments) != 4 || key == "" || segments[2] != hashOf(key) || !plain(segments[0]) {
		return bucket.Upload{}, false
	}
	n, err := strconv.ParseUint(segments[1], 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != segments[1] {
		return bucket.Upload{}, false
	}
	return bucket.Upload{
		Key: key, ID: strings.TrimSuffix(name, segments[3]),
		Origin: store.OriginOf(store.BatchID(segments[0]), int(n)),
	}, true
}

// plain reports whether s is of letters, digits and '-'.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}
