// Package stores gives the agents of a local network real object stores: it makes a bucket in a server that
// realstores has started, keeps the server's secret in a file, and returns what an export says of both.
//
// It is for tests and campaigns. It knows the stores' settings only as an operator writes them.
package stores

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// S3 makes a bucket and returns the store that is prefix in it, or all of it. Its secret is kept in a file below dir.
func S3(ctx context.Context, s *realstores.S3, dir, bucket, prefix string) (localnet.Store, error) {
	if err := s.MakeBucket(ctx, bucket); err != nil {
		return localnet.Store{}, fmt.Errorf("making a bucket: %w", err)
	}
	return S3At(s, dir, bucket, prefix)
}

// S3At is S3 for a bucket that is there.
func S3At(s *realstores.S3, dir, bucket, prefix string) (localnet.Store, error) {
	file, err := secret(dir, s.Process, "[default]\naws_access_key_id = "+s.AccessKey+"\naws_secret_access_key = "+s.SecretKey+"\n")
	return store("s3", map[string]any{
		"endpoint": s.Endpoint, "region": s.Region, "bucket": bucket, "style": "path", "credentials": file,
	}, prefix), err
}

// Azure makes a container and returns the store that is prefix in it, or all of it. Its secret is kept in a file below dir.
func Azure(ctx context.Context, a *realstores.Azure, dir, container, prefix string) (localnet.Store, error) {
	if err := a.MakeContainer(ctx, container); err != nil {
		return localnet.Store{}, fmt.Errorf("making a container: %w", err)
	}
	file, err := secret(dir, a.Process, a.Key+"\n")
	return store("azure", map[string]any{
		"account": a.Account, "endpoint": a.Endpoint, "container": container, "credentials": file,
	}, prefix), err
}

// GCS makes a bucket and returns the store that is prefix in it, or all of it. The server asks for no secret.
func GCS(ctx context.Context, g *realstores.GCS, bucket, prefix string) (localnet.Store, error) {
	if err := g.MakeBucket(ctx, bucket); err != nil {
		return localnet.Store{}, fmt.Errorf("making a bucket: %w", err)
	}
	return store("gcs", map[string]any{"endpoint": g.Endpoint, "bucket": bucket, "credentials": "none"}, prefix), nil
}

func store(kind string, settings map[string]any, prefix string) localnet.Store {
	if prefix != "" {
		settings["prefix"] = prefix
	}
	return localnet.Store{Kind: kind, Settings: settings}
}

// secret keeps a text in a file that only we can read, one for each server.
func secret(dir string, p *realstores.Process, text string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keeping a secret: %w", err)
	}
	file := filepath.Join(dir, fmt.Sprintf("%s-%d.secret", p.Name, p.PID()))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("keeping a secret: %w", err)
	}
	return file, nil
}
