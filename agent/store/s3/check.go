package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/consign-transfer/consign/agent/store/bucket"
)

const (
	checkSize = 4 << 10 // bytes of a part that is sent to be refused
	spoilAt   = 200     // the byte of a request's body that is changed: content, behind any framing
)

// CheckParts measures which digest the service compares of each part: that of Limits, or none if it takes a part that was changed on its
// way. It begins an upload to key, which it aborts, and makes four requests. A service that refuses also the part that was not changed is
// its error: Config.Checksums may help.
func (b *backend) CheckParts(ctx context.Context, key string) (string, error) {
	up, err := b.Begin(ctx, key, bucket.Header{})
	if err != nil {
		return "", fmt.Errorf("checking parts: %w", err)
	}
	digest, err := b.spoilPart(ctx, up)
	return digest, errors.Join(err, b.Abort(context.WithoutCancel(ctx), up))
}

func (b *backend) spoilPart(ctx context.Context, up bucket.Upload) (string, error) {
	if _, err := b.PutPart(ctx, up, 0, bytes.NewReader(make([]byte, checkSize)), checkSize); err != nil {
		return "", fmt.Errorf("checking parts: %w", err)
	}
	inner, t := withTrip(ctx)
	t.spoil = true
	_, err := b.putPart(inner, t, up, 1, bytes.NewReader(make([]byte, checkSize)), checkSize)
	switch {
	case err == nil:
		return "", nil
	case t.status >= 400 && t.status < 500:
		return b.Limits().PartDigests, nil
	}
	return "", fmt.Errorf("checking parts: %w", err)
}

// spoiled is a body with one bit changed.
type spoiled struct {
	io.ReadCloser
	at int
}

// Read implements io.Reader.
func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if i := spoilAt - s.at; i >= 0 && i < n {
		p[i] ^= 1
	}
	s.at += n
	return n, err
}
