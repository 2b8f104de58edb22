package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// pieceSize is how much of a large object is sent and read at once, in bytes.
const pieceSize = 32 << 20

// A bucket is one bucket of a running server, spoken to without the drivers under test.
type bucket struct {
	*realstores.S3
	name string
}

func newBucket(ctx context.Context, s *realstores.S3, name string) (bucket, error) {
	return bucket{s, name}, s.MakeBucket(ctx, name)
}

// path is the target of a request for key, with a query or without.
func (b bucket) path(key string, query ...string) string {
	p := "/" + b.name
	if key != "" {
		p += "/" + key
	}
	if len(query) == 0 {
		return p
	}
	v := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	return p + "?" + v.Encode()
}

// get returns the bytes of key. It is for small objects.
func (b bucket) get(ctx context.Context, key string) ([]byte, error) {
	a, err := b.Do(ctx, http.MethodGet, b.path(key), nil)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return a.Body, nil
}

func (b bucket) remove(ctx context.Context, key string) error {
	if _, err := b.Do(ctx, http.MethodDelete, b.path(key), nil); err != nil {
		return fmt.Errorf("removing %s: %w", key, err)
	}
	return nil
}

// stream is n bytes that neither compress nor repeat, the same for the same seed.
func stream(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// fill makes an object of n bytes of a stream, piece by piece.
func (b bucket) fill(ctx context.Context, key string, seed uint64, n int64) error {
	began, err := b.Do(ctx, http.MethodPost, b.path(key, "uploads", ""), nil)
	if err != nil {
		return fmt.Errorf("beginning %s: %w", key, err)
	}
	var up struct {
		ID string `xml:"UploadId"`
	}
	if err := xml.Unmarshal(began.Body, &up); err != nil || up.ID == "" {
		return fmt.Errorf("beginning %s: no upload id in %q: %w", key, began.Body, err)
	}
	type part struct {
		PartNumber int
		ETag       string
	}
	var whole struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}
	from, buf := stream(seed, n), make([]byte, pieceSize)
	for left := n; left > 0; {
		piece := buf[:min(left, pieceSize)]
		if _, err := io.ReadFull(from, piece); err != nil {
			return fmt.Errorf("making bytes: %w", err)
		}
		number := len(whole.Part) + 1
		a, err := b.Do(ctx, http.MethodPut, b.path(key, "partNumber", fmt.Sprint(number), "uploadId", up.ID), piece)
		if err != nil {
			return fmt.Errorf("sending part %d of %s: %w", number, key, err)
		}
		whole.Part = append(whole.Part, part{number, a.Header.Get("ETag")})
		left -= int64(len(piece))
	}
	body, err := xml.Marshal(whole)
	if err != nil {
		return fmt.Errorf("encoding the parts: %w", err)
	}
	if _, err := b.Do(ctx, http.MethodPost, b.path(key, "uploadId", up.ID), body); err != nil {
		return fmt.Errorf("completing %s: %w", key, err)
	}
	return nil
}

// same reads an object piece by piece and compares it with a stream.
func (b bucket) same(ctx context.Context, key string, seed uint64, n int64) error {
	want, buf := stream(seed, n), make([]byte, pieceSize)
	for off := int64(0); off < n; {
		piece := buf[:min(n-off, pieceSize)]
		if _, err := io.ReadFull(want, piece); err != nil {
			return fmt.Errorf("making bytes: %w", err)
		}
		last := off + int64(len(piece)) - 1
		a, err := b.Do(ctx, http.MethodGet, b.path(key), nil, "Range", fmt.Sprintf("bytes=%d-%d", off, last))
		if err != nil {
			return fmt.Errorf("reading %s: %w", key, err)
		}
		if total := fmt.Sprintf("bytes %d-%d/%d", off, last, n); a.Header.Get("Content-Range") != total {
			return fmt.Errorf("%s is not of %d bytes: %s", key, n, a.Header.Get("Content-Range"))
		}
		if !bytes.Equal(a.Body, piece) {
			return fmt.Errorf("%s differs within bytes %d to %d", key, off, last)
		}
		off += int64(len(piece))
	}
	return nil
}

// uploads returns the keys of the uploads that are listed as unfinished; ok is false if the server does not list them.
func (b bucket) uploads(ctx context.Context) (keys []string, ok bool, err error) {
	a, err := b.Do(ctx, http.MethodGet, b.path("", "uploads", ""), nil)
	var no *realstores.Refusal
	if errors.As(err, &no) && (no.Status == http.StatusNotImplemented || strings.Contains(string(no.Body), "NotImplemented")) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("listing uploads: %w", err)
	}
	var list struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []struct{ Key string }
	}
	if xml.Unmarshal(a.Body, &list) != nil {
		return nil, false, nil //nolint:nilerr // another answer than the one that was asked for: it does not list them
	}
	for _, u := range list.Upload {
		keys = append(keys, u.Key)
	}
	return keys, true, nil
}

// count returns how many objects there are below a prefix, and their bytes.
func (b bucket) count(ctx context.Context, prefix string) (objects, size int64, err error) {
	after := ""
	for {
		q := []string{"list-type", "2", "prefix", prefix}
		if after != "" {
			q = append(q, "start-after", after)
		}
		a, err := b.Do(ctx, http.MethodGet, b.path("", q...), nil)
		if err != nil {
			return 0, 0, fmt.Errorf("listing: %w", err)
		}
		var page struct {
			IsTruncated bool
			Contents    []struct {
				Key  string
				Size int64
			}
		}
		if err := xml.Unmarshal(a.Body, &page); err != nil {
			return 0, 0, fmt.Errorf("reading a listing: %w", err)
		}
		for _, o := range page.Contents {
			objects, size, after = objects+1, size+o.Size, o.Key
		}
		if !page.IsTruncated || len(page.Contents) == 0 {
			return objects, size, nil
		}
	}
}
